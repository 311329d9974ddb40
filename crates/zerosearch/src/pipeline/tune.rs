//! Fine-tuning the simulator on balanced, labelled interactions.

use burn::tensor::Device;
use zerosearch_generate::{Ledger, Role, Stream};
use zerosearch_lm::{LanguageModel, LmError, LocalCompleter};
use zerosearch_search::Quality;
use zerosearch_simulator::{
    LabelledInteraction, Lessons, SimulatedEngine, SimulationConfig, SimulatorPrompt, Substitution,
};

use super::fine_tuning::FineTuning;
use super::{PipelineConfig, PipelineError};

impl<'a> From<&'a PipelineConfig> for FineTuning<'a> {
    fn from(config: &'a PipelineConfig) -> Self {
        Self {
            steps: config.simulator_steps,
            batch: config.simulator_batch,
            learning_rate: config.simulator_learning_rate,
            lora: None,
            micro_batch_tokens: config.train.micro_batch_tokens,
            gradient_checkpointing: false,
            gpu: config.train.gpu,
            seed: config.train.seed,
        }
    }
}

/// The base model, fine-tuned to play the engine, and the loss of each step.
pub(crate) fn tune(
    tuning: &FineTuning<'_>,
    lessons: Lessons,
    base: &LanguageModel,
    prompt: &SimulatorPrompt,
    rows: &[LabelledInteraction],
    device: &Device,
) -> Result<(LanguageModel, Vec<f64>), PipelineError> {
    let rows = lessons.ordered(rows);
    let answers = Substitution::new(&rows);
    let useful: Vec<&LabelledInteraction> = rows.iter().filter(|row| row.quality == Quality::Useful).collect();
    tuning.run("fine-tune the simulator", base, device, rows.len(), |row, position| {
        let purpose = "substituted answers";
        let mut rng = Stream { seed: tuning.seed, purpose, step: position, ..Stream::default() }.rng();
        let lesson = lessons.draw(&rows[row], &answers, &useful, &mut rng);
        Ok(lesson.example(prompt, &base.codec)?)
    })
}

/// A model that plays the engine, and reports to a ledger.
pub(crate) fn engine(
    simulation: SimulationConfig,
    model: &LanguageModel,
    prompt: &SimulatorPrompt,
    device: &Device,
    ledger: &Ledger,
) -> Result<SimulatedEngine<LocalCompleter>, LmError> {
    let completer = LocalCompleter::on(model, device)?.with_account(ledger.account(Role::Simulator));
    Ok(SimulatedEngine::new(completer, prompt.clone(), simulation))
}
