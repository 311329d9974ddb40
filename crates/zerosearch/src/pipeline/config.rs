//! Configuration of a pipeline, with the quickstart's values as defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_algorithms::Grpo;
use zerosearch_simulator::SimulationConfig;
use zerosearch_train::{KeyChange, TrainConfig};

use super::PipelineError;

/// The whole method's configuration: sized for a small model on a small machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineConfig {
    /// Training questions on which the base policy meets the real engine.
    pub collect_questions: usize,
    /// Held-out questions whose queries test the simulator's obedience.
    pub obedience_questions: usize,
    /// Optimizer steps of the simulator's fine-tuning.
    pub simulator_steps: u64,
    /// Examples in each of them.
    pub simulator_batch: usize,
    /// Their highest learning rate.
    pub simulator_learning_rate: f64,
    /// Share of the examples whose answer is another one, in prompt and documents, each time that they are seen: 0 to 1. See
    /// [`Substitution`](zerosearch_simulator::Substitution).
    pub simulator_substitution: f64,
    /// Share of the noisy examples that are useful ones with another answer in the documents than in the prompt: 0 to 1.
    pub simulator_contradiction: f64,
    /// How the simulator samples.
    pub simulation: SimulationConfig,
    /// The reinforcement learning.
    pub train: TrainConfig,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            collect_questions: 1000,
            obedience_questions: 100,
            simulator_steps: 160,
            simulator_batch: 24,
            simulator_learning_rate: 5e-4,
            simulator_substitution: 1.0,
            simulator_contradiction: 0.5,
            simulation: SimulationConfig { temperature: 0.8, max_new_tokens: 240, attempts: 1 },
            train: TrainConfig::small(Grpo::default()),
        }
    }
}

impl PipelineConfig {
    /// Checks the ranges of what is checked by no stage.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let counts = [
            ("collect_questions", self.collect_questions),
            ("obedience_questions", self.obedience_questions),
            ("simulator_steps", self.simulator_steps as usize),
            ("simulator_batch", self.simulator_batch),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(PipelineError::Config { key, value: "0".into(), expected: "at least 1" });
            }
        }
        let shares = [
            ("simulator_substitution", self.simulator_substitution),
            ("simulator_contradiction", self.simulator_contradiction),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(PipelineError::Config { key, value: value.to_string(), expected: "0 to 1" });
            }
        }
        Ok(self.train.validate()?)
    }

    /// The first key that differs from that of a run with the configuration `before` and that decides results: see
    /// [`TrainConfig::change_from`].
    pub fn change_from(&self, before: &Self) -> Option<KeyChange> {
        let value = |config: &Self| {
            let of_stages = Self { train: TrainConfig::default(), ..config.clone() };
            serde_json::to_value(of_stages).unwrap_or(Value::Null)
        };
        let (old, new) = (value(before), value(self));
        let keys = old.as_object().into_iter().flat_map(|keys| keys.keys());
        let changed = keys.into_iter().find(|key| old[*key] != new[*key]);
        let change =
            |key: &String| KeyChange { key: key.clone(), before: old.get(key).cloned(), now: new.get(key).cloned() };
        let of_training = || {
            let change = self.train.change_from(&before.train)?;
            Some(KeyChange { key: format!("train.{}", change.key), ..change })
        };
        changed.map(change).or_else(of_training)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_results_is_named_and_resources_may_change() {
        let before = PipelineConfig::default();
        let mut now = before.clone();
        now.train.micro_batch_tokens = 1;
        now.train.rollout.concurrency = 2;
        assert_eq!(now.change_from(&before), None);
        now.train.seed = 7;
        let message = now.change_from(&before).unwrap().to_string();
        assert_eq!(message, "this run had another `train.seed`: 0, not 7");
        now.simulator_steps = 41;
        assert_eq!(now.change_from(&before).unwrap().key, "simulator_steps");
    }
}
