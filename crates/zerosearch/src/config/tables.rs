//! The tables of a file, of which each program takes what it needs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::read_text;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_reward::RewardConfig;
use zerosearch_server::ServerConfig;
use zerosearch_train::{OldLogprobs, TrainConfig};

use super::keys::required;
use super::parse::parse;
use super::{
    Api, ConfigError, EngineConfig, GeneratorConfig, JudgeConfig, PolicyConfig, RunConfig, ValidationConfig, is_default,
};
use crate::cold_start::ColdStartConfig;
use crate::device::DeviceName;
use crate::dry_run::{DryRunConfig, Rates};
use crate::simulator_training::{CollectConfig, TuneConfig};

/// A file of `train`, `evaluate`, `ask` and the others: one set of tables, all of which may be left out. Unknown keys are refused.
///
/// ```
/// use zerosearch::config::{EngineConfig, Tables};
///
/// let text = r#"
///     model = "models/base"
///     [engine]
///     kind = "retriever"
///     url = "http://127.0.0.1:8000"
///     "#;
/// let tables = Tables::parse("example.toml", text, &["train.rollout.top_k=3".to_string()])?;
/// assert_eq!(tables.train.rollout.top_k, 3);
/// assert!(matches!(tables.engine, Some(EngineConfig::Retriever { .. })));
/// // A conflict between keys is an error that names both.
/// let error = Tables::parse("example.toml", text, &["engine.corpus=c.jsonl".to_string()]).unwrap_err();
/// assert!(error.to_string().contains("`corpus` does not go with kind = \"retriever\""));
/// # Ok::<(), zerosearch::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tables {
    /// The policy's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Training questions, JSONL or Parquet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<PathBuf>,
    /// The run's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// The score of a rollout.
    #[serde(skip_serializing_if = "is_default")]
    pub reward: RewardConfig,
    /// The device that models are computed on.
    #[serde(skip_serializing_if = "is_default")]
    pub device: DeviceName,
    /// Devices that take part in the updates beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub further_devices: Vec<DeviceName>,
    /// The engine that answers the searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineConfig>,
    /// Where the policy is decoded.
    #[serde(skip_serializing_if = "is_default")]
    pub policy: PolicyConfig,
    /// The same under its older name, with `kind` for `backend`; after reading it stands under `policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorConfig>,
    /// How to train; its `rollout` bounds the episodes of every program.
    pub train: TrainConfig,
    /// The questions and the engine of validations, and of `evaluate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
    /// The judge that labels interactions.
    #[serde(skip_serializing_if = "is_default")]
    pub judge: JudgeConfig,
    /// The address and the bounds of `serve`.
    #[serde(skip_serializing_if = "is_default")]
    pub server: ServerConfig,
    /// How `train_simulator` collects interactions.
    #[serde(skip_serializing_if = "is_default")]
    pub collect: CollectConfig,
    /// How `train_simulator` fine-tunes the simulator.
    #[serde(skip_serializing_if = "is_default")]
    pub tune: TuneConfig,
    /// How `cold_start` fine-tunes the policy.
    #[serde(skip_serializing_if = "is_default")]
    pub cold_start: ColdStartConfig,
    /// Figures for a dry run of `train`.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: DryRunConfig,
    /// Measured speeds and prices for it.
    #[serde(skip_serializing_if = "is_default")]
    pub rates: Rates,
}

