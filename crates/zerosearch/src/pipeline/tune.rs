//! Fine-tuning the simulator on balanced, labelled interactions.

use burn::tensor::Device;
use zerosearch_generate::stream_seed;
use zerosearch_lm::{AdamWConfig, LanguageModel, LearningRate, LocalCompleter, SftConfig, SftTrainer};
use zerosearch_metrics::Progress as Bar;
use zerosearch_simulator::{LabelledInteraction, SimulatedEngine, SimulatorPrompt, sft_examples};

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
        learning_rate: LearningRate { peak: config.simulator_learning_rate, warmup: steps / 20 + 1, total: steps, floor: 0.1 },
        optimizer: AdamWConfig::default(),
        gradient_norm: 1.0,
        micro_batch_tokens: config.train.micro_batch_tokens,
    };
    let mut trainer = SftTrainer::new(&base.config, &base.weights, sft, device);
    let bar = Bar::new("fine-tune the simulator", steps);
    for step in 0..steps {
        let pick = |slot: usize| (step * config.simulator_batch as u64 + slot as u64, slot);
        let batch: Vec<_> = (0..config.simulator_batch)
            .map(|slot| {
                let (position, _) = pick(slot);
                let (epoch, index) = (position / examples.len() as u64, position % examples.len() as u64);
                // A different order every epoch, from a stride that follows from the seed.
                let offset = stream_seed(&[config.train.seed, epoch]) % examples.len() as u64;
                examples[((index + offset) % examples.len() as u64) as usize].clone()
            })
            .collect();
        let report = trainer.step(&batch)?;
        bar.note(&format!("loss {:.3}", report.loss));
        bar.advance(1);
    }
    bar.finish();
    Ok(base.with_weights(trainer.decoder().to_host()))
}

/// A model that plays the engine.
pub(super) fn engine(config: &PipelineConfig, model: &LanguageModel, prompt: &SimulatorPrompt) -> SimulatedEngine<LocalCompleter> {
    SimulatedEngine::new(LocalCompleter::new(model), prompt.clone(), config.simulation)
}
