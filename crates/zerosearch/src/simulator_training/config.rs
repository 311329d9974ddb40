//! How a simulator is made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zerosearch_lm::{GpuProducts, LoraConfig};
use zerosearch_rollout::RolloutConfig;
use zerosearch_simulator::{Lessons, SimulationConfig};

use crate::pipeline::{PipelineConfig, PipelineError};

/// The table `[collect]`: how interactions with the real engine are collected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Questions that the policy answers, drawn from the file; 0: all of them.
    pub questions: usize,
    /// Questions after which the interactions are judged and written: so many are asked again after a kill.
    pub chunk: usize,
    /// Whether each search gets a twin with documents of the other quality (see [`contrast`](zerosearch_simulator::contrast)). It
    /// costs one more call to the engine for each search.
    pub contrast: bool,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self { questions: 1000, chunk: 64, contrast: true }
    }
}

/// The table `[tune]`: which model is fine-tuned, how, and on how much it is measured. The defaults are for a model of
/// some million parameters; one of billions wants a lower rate, 1e-6 to 1e-5 for all weights and about 1e-4 with `lora`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuneConfig {
    /// The folder of the model that becomes the simulator; the policy's if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A prompt template in the place of the folder's or the built-in one. It is kept in the simulator's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
    /// Share of the questions that nothing is learnt from, between 0 and 1.
    pub held_out: f64,
    /// Their queries that the simulator is measured on, at most.
    pub held_out_queries: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Examples in each of them.
    pub batch: usize,
    /// The highest learning rate of a cosine.
    pub learning_rate: f64,
    /// How interactions become examples.
    pub lessons: Lessons,
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
    /// How the simulator samples where it is measured.
    pub simulation: SimulationConfig,
}

impl Default for TuneConfig {
    fn default() -> Self {
        let quickstart = PipelineConfig::default();
        Self {
            model: None,
            template: None,
            held_out: 0.1,
            held_out_queries: quickstart.obedience_questions,
            steps: quickstart.simulator_steps,
            batch: quickstart.simulator_batch,
            learning_rate: quickstart.simulator_learning_rate,
            lessons: quickstart.simulator_lessons,
            lora: None,
            micro_batch_tokens: quickstart.train.micro_batch_tokens,
            gradient_checkpointing: false,
            gpu: GpuProducts::Exact,
            simulation: quickstart.simulation,
        }
    }
}

/// Everything that decides which simulator comes out, beside the data and the models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorTrainingConfig {
    /// Names every random draw.
    pub seed: u64,
    /// Bounds of the episodes in which interactions are collected.
    pub rollout: RolloutConfig,
    /// The collection.
    pub collect: CollectConfig,
    /// The fine-tuning.
    pub tune: TuneConfig,
}

impl SimulatorTrainingConfig {
    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let Self { rollout, collect, tune, .. } = self;
        let refuse = |key, value: String, expected| Err(PipelineError::Config { key, value, expected });
        PipelineError::refuse_zero(&[
            ("collect.chunk", collect.chunk),
            ("tune.held_out_queries", tune.held_out_queries),
            ("tune.steps", tune.steps as usize),
            ("tune.batch", tune.batch),
            ("tune.micro_batch_tokens", tune.micro_batch_tokens),
            ("tune.simulation.max_new_tokens", tune.simulation.max_new_tokens),
        ])?;
        if !(tune.held_out > 0.0 && tune.held_out < 1.0) {
            return refuse("tune.held_out", tune.held_out.to_string(), "a share above 0 and below 1, such as 0.1");
        }
        tune.lessons.validate()?;
        if !(tune.learning_rate.is_finite() && tune.learning_rate > 0.0) {
            return refuse("tune.learning_rate", tune.learning_rate.to_string(), "a finite number above 0");
        }
        tune.lora.iter().try_for_each(LoraConfig::validate)?;
        Ok(rollout.validate()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_their_key() {
        let refused = |change: fn(&mut SimulatorTrainingConfig)| {
            let mut config = SimulatorTrainingConfig::default();
            assert!(config.validate().is_ok());
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for (change, key) in [
            (|c| c.collect.chunk = 0, "`collect.chunk` is 0"),
            (|c| c.tune.held_out = 1.0, "`tune.held_out` is 1"),
            (|c| c.tune.lessons.substitution = 1.5, "`substitution` is 1.5"),
            (|c| c.tune.learning_rate = f64::NAN, "`tune.learning_rate` is NaN"),
            (|c| c.tune.lora = Some(LoraConfig { rank: 0, ..LoraConfig::default() }), "rank"),
            (|c| c.rollout.top_k = 0, "top_k"),
        ] as [(fn(&mut SimulatorTrainingConfig), &str); 6]
        {
            let message = refused(change);
            assert!(message.contains(key), "{key}: {message}");
        }
    }
}
