//! Experiments by their names.

use serde::{Deserialize, Serialize};
use zerosearch_algorithms::{AlgorithmConfig, RejectionSft};
use zerosearch_curriculum::{CurriculumConfig, Progress};
use zerosearch_data::Fingerprint;
use zerosearch_eval::Strategy;
use zerosearch_reward::{RewardConfig, RewardKind};
use zerosearch_train::{OldLogprobs, TrainConfig, TrainError};

use super::base::BaseModel;
use crate::pipeline::{PipelineConfig, PipelineError};

/// A policy that is trained, or the base policy as it is, and the method by which it answers the held-out questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The method of the evaluation, always with the real engine.
    pub strategy: Strategy,
    /// The training; `None` for the base policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// Whether policy and simulator begin with the base model whose demonstrations had no wrong habit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
}

/// The training of an experiment's policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The engine that answers its searches.
    pub engine: TrainingEngine,
    /// Its reward.
    pub reward: RewardConfig,
    /// A mistake that is switched on, by its [name](super::Defect::name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
    /// Everything else.
    pub train: TrainConfig,
}

/// The engine of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingEngine {
    /// No engine: R1.
    None,
    /// The base model, told by its prompt to play the engine.
    PromptedSimulator,
    /// The base model, fine-tuned to play the engine: ZeroSearch.
    FineTunedSimulator,
    /// A smaller base model than the policy's, fine-tuned to play the engine.
    SmallerSimulator,
    /// The engine of the evaluation: Search-R1.
    Real,
}

impl Experiment {
    /// The experiment of this name, as a change of a pipeline's configuration.
    ///
    /// # Errors
    /// When there is no such name, or the curriculum is out of range.
    pub fn named(name: &str, config: &PipelineConfig) -> Result<Self, PipelineError> {
        if let Some(name) = name.strip_prefix(PLAIN) {
            return Ok(Self { plain: true, ..Self::named(name, config)? });
        }
        if let Some(strategy) = untrained(name) {
            return Ok(Self { strategy, training: None, plain: false });
        }
        let (mut strategy, train) = (Strategy::Search, config.train.clone());
        let (engine, reward) = (TrainingEngine::FineTunedSimulator, RewardConfig::default());
        let mut training = Training { engine, reward, defect: None, train };
        let train = &mut training.train;
        match name {
            ZEROSEARCH => {}
            "random" | "reversed" | "adaptive" => train.curriculum = curriculum(name, train)?,
            "smaller_simulator" => training.engine = TrainingEngine::SmallerSimulator,
            "prompted_simulator" => training.engine = TrainingEngine::PromptedSimulator,
            "search_r1" => training.engine = TrainingEngine::Real,
            "r1" => {
                training.engine = TrainingEngine::None;
                // Without an engine there is nothing to come back for.
                train.rollout.max_turns = 1;
                strategy = Strategy::Cot;
            }
            "rejection_sft" => {
                train.algorithm = RejectionSft::default().into();
                training.reward = RewardConfig::One(RewardKind::Em);
            }
            "document_tokens" => {
                training.defect = Some(name.into());
                // A generator has none of a document's tokens.
                train.old_logprobs = OldLogprobs::Recomputed;
            }
            "containment" => training.reward = RewardConfig::One(RewardKind::Contains),
            "other_context" | "kl_subtracted" | "groups_of_one" => training.defect = Some(name.into()),
            _ if OTHER_ALGORITHMS.contains(&name) => {
                train.algorithm =
                    name.parse::<AlgorithmConfig>().map_err(|error| PipelineError::Train(TrainError::from(error)))?;
            }
            _ => {
                return Err(PipelineError::Config {
                    key: "experiment",
                    value: format!("{name:?}"),
                    expected: "a name from the tables",
                });
            }
        }
        Ok(Self { strategy, training: Some(training), plain: false })
    }

    /// The same with a seed, which names every random draw of the training.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        if let Some(training) = &mut self.training {
            training.train.seed = seed;
        }
        self
    }

    /// A short name for everything but the seed.
    pub fn hash(&self) -> String {
        hash(&self.clone().with_seed(0))
    }

    /// The base model of its policy.
    pub(super) fn policy_base(&self) -> BaseModel {
        if self.plain { BaseModel::Plain } else { BaseModel::Shipped }
    }
}

/// The experiment that others are compared with: the pipeline's algorithm, simulator and curriculum.
pub(crate) const ZEROSEARCH: &str = "zerosearch";

