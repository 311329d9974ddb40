//! A network that is trained, with its optimizer.

use zerosearch_generate::Stream;
use zerosearch_lm::{AdamW, AdamWConfig, Decoder, Gradients};

use crate::TrainError;

/// The policy or the critic.
pub(crate) struct Learner {
    pub(crate) decoder: Decoder,
    pub(crate) optimizer: AdamW,
}

impl Learner {
    pub(crate) fn new(decoder: Decoder, optimizer: AdamWConfig) -> Self {
        Self { decoder, optimizer: AdamW::new(optimizer) }
    }

    /// The stream of an update's dropout, whose `question` is a device and whose `sample` a micro-batch: no two passes before
    /// or after a resume have the same.
    pub(crate) fn dropout(&self, seed: u64) -> Stream {
        Stream { seed, purpose: "dropout", step: self.optimizer.steps(), ..Stream::default() }
    }

    /// One optimizer step with the gradient scaled down to a norm of `limit`; a loss or norm that is not finite changes nothing.
    /// Returns the norm before.
    pub(crate) fn step(
        &mut self,
        mut gradients: Gradients,
        loss: f64,
        rate: f64,
        limit: f64,
        step: u64,
    ) -> Result<f64, TrainError> {
        let norm = gradients.clip(limit);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step, loss, norm });
        }
        self.optimizer.step(self.decoder.trained_mut(), gradients, rate);
        Ok(norm)
    }
}
