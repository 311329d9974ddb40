//! Configuration of a pipeline, with the quickstart's values as defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_algorithms::Grpo;
use zerosearch_simulator::{Lessons, SimulationConfig};
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
    /// How interactions become its examples.
    pub simulator_lessons: Lessons,
    /// How the simulator samples.
    pub simulation: SimulationConfig,
    /// The reinforcement learning.
    pub train: TrainConfig,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            collect_questions: 800,
            obedience_questions: 500,
            simulator_steps: 180,
            simulator_batch: 24,
            simulator_learning_rate: 5e-4,
            simulator_lessons: Lessons::default(),
            // Cooler than the library's 0.8: so small a model misspells what it copies.
            simulation: SimulationConfig { temperature: 0.6, max_new_tokens: 240, ..SimulationConfig::default() },
            train: TrainConfig { validate_every: 5, ..TrainConfig::small(Grpo::default()) },
        }
    }
}

impl PipelineConfig {
    /// The same with little of everything but the steps of the reinforcement learning: shows that a machine works, and says
    /// nothing about the method.
    #[must_use]
    pub fn shortened(self) -> Self {
        let train = TrainConfig { questions_per_step: 2, ..self.train };
        Self { collect_questions: 40, simulator_steps: 4, simulator_batch: 8, obedience_questions: 10, train, ..self }
    }

    /// Checks the ranges of what is checked by no stage.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), PipelineError> {
        PipelineError::refuse_zero(&[
            ("collect_questions", self.collect_questions),
            ("obedience_questions", self.obedience_questions),
            ("simulator_steps", self.simulator_steps as usize),
            ("simulator_batch", self.simulator_batch),
        ])?;
        self.simulator_lessons.validate()?;
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
