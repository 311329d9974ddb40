//! Supervised training: cross entropy on chosen tokens, accumulated over micro-batches of a token budget.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use zerosearch_generate::{Stream, TokenId};

use crate::{
    AdamW, AdamWConfig, Decoder, Gradients, HostWeights, LearningRate, LmError, ModelConfig, ScoredSequence,
    micro_batches,
};

/// A token sequence and what of it is learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct SftExample {
    /// The whole sequence.
    pub tokens: Vec<TokenId>,
    /// Indices of the tokens that are learnt, ascending, each at least 1.
    pub positions: Vec<usize>,
    /// The weight of each of them in the loss.
    pub weights: Vec<f32>,
}

impl SftExample {
    /// Learns `completion` after `prompt`; the prompt itself is not learnt.
    pub fn completion(prompt: &[TokenId], completion: &[TokenId]) -> Self {
        let positions: Vec<usize> = (prompt.len().max(1)..prompt.len() + completion.len()).collect();
        Self { tokens: [prompt, completion].concat(), weights: vec![1.0; positions.len()], positions }
    }

    fn scored(&self) -> ScoredSequence<'_> {
        ScoredSequence { tokens: &self.tokens, positions: &self.positions }
    }
}

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// The schedule.
    pub learning_rate: LearningRate,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Gradients are scaled down to this global norm.
    pub gradient_norm: f64,
    /// Most tokens in one forward pass; what adjacent examples have in common at their beginning counts once.
    pub micro_batch_tokens: usize,
    /// Whether the backward pass computes each layer's forward pass again instead of keeping its activations (see
    /// [`Pass`](crate::Pass)).
    #[serde(default)]
    pub gradient_checkpointing: bool,
}

/// Report of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SftReport {
    /// Weighted mean of `−log p` over the learnt tokens, in nats.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The rate that was used.
    pub learning_rate: f64,
    /// Learnt tokens in the batch.
    pub tokens: usize,
}

/// Trains a decoder on examples.
pub struct SftTrainer {
    decoder: Decoder,
    optimizer: AdamW,
    config: SftConfig,
    step: u64,
}

impl SftTrainer {
    /// Starts from these weights.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn new(
        model: &ModelConfig,
        weights: &HostWeights,
        config: SftConfig,
        device: &Device,
    ) -> Result<Self, LmError> {
        Ok(Self::of(Decoder::trainable(model, weights, device)?, config))
    }

    /// Trains a decoder as it is: one with adapters, for example.
    pub fn of(decoder: Decoder, config: SftConfig) -> Self {
        Self { decoder, optimizer: AdamW::new(config.optimizer), config, step: 0 }
    }

    /// The decoder as trained so far.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Optimizer steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One optimizer step on the whole batch.
    ///
    /// # Errors
    /// When an example is malformed, nothing in the batch is learnt, or the loss or its gradient is not finite; the
    /// weights are then unchanged.
    pub fn step(&mut self, batch: &[SftExample]) -> Result<SftReport, LmError> {
        batch.iter().enumerate().try_for_each(|(index, example)| self.check(index, example))?;
        let total: f64 = batch.iter().flat_map(|example| &example.weights).map(|weight| f64::from(*weight)).sum();
        if total <= 0.0 {
            return Err(LmError::Batch("the batch has no token to learn: every example needs a completion".into()));
        }
        let mut gradients = Gradients::default();
        let mut losses = Vec::new();
        let scored: Vec<ScoredSequence<'_>> = batch.iter().map(SftExample::scored).collect();
        for (index, range) in micro_batches(&scored, self.config.micro_batch_tokens).into_iter().enumerate() {
            let (micro, scored) = (&batch[range.clone()], &scored[range]);
            let weights: Vec<f32> =
                micro.iter().flat_map(|e| &e.weights).map(|w| (f64::from(*w) / total) as f32).collect();
            if weights.is_empty() {
                continue;
            }
            let dropout = Stream { purpose: "sft dropout", step: self.step, sample: index as u64, ..Stream::default() };
            let pass = self.decoder.with_dropout(dropout).pass(scored, self.config.gradient_checkpointing);
            let (logprobs, _) = pass.score(scored);
            let weights =
                Tensor::<1>::from_data(TensorData::new(weights.clone(), [weights.len()]), self.decoder.device());
            let objective = (logprobs * weights).sum().neg();
            losses.push(objective.clone().without_autodiff());
            pass.backward(objective, &mut gradients);
        }
        // One copy to the host, after all passes.
        let losses = Tensor::cat(losses, 0).into_data().try_to_vec::<f32>().unwrap_or_else(|_| vec![f32::NAN]);
        let loss: f64 = losses.into_iter().map(f64::from).sum();
        let norm = gradients.clip(self.config.gradient_norm);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(LmError::Batch(format!(
                "step {}: loss {loss}, gradient norm {norm}: lower the learning rate",
                self.step
            )));
        }
        let learning_rate = self.config.learning_rate.at(self.step);
        self.optimizer.step(self.decoder.trained_mut(), gradients, learning_rate);
        self.step += 1;
        let tokens = batch.iter().map(|example| example.positions.len()).sum();
        Ok(SftReport { loss, gradient_norm: norm, learning_rate, tokens })
    }

    fn check(&self, index: usize, example: &SftExample) -> Result<(), LmError> {
        let SftExample { tokens, positions, weights } = example;
        let wrong = |message: String| Err(LmError::Batch(format!("example {index} of the batch {message}")));
        let vocabulary = self.decoder.config().vocab_size;
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocabulary) {
            return wrong(format!("has token {id}, the model has ids below {vocabulary}"));
        }
        if let Some(position) = positions.iter().find(|position| !(1..tokens.len()).contains(position)) {
            return wrong(format!("learns position {position}, expected 1 to {}", tokens.len().saturating_sub(1)));
        }
        if !positions.is_sorted_by(|a, b| a < b) || weights.len() != positions.len() {
            let (weights, positions) = (weights.len(), positions.len());
            return wrong(format!("has {weights} weights for {positions} positions: expected one each, ascending"));
        }
        Ok(())
    }

    /// Mean `−log p` over the learnt tokens, without a step.
    pub fn evaluate(&self, batch: &[SftExample]) -> f64 {
        let frozen = self.decoder.without_autodiff();
        let (mut sum, mut count) = (0.0, 0);
        let scored: Vec<ScoredSequence<'_>> = batch.iter().map(SftExample::scored).collect();
        for range in micro_batches(&scored, self.config.micro_batch_tokens) {
            let learnt: usize = scored[range.clone()].iter().map(|sequence| sequence.positions.len()).sum();
            if learnt > 0 {
                sum -= f64::from(frozen.score(&scored[range]).0.sum().into_scalar::<f32>());
                count += learnt;
            }
        }
        sum / count.max(1) as f64
    }
}
