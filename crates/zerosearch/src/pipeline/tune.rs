//! Fine-tuning the simulator on balanced, labelled interactions.

use burn::tensor::Device;
use rand::RngExt;
use rand::seq::IndexedRandom;
use zerosearch_generate::{Epochs, Ledger, Role, Stream};
use zerosearch_lm::{AdamWConfig, LanguageModel, LearningRate, LmError, LocalCompleter, SftConfig, SftTrainer};
use zerosearch_metrics::ProgressBar;
use zerosearch_search::Quality;
use zerosearch_simulator::{
    LabelledInteraction, SimulatedEngine, SimulationConfig, SimulatorPrompt, Substitution, evidence_first, sft_examples,
};

use super::{PipelineConfig, PipelineError};

/// The base model, fine-tuned to play the engine.
pub(super) fn tune(
    config: &PipelineConfig,
    base: &LanguageModel,
    prompt: &SimulatorPrompt,
    rows: &[LabelledInteraction],
    device: &Device,
) -> Result<LanguageModel, PipelineError> {
    let rows: Vec<LabelledInteraction> = rows.iter().cloned().map(evidence_first).collect();
    let answers = Substitution::new(&rows);
    let useful: Vec<&LabelledInteraction> = rows.iter().filter(|row| row.quality == Quality::Useful).collect();
    let steps = config.simulator_steps;
    let sft = SftConfig {
        learning_rate: LearningRate::cosine(config.simulator_learning_rate, steps / 20 + 1, steps, 0.1),
        optimizer: AdamWConfig::default(),
        gradient_norm: 1.0,
        micro_batch_tokens: config.train.micro_batch_tokens,
        gradient_checkpointing: false,
    };
    let mut trainer = SftTrainer::new(&base.config, &base.weights, sft, device)?;
    let bar = ProgressBar::new("fine-tune the simulator", steps);
    let stream = Stream { seed: config.train.seed, purpose: "fine-tuning order", ..Stream::default() };
    let mut order = Epochs::new(rows.len(), stream);
    for step in 0..steps {
        let first = step * config.simulator_batch as u64;
        let positions = first..first + config.simulator_batch as u64;
        let batch: Vec<LabelledInteraction> = positions
            .filter_map(|position| Some(lesson(config, &answers, &useful, &rows[order.index(position)?], position)))
            .collect();
        let batch = sft_examples(&batch, prompt, &base.codec)?;
        let report = trainer.step(&batch)?;
        bar.note(&format!("loss {:.3}", report.loss));
        bar.advance(1);
    }
    bar.finish();
    Ok(base.with_weights(trainer.decoder().to_host()))
}

/// An interaction as it is learnt at this position of the order.
fn lesson(
    config: &PipelineConfig,
    answers: &Substitution,
    useful: &[&LabelledInteraction],
    row: &LabelledInteraction,
    position: u64,
) -> LabelledInteraction {
    let (seed, purpose) = (config.train.seed, "substituted answers");
    let mut rng = Stream { seed, purpose, step: position, ..Stream::default() }.rng();
    if row.quality == Quality::Noisy
        && rng.random_bool(config.simulator_contradiction)
        && let Some(contradicted) = useful.choose(&mut rng)
        && let Some(row) = answers.contradict(contradicted, &mut rng)
    {
        return row;
    }
    if rng.random_bool(config.simulator_substitution) { answers.draw(row, &mut rng) } else { row.clone() }
}

/// A model that plays the engine, and reports to a ledger.
pub(super) fn engine(
    simulation: SimulationConfig,
    model: &LanguageModel,
    prompt: &SimulatorPrompt,
    device: &Device,
    ledger: &Ledger,
) -> Result<SimulatedEngine<LocalCompleter>, LmError> {
    let completer = LocalCompleter::on(model, device)?.with_account(ledger.account(Role::Simulator));
    Ok(SimulatedEngine::new(completer, prompt.clone(), simulation))
}
