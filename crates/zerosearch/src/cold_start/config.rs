//! How a policy is fine-tuned on demonstrations.

use serde::{Deserialize, Serialize};
use zerosearch_lm::{GpuProducts, LoraConfig};

use crate::pipeline::PipelineError;

/// The table `[cold_start]`. The defaults are for a model of some hundred million parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColdStartConfig {
    /// How often each demonstration is read.
    pub epochs: u64,
    /// Demonstrations in one optimizer step.
    pub batch: usize,
    /// The highest learning rate of a cosine.
    pub learning_rate: f64,
    /// Trains adapters instead of all weights, and merges them in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Most tokens in one forward pass. It bounds memory and changes a gradient by rounding only.
    pub micro_batch_tokens: usize,
    /// Whether the backward pass computes each layer's forward pass again instead of keeping its activations.
    pub gradient_checkpointing: bool,
    /// How a GPU multiplies.
    #[serde(skip_serializing_if = "GpuProducts::is_exact")]
    pub gpu: GpuProducts,
}

impl Default for ColdStartConfig {
    fn default() -> Self {
        Self {
            epochs: 2,
            batch: 8,
            learning_rate: 1e-4,
            lora: None,
            micro_batch_tokens: 8192,
            gradient_checkpointing: false,
            gpu: GpuProducts::Exact,
        }
    }
}

impl ColdStartConfig {
    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), PipelineError> {
        PipelineError::refuse_zero(&[
            ("cold_start.epochs", self.epochs as usize),
            ("cold_start.batch", self.batch),
            ("cold_start.micro_batch_tokens", self.micro_batch_tokens),
        ])?;
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let value = self.learning_rate.to_string();
            return Err(PipelineError::Config { key: "cold_start.learning_rate", value, expected: "above 0" });
        }
        Ok(self.lora.as_ref().map_or(Ok(()), LoraConfig::validate)?)
    }

    /// Optimizer steps on so many demonstrations.
    pub(super) fn steps(&self, demonstrations: usize) -> u64 {
        (self.epochs * demonstrations as u64).div_ceil(self.batch as u64)
    }
}