impl Tables {
    /// Reads a file, or begins with nothing, and applies `key.path=value` assignments on top of it. A value is written as in TOML,
    /// and a text as it stands: where a key wants a text, `2026-11-28`, `1.5` and `true` are one.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub fn read(file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        match file {
            Some(file) => Self::parse(file, &read_text(file)?, assignments),
            None => Self::parse("--set", "", assignments),
        }
    }

    /// As [`read`](Self::read), from text; `path` is for messages only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: impl AsRef<Path>, text: &str, assignments: &[String]) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (tables, keys): (Self, _) = parse(path, text, assignments)?;
        let tables = tables.resolved().map_err(|message| ConfigError::Parse { path: path.into(), message })?;
        Ok(tables.corrected(&keys))
    }

    /// The tables of a training run.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn into_run(self) -> Result<RunConfig, String> {
        let resolved = self.resolved()?;
        let Self { model, questions, out, reward, device, further_devices, engine, policy, train, validation, .. } =
            resolved;
        let with = "a training run";
        Ok(RunConfig {
            model: required(model, "model", with, "\"models/base\"")?,
            questions: required(questions, "questions", with, "\"questions.jsonl\"")?,
            out: required(out, "out", with, "\"runs/first\"")?,
            reward,
            engine: required(engine, "engine", with, "{ kind = \"bm25\", corpus = \"corpus.jsonl\" }")?,
            device,
            further_devices,
            generator: policy.0,
            train,
            validation,
        })
    }

    /// The engine of an evaluation, which is a real one: that of the validation, else that of the training. `None` where there is
    /// none, or `kind = "none"`.
    ///
    /// # Errors
    /// When it is a simulator, which needs to know the answers.
    pub fn engine_of_evaluation(&self) -> Result<Option<&EngineConfig>, ConfigError> {
        let (table, engine) = match &self.validation {
            Some(validation) => ("validation.engine", Some(&validation.engine)),
            None => ("engine", self.engine.as_ref()),
        };
        match engine {
            Some(engine) if engine.is_simulated() => Err(ConfigError::Simulated { table }),
            engine => Ok(engine.filter(|engine| **engine != EngineConfig::None)),
        }
    }

    /// The simulator, and the real engine that it is compared with: `[engine]` and `validation.engine`.
    ///
    /// # Errors
    /// When one is missing, or they are not a simulator and a real engine.
    pub fn engines_of_comparison(&self) -> Result<(&EngineConfig, &EngineConfig), ConfigError> {
        let simulator = self.engine.as_ref().filter(|engine| engine.is_simulated()).ok_or(ConfigError::NoSimulator)?;
        let validation = self.validation.as_ref().map(|_| self.engine_of_evaluation()).transpose()?.flatten();
        Ok((simulator, validation.ok_or(ConfigError::NoneToCompare)?))
    }

    /// With the corrections for a server's log-probabilities, where the file's keys do not say otherwise.
    fn corrected(mut self, keys: &toml::Table) -> Self {
        let train = keys.get("train").and_then(toml::Value::as_table);
        let is_said = |key: &str| train.is_some_and(|train| train.contains_key(key));
        let is_drawn = self.train.rollout.sampling.temperature > 0.0;
        if self.policy.0.is_some() && is_drawn && !is_said("old_logprobs") && !is_said("importance_sampling") {
            self.train.old_logprobs = OldLogprobs::Recomputed;
            self.train.importance_sampling = Some(Default::default());
        }
        self
    }

    /// With what one key says about another.
    fn resolved(mut self) -> Result<Self, String> {
        if let Some(generator) = self.generator.take() {
            if self.policy.0.is_some() {
                return Err(
                    "`generator` stands beside `policy`, which is its newer name: expected one of the two".into()
                );
            }
            self.policy.0 = Some(generator);
        }
        let format = EpisodeFormat::from(self.train.rollout.format);
        let validation = self.validation.as_mut().map(|validation| &mut validation.engine);
        self.engine.iter_mut().chain(validation).for_each(|engine| with_system_of(engine, &format));
        if self.engine == Some(EngineConfig::None) {
            // Without an engine there is nothing to come back for.
            self.train.rollout.max_turns = 1;
        }
        Ok(self)
    }
}

/// A served chat simulator begins with the system message of the format, unless the file says another.
fn with_system_of(engine: &mut EngineConfig, format: &EpisodeFormat) {
    if let EngineConfig::Simulated(simulator) = engine
        && let Some(server) = &mut simulator.server
        && server.api == Api::Chat
        && server.system.is_none()
    {
        server.system.clone_from(&format.simulator_system);
    }
}

impl TryFrom<Tables> for RunConfig {
    type Error = String;

    fn try_from(tables: Tables) -> Result<Self, String> {
        tables.into_run()
    }
}

impl From<RunConfig> for Tables {
    fn from(run: RunConfig) -> Self {
        let RunConfig { model, questions, out, reward, engine, device, further_devices, generator, train, validation } =
            run;
        let (model, questions, out, engine) = (Some(model), Some(questions), Some(out), Some(engine));
        let policy = PolicyConfig(generator);
        let devices = Self { device, further_devices, ..Self::default() };
        Self { model, questions, out, reward, engine, policy, train, validation, ..devices }
    }
}
