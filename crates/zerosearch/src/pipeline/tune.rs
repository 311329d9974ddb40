//! Fine-tuning the simulator on balanced, labelled interactions.

use burn::tensor::Device;
use rand::seq::SliceRandom;
use zerosearch_generate::Stream;
use zerosearch_lm::{AdamWConfig, LanguageModel, LearningRate, LocalCompleter, SftConfig, SftTrainer};
use zerosearch_metrics::ProgressBar;
use zerosearch_simulator::{LabelledInteraction, SimulatedEngine, SimulationConfig, SimulatorPrompt, sft_examples};

use super::{PipelineConfig, PipelineError};

/// The base model, fine-tuned to play the engine.
pub(super) fn tune(
    config: &PipelineConfig,
    base: &LanguageModel,
    prompt: &SimulatorPrompt,
    rows: &[LabelledInteraction],
    device: &Device,
) -> Result<LanguageModel, PipelineError> {
    let examples = sft_examples(rows, prompt, &base.codec)?;
    let steps = config.simulator_steps;
    let sft = SftConfig {
        learning_rate: LearningRate::cosine(config.simulator_learning_rate, steps / 20 + 1, steps, 0.1),
        optimizer: AdamWConfig::default(),
        gradient_norm: 1.0,
        micro_batch_tokens: config.train.micro_batch_tokens,
        gradient_checkpointing: false,
    };
    let mut trainer = SftTrainer::new(&base.config, &base.weights, sft, device);
    let bar = ProgressBar::new("fine-tune the simulator", steps);
    let mut order = Vec::new();
    for step in 0..steps {
        let batch: Vec<_> = (0..config.simulator_batch as u64)
            .map(|slot| {
                let position = step * config.simulator_batch as u64 + slot;
                let (epoch, index) = (position / examples.len() as u64, position as usize % examples.len());
                if index == 0 || order.is_empty() {
                    order = permutation(examples.len(), config.train.seed, epoch);
                }
                examples[order[index]].clone()
            })
            .collect();
        let report = trainer.step(&batch)?;
        bar.note(&format!("loss {:.3}", report.loss));
        bar.advance(1);
    }
    bar.finish();
    Ok(base.with_weights(trainer.decoder().to_host()))
}

/// Indices in an order that follows from seed and epoch.
fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Stream { seed, purpose: "fine-tuning order", step: epoch, ..Stream::default() }.rng());
    order
}

/// A model that plays the engine.
pub(super) fn engine(
    simulation: SimulationConfig,
    model: &LanguageModel,
    prompt: &SimulatorPrompt,
) -> SimulatedEngine<LocalCompleter> {
    SimulatedEngine::new(LocalCompleter::new(model), prompt.clone(), simulation)
}
