//! The result of one run, and the folder of all results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_eval::Scores;
use zerosearch_files::prepare_folder;
use zerosearch_generate::{Role, Usage};
use zerosearch_rollout::RolloutConfig;
use zerosearch_train::TrainConfig;

use super::experiment::hash;
use super::{Experiment, Training};
use crate::pipeline::folder::Folder;
use crate::pipeline::{PipelineConfig, PipelineError};

/// An experiment with a seed, done. Equal for the same configuration and seed, but for the keys that end in `seconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The experiment's name.
    pub experiment: String,
    /// Its seed.
    pub seed: u64,
    /// [`CellConfig::hash`].
    pub hash: String,
    /// The vector instructions of the CPU that it ran on, which decide no bit of it, or the GPU.
    pub instructions: String,
    /// The figures; `None` where the training failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<CellScores>,
    /// The reason why there are none: a loss that was not a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Duration of training and evaluation, in seconds.
    pub seconds: f64,
    /// Usage during the training, by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usage: BTreeMap<Role, Usage>,
    /// Everything that the figures depend on.
    pub config: CellConfig,
}

/// Scores on the held-out questions with the real engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellScores {
    /// Questions of one hop.
    pub one_hop: Scores,
    /// Questions of several hops.
    pub several_hops: Scores,
    /// All questions.
    pub all: Scores,
}

/// Everything that a cell's figures depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// Whether it is one of a few steps on a few questions, which says nothing about the method.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub small: bool,
    /// Fingerprint of the base model's folder.
    pub model: String,
    /// Fingerprint of the passages.
    pub corpus: String,
    /// Fingerprint of the training questions.
    pub training_questions: String,
    /// Fingerprint of the held-out questions.
    pub held_out_questions: String,
    /// The bounds of an episode in the evaluation, which is greedy whatever stands here.
    pub bounds: RolloutConfig,
    /// The making of the simulator, where one answers the searches of the training.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub simulator: Value,
    /// Fingerprint of the simulator's base model, where it is another than the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulator_model: Option<String>,
    /// The experiment.
    pub experiment: Experiment,
}

impl CellConfig {
    /// A short name for everything but the seed.
    pub fn hash(&self) -> String {
        hash(&Self { experiment: self.experiment.clone().with_seed(0), ..self.clone() })
    }

    /// Whether cells of both have the same figures: at most keys differ that change memory or speed, and an older file may lack
    /// keys that were added since, with the values that they have by default.
    pub fn same_figures(&self, other: &Self) -> bool {
        let trained = |config: &Self| config.experiment.training.clone();
        let train = |config: &Self| {
            let of_evaluation = TrainConfig { rollout: config.bounds, ..TrainConfig::default() };
            [of_evaluation, trained(config).map(|training| training.train).unwrap_or_default()]
        };
        let others = |config: &Self| {
            let training = trained(config).map(|training| Training { train: TrainConfig::default(), ..training });
            Self {
                bounds: RolloutConfig::default(),
                simulator: complete(&config.simulator),
                experiment: Experiment { training, ..config.experiment.clone() },
                ..config.clone()
            }
        };
        let mut pairs = train(self).into_iter().zip(train(other));
        pairs.all(|(a, b)| a.change_from(&b).is_none()) && others(self) == others(other)
    }
}

/// The keys of a pipeline that its simulator is made by.
pub(crate) fn of_simulator(config: &PipelineConfig) -> Value {
    let mut keys = serde_json::to_value(config).unwrap_or(Value::Null);
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("train");
    }
    keys
}

/// The same with the keys that it lacks.
fn complete(simulator: &Value) -> Value {
    match serde_json::from_value::<PipelineConfig>(simulator.clone()) {
        Ok(config) => of_simulator(&config),
        Err(_) => simulator.clone(),
    }
}

/// A folder with a JSON file for each cell, `EXPERIMENT-seedN.json`.
#[derive(Clone, Debug)]
pub struct Results {
    folder: PathBuf,
}

impl Results {
    /// The results in a folder, which need not be there yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cell of this experiment and seed, if it is done.
    ///
    /// # Errors
    /// When its file is no cell.
    pub fn cell(&self, experiment: &str, seed: u64) -> Result<Option<Cell>, PipelineError> {
        Folder(&self.folder).read_if_there(&file_name(experiment, seed))
    }

    /// Writes a cell's file whole or not at all. It replaces that of an older configuration, but one of a few steps on a few questions
    /// never replaces a whole one.
    ///
    /// # Errors
    /// When the file cannot be written, or would replace such a one.
    pub fn write(&self, cell: &Cell) -> Result<(), PipelineError> {
        self.refuse_smaller(&cell.experiment, cell.seed, &cell.config)?;
        prepare_folder(&self.folder)?;
        Folder(&self.folder).write(&file_name(&cell.experiment, cell.seed), cell)
    }

