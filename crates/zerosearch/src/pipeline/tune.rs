//! Fine-tuning the simulator on balanced, labelled interactions.

use burn::tensor::Device;
use zerosearch_generate::{Epochs, Ledger, Role, Stream};
use zerosearch_lm::{
    AdamWConfig, Decoder, LanguageModel, LearningRate, LmError, LocalCompleter, LoraConfig, SftConfig, SftExample,
    SftTrainer,
};
use zerosearch_metrics::ProgressBar;
use zerosearch_search::Quality;
use zerosearch_simulator::{
    LabelledInteraction, Lesson, Lessons, SimulatedEngine, SimulationConfig, SimulatorPrompt, Substitution,
};

use super::{PipelineConfig, PipelineError};

/// How the simulator is fine-tuned.
pub(crate) struct Tuning<'a> {
    pub(crate) steps: u64,
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    pub(crate) lessons: Lessons,
    /// Adapters in the place of all weights; they are merged in the end.
    pub(crate) lora: Option<&'a LoraConfig>,
    pub(crate) micro_batch_tokens: usize,
    pub(crate) gradient_checkpointing: bool,
    pub(crate) seed: u64,
}

impl<'a> From<&'a PipelineConfig> for Tuning<'a> {
    fn from(config: &'a PipelineConfig) -> Self {
        Self {
            steps: config.simulator_steps,
            batch: config.simulator_batch,
            learning_rate: config.simulator_learning_rate,
            lessons: config.simulator_lessons,
            lora: None,
            micro_batch_tokens: config.train.micro_batch_tokens,
            gradient_checkpointing: false,
            seed: config.train.seed,
        }
    }
}

impl Tuning<'_> {
    fn sft(&self) -> SftConfig {
        SftConfig {
            learning_rate: LearningRate::cosine(self.learning_rate, self.steps / 20 + 1, self.steps, 0.1),
            optimizer: AdamWConfig::default(),
            gradient_norm: 1.0,
            micro_batch_tokens: self.micro_batch_tokens,
            gradient_checkpointing: self.gradient_checkpointing,
        }
    }

    fn trainer(&self, base: &LanguageModel, device: &Device) -> Result<SftTrainer, LmError> {
        let Some(lora) = self.lora else {
            return SftTrainer::new(&base.config, &base.weights, self.sft(), device);
        };
        let seed = Stream { seed: self.seed, purpose: "simulator adapters", ..Stream::default() }.value();
        let adapters = lora.initial(&base.config, seed);
        let decoder = Decoder::with_lora(&base.config, &*base.weights, lora, &adapters, device)?;
        Ok(SftTrainer::of(decoder, self.sft()))
    }

    /// The exponential of the mean `−log p` of the learnt tokens.
    pub(crate) fn perplexity(
        &self,
        model: &LanguageModel,
        examples: &[SftExample],
        device: &Device,
    ) -> Result<f64, LmError> {
        let decoder = Decoder::frozen(&model.config, &*model.weights, device)?;
        Ok(SftTrainer::of(decoder, self.sft()).evaluate(examples).exp())
    }
}

/// The base model, fine-tuned to play the engine, and the loss of each step.
pub(crate) fn tune(
    tuning: &Tuning<'_>,
    base: &LanguageModel,
    prompt: &SimulatorPrompt,
    rows: &[LabelledInteraction],
    device: &Device,
) -> Result<(LanguageModel, Vec<f64>), PipelineError> {
    let lessons = tuning.lessons;
    let rows = lessons.ordered(rows);
    let answers = Substitution::new(&rows);
    let useful: Vec<&LabelledInteraction> = rows.iter().filter(|row| row.quality == Quality::Useful).collect();
    let steps = tuning.steps;
    let mut trainer = tuning.trainer(base, device)?;
    let bar = ProgressBar::new("fine-tune the simulator", steps);
    let stream = Stream { seed: tuning.seed, purpose: "fine-tuning order", ..Stream::default() };
    let mut order = Epochs::new(rows.len(), stream);
    let mut losses = Vec::new();
    for step in 0..steps {
        let first = step * tuning.batch as u64;
        let positions = first..first + tuning.batch as u64;
        let mut lesson = |position: u64| {
            let purpose = "substituted answers";
            let mut rng = Stream { seed: tuning.seed, purpose, step: position, ..Stream::default() }.rng();
            Some(lessons.draw(&rows[order.index(position)?], &answers, &useful, &mut rng))
        };
        let batch: Vec<Lesson> = positions.filter_map(&mut lesson).collect();
        let example = |lesson: &Lesson| lesson.example(prompt, &base.codec);
        let batch = batch.iter().map(example).collect::<Result<Vec<_>, _>>()?;
        let report = trainer.step(&batch)?;
        losses.push(report.loss);
        bar.note(&format!("loss {:.3}", report.loss));
        bar.advance(1);
    }
    bar.finish();
    Ok((base.with_weights(trainer.decoder().to_host()), losses))
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
