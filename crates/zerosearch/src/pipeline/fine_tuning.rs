//! Supervised fine-tuning of a model over epochs of rows, in full or by adapters.

use burn::tensor::Device;
use zerosearch_generate::{Epochs, Stream};
use zerosearch_lm::{
    AdamWConfig, Decoder, GpuProducts, LanguageModel, LearningRate, LmError, LoraConfig, SftConfig, SftExample,
    SftTrainer,
};
use zerosearch_metrics::ProgressBar;

use super::PipelineError;

/// How a model is fine-tuned.
pub(crate) struct FineTuning<'a> {
    pub(crate) steps: u64,
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    /// Adapters in the place of all weights; they are merged in the end.
    pub(crate) lora: Option<&'a LoraConfig>,
    pub(crate) micro_batch_tokens: usize,
    pub(crate) gradient_checkpointing: bool,
    pub(crate) gpu: GpuProducts,
    pub(crate) seed: u64,
}

impl FineTuning<'_> {
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
        let decoder = match self.lora {
            None => Decoder::trainable(&base.config, &*base.weights, device)?,
            Some(lora) => {
                let seed = Stream { seed: self.seed, purpose: "simulator adapters", ..Stream::default() }.value();
                let adapters = lora.initial(&base.config, seed);
                Decoder::with_lora(&base.config, &*base.weights, lora, &adapters, device)?
            }
        };
        Ok(SftTrainer::of(decoder.with_products(self.gpu), self.sft()))
    }

    /// The fine-tuned model, and the loss of each step. Epochs are permutations of `rows` rows: `example` makes one from a row's index
    /// and its position among all that the run takes. `title` names the work on the progress bar.
    pub(crate) fn run(
        &self,
        title: &'static str,
        base: &LanguageModel,
        device: &Device,
        rows: usize,
        mut example: impl FnMut(usize, u64) -> Result<SftExample, PipelineError>,
    ) -> Result<(LanguageModel, Vec<f64>), PipelineError> {
        let mut trainer = self.trainer(base, device)?;
        let bar = ProgressBar::new(title, self.steps);
        let stream = Stream { seed: self.seed, purpose: "fine-tuning order", ..Stream::default() };
        let mut order = Epochs::new(rows, stream);
        let mut losses = Vec::new();
        for step in 0..self.steps {
            let first = step * self.batch as u64;
            let positions = first..first + self.batch as u64;
            let rows: Vec<_> = positions.filter_map(|position| Some((order.index(position)?, position))).collect();
            let batch =
                rows.into_iter().map(|(row, position)| example(row, position)).collect::<Result<Vec<_>, _>>()?;
            let report = trainer.step(&batch)?;
            losses.push(report.loss);
            bar.note(&format!("loss {:.3}", report.loss));
            bar.advance(1);
        }
        bar.finish();
        Ok((base.with_weights(trainer.decoder().to_host()), losses))
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