    /// All cells, by experiment and seed.
    ///
    /// # Errors
    /// When a JSON file in the folder is no cell, or has another cell's name.
    pub fn cells(&self) -> Result<Vec<Cell>, PipelineError> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let failed = |error: std::io::Error| PipelineError::file(&self.folder, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".json") {
                names.push(name);
            }
        }
        let mut cells = Vec::new();
        for name in names {
            let cell: Cell = Folder(&self.folder).read(&name)?;
            let expected = file_name(&cell.experiment, cell.seed);
            if name != expected {
                let message = format!("it holds the cell of {expected}: give it that name, or take it away");
                return Err(PipelineError::file(self.folder.join(name), message));
            }
            cells.push(cell);
        }
        cells.sort_by(|a, b| (&a.experiment, a.seed).cmp(&(&b.experiment, b.seed)));
        Ok(cells)
    }

    /// Before the work: whether a cell of this configuration would replace a whole one by a small one.
    pub(crate) fn refuse_smaller(&self, experiment: &str, seed: u64, config: &CellConfig) -> Result<(), PipelineError> {
        match self.cell(experiment, seed)? {
            Some(there) if config.small && !there.config.small => {
                let path = self.folder.join(file_name(experiment, seed));
                Err(PipelineError::file(
                    path,
                    "it holds a whole result, which a small one must not replace: give another `--out`",
                ))
            }
            _ => Ok(()),
        }
    }
}

fn file_name(experiment: &str, seed: u64) -> String {
    format!("{experiment}-seed{seed}.json")
}

#[cfg(test)]
pub(crate) mod tests {
    use zerosearch_eval::wilson_interval;

    use super::*;
    use crate::pipeline::PipelineConfig;

    /// A cell with so many right answers of 100.
    pub(crate) fn cell(experiment: &str, seed: u64, right: usize) -> Cell {
        let scores = |n: usize| Scores {
            n,
            em: right as f64 / 100.0,
            f1: right as f64 / 100.0,
            contains: 0.0,
            em_ci95: wilson_interval(right * n / 100, n),
            searches_per_question: 1.5,
            search_failures: 0,
        };
        let config = CellConfig {
            small: false,
            model: String::new(),
            corpus: String::new(),
            training_questions: String::new(),
            held_out_questions: String::new(),
            bounds: RolloutConfig::default(),
            simulator: Value::Null,
            simulator_model: None,
            experiment: Experiment::named(experiment, &PipelineConfig::default()).unwrap().with_seed(seed),
        };
        Cell {
            experiment: experiment.into(),
            seed,
            hash: config.hash(),
            instructions: "plain".into(),
            scores: Some(CellScores { one_hop: scores(50), several_hops: scores(50), all: scores(100) }),
            failure: None,
            seconds: 90.0,
            usage: BTreeMap::new(),
            config,
        }
    }

    #[test]
    fn figures_are_those_of_another_configuration_where_only_speed_differs_or_a_default_was_added() {
        let (of, mut other) = (cell("ppo", 0, 50).config, cell("ppo", 0, 50).config);
        let change = |config: &mut CellConfig, change: &dyn Fn(&mut TrainConfig)| {
            change(&mut config.experiment.training.as_mut().unwrap().train);
        };
        change(&mut other, &|train| (train.micro_batch_tokens, train.rollout.concurrency) = (1, 2));
        other.bounds.search_concurrency = 3;
        assert!(of.same_figures(&other) && of.hash() != other.hash());
        change(&mut other, &|train| train.learning_rate *= 2.0);
        assert!(!of.same_figures(&other));
        assert!(!of.same_figures(&cell("ppo", 1, 50).config) && !of.same_figures(&cell("rloo", 0, 50).config));
        assert!(!of.same_figures(&CellConfig { corpus: "other".into(), ..of.clone() }));

        let made = |config: &PipelineConfig| CellConfig { simulator: of_simulator(config), ..of.clone() };
        let mut older = made(&PipelineConfig::default());
        older.simulator.as_object_mut().unwrap().remove("simulation");
        assert!(older.same_figures(&made(&PipelineConfig::default())) && !older.same_figures(&of));
        let longer = PipelineConfig { simulator_steps: 41, ..PipelineConfig::default() };
        assert!(!older.same_figures(&made(&longer)));
    }

    #[test]
    fn cells_are_read_back_and_a_small_one_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::at(folder.path().join("results"));
        assert_eq!(results.cells().unwrap(), []);
        let (a, b) = (cell("ppo", 1, 40), cell("ppo", 0, 50));
        results.write(&a).unwrap();
        results.write(&b).unwrap();
        assert_eq!(results.cells().unwrap(), [b.clone(), a.clone()]);
        let mut small = a.clone();
        small.config.small = true;
        let refused = results.write(&small).unwrap_err().to_string();
        assert!(refused.contains("ppo-seed1.json") && refused.contains("--out"), "{refused}");
        assert_eq!(results.cell("ppo", 1).unwrap(), Some(a));

        std::fs::rename(results.folder().join("ppo-seed0.json"), results.folder().join("grpo-seed0.json")).unwrap();
        let refused = results.cells().unwrap_err().to_string();
        assert!(refused.contains("grpo-seed0.json") && refused.contains("ppo-seed0.json"), "{refused}");
    }
}