/// The beginning of the names of experiments with the plain base model.
const PLAIN: &str = "plain_";

/// Algorithms beside the pipeline's.
const OTHER_ALGORITHMS: [&str; 7] = ["reinforce", "ppo", "rloo", "reinforce_pp", "dapo", "gspo", "cispo"];

/// The band of mean rewards in which the adaptive curriculum changes the noise.
const SUCCESS: [f64; 2] = [0.1, 0.5];

/// The name of a value by its JSON.
pub(crate) fn hash(value: &impl Serialize) -> String {
    let mut hash = Fingerprint::default();
    hash.text(&serde_json::to_string(value).unwrap_or_default());
    hash.to_string()
}

fn untrained(name: &str) -> Option<Strategy> {
    match name {
        "base" => Some(Strategy::Search),
        "search" => None,
        _ => name.parse().ok(),
    }
}

/// A curriculum between the same bounds as that of the configuration, or with the same mean.
fn curriculum(name: &str, train: &TrainConfig) -> Result<CurriculumConfig, PipelineError> {
    let of = train.curriculum.build().map_err(TrainError::from)?;
    let noise: Vec<f64> = (0..train.steps).map(|i| of.noise_probability(Progress::at(i, train.steps))).collect();
    let end = of.noise_probability(Progress::at(train.steps, train.steps));
    let [low, high] = SUCCESS;
    Ok(match name {
        "random" => CurriculumConfig::Constant { probability: noise.iter().sum::<f64>() / noise.len().max(1) as f64 },
        "reversed" => CurriculumConfig::Reversed { of: Box::new(train.curriculum.clone()) },
        _ => CurriculumConfig::Adaptive {
            low,
            high,
            min: noise.iter().copied().fold(end, f64::min),
            max: noise.iter().copied().fold(end, f64::max),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper_tables::TABLES;

    fn train(name: &str) -> TrainConfig {
        Experiment::named(name, &PipelineConfig::default()).unwrap().training.unwrap().train
    }

    #[test]
    fn an_experiment_differs_from_zerosearch_by_its_name_alone() {
        let config = PipelineConfig::default();
        let zerosearch = train(ZEROSEARCH);
        assert_eq!(zerosearch, config.train);
        for (name, keys) in [
            ("ppo", &["algorithm"][..]),
            ("random", &["curriculum"]),
            ("search_r1", &[]),
            ("kl_subtracted", &[]),
            ("document_tokens", &["old_logprobs"]),
            ("plain_zerosearch", &[]),
            ("r1", &["rollout.max_turns"]),
        ] {
            let changed = train(name).change_from(&zerosearch).map(|change| change.key);
            assert!(
                changed.iter().all(|key| keys.iter().any(|expected| key.starts_with(expected))),
                "{name}: {changed:?}"
            );
            assert_eq!(changed.is_some(), !keys.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_random_curriculum_has_the_mean_of_the_rising_one() {
        let zerosearch = train(ZEROSEARCH);
        let mean = |train: &TrainConfig| {
            let curriculum = train.curriculum.build().unwrap();
            (0..train.steps).map(|i| curriculum.noise_probability(Progress::at(i, train.steps))).sum::<f64>()
                / train.steps as f64
        };
        assert!((mean(&train("random")) - mean(&zerosearch)).abs() < 1e-12);
    }

    #[test]
    fn every_name_of_the_tables_is_an_experiment_of_its_own_and_another_is_refused() {
        let config = PipelineConfig::default();
        let mut names: Vec<&str> = TABLES.iter().flat_map(|table| table.experiments()).collect();
        names.sort_unstable();
        names.dedup();
        let mut hashes: Vec<String> =
            names.iter().map(|name| Experiment::named(name, &config).unwrap().hash()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), names.len(), "{names:?}");
        for name in ["search", "sarsa", "", "plain_", "plain_sarsa"] {
            assert!(Experiment::named(name, &config).unwrap_err().to_string().contains("experiment"), "{name}");
        }
    }

    #[test]
    fn the_hash_knows_everything_but_the_seed() {
        let config = PipelineConfig::default();
        let of = |config: &PipelineConfig, seed| Experiment::named("ppo", config).unwrap().with_seed(seed).hash();
        assert_eq!(of(&config, 0), of(&config, 7));
        let mut other = config.clone();
        other.train.learning_rate *= 2.0;
        assert_ne!(of(&config, 0), of(&other, 0));
    }
}
