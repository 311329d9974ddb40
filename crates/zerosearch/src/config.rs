//! TOML files: what to train, on what, against which engine, and where the models are decoded.
//!
//! [`Tables`] is what may stand in a file, [`RunConfig`] the part of it that a training run needs.

mod assignment;
mod engine_keys;
mod judge;
mod keys;
mod parse;
mod policy;
mod print;
mod server;
mod simulator;
mod tables;
mod wrap;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, read_text};
use zerosearch_generate::{GenerateError, Generator, WeightVersion};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{LanguageModel, LocalCompleter};
use zerosearch_remote::SglangGenerator;
use zerosearch_reward::RewardConfig;
use zerosearch_search::{
    Bm25Index, Dialect, Document, Query, RetrieverServer, SearchEngine, SearchError, WebProvider, WebSearch,
};
use zerosearch_simulator::{SimulatedEngine, SimulationConfig, SimulatorError, SimulatorPrompt};
use zerosearch_train::TrainConfig;

use self::engine_keys::EngineKeys;
pub use self::judge::JudgeConfig;
pub use self::policy::PolicyConfig;
pub use self::server::{Api, ServerConfig, ServerKind};
pub use self::simulator::{SimulatorConfig, SimulatorMode};
pub use self::tables::Tables;
pub use self::wrap::WrapConfig;
use crate::ServedPolicy;
use crate::device::DeviceName;

/// A TOML file that describes the RL stage. Unknown keys are refused; everything but `model`, `questions`,
/// `out` and `engine` has a default.
///
/// ```
/// let config: zerosearch::config::RunConfig = zerosearch::config::RunConfig::parse(
///     "example.toml",
///     r#"
///     model = "models/base"
///     questions = "questions.jsonl"
///     out = "runs/first"
///     [engine]
///     kind = "simulator"
///     model = "models/simulator"
///     [train]
///     steps = 20
///     "#,
///     &["train.learning_rate=0.0001".to_string()],
/// )?;
/// assert_eq!((config.train.steps, config.train.learning_rate), (20, 1e-4));
/// # Ok::<(), zerosearch::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Tables", into = "Tables")]
pub struct RunConfig {
    /// The policy's folder.
    pub model: PathBuf,
    /// Training questions, JSONL or Parquet.
    pub questions: PathBuf,
    /// The run's folder.
    pub out: PathBuf,
    /// The score of a rollout: `"f1"`, `"em"`, `"contains"`, `"format"`, or a list of `{ name, weight }`.
    pub reward: RewardConfig,
    /// What answers the searches.
    pub engine: EngineConfig,
    /// The device that policy and simulator are decoded on and the policy is trained on: `auto`, `cpu`, `cuda:N` or `webgpu`.
    pub device: DeviceName,
    /// Where the policy is decoded, the table `policy` of the file; in this process if it is left out.
    pub generator: Option<GeneratorConfig>,
    /// How to train.
    pub train: TrainConfig,
    /// What to validate on, every `train.validate_every` steps.
    pub validation: Option<ValidationConfig>,
}

/// A set of questions that nothing is learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// The questions, JSONL or Parquet.
    pub questions: PathBuf,
    /// What answers their searches.
    pub engine: EngineConfig,
    /// The share of noisy documents, where the engine is a simulator.
    #[serde(default)]
    pub noise: Option<f64>,
}

/// An engine to train against or to evaluate with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "EngineKeys", into = "EngineKeys")]
pub enum EngineConfig {
    /// A fine-tuned model of this process that plays the engine: the method.
    Simulator {
        /// Its folder.
        model: PathBuf,
        /// How it samples.
        simulation: SimulationConfig,
    },
    /// A simulator with a mode, a template or a server of its own.
    Simulated(Box<SimulatorConfig>),
    /// BM25 over a corpus: the Search-R1 baseline.
    Bm25 {
        /// JSONL or Parquet rows `id?, title?, contents`.
        corpus: PathBuf,
    },
    /// A retrieval server: the Search-R1 baseline.
    Retriever {
        /// Its address.
        url: String,
        /// The form of its requests, `search_r1` or `zerosearch`.
        dialect: Dialect,
    },
    /// Google through a service, whose key is read from `SERPAPI_API_KEY`, `SERPER_API_KEY`, or `GOOGLE_API_KEY` and `GOOGLE_CSE_ID`.
    Web {
        /// The service, `serpapi`, `serper` or `google_cse`.
        provider: WebProvider,
    },
    /// No engine: reinforcement learning without search (R1). Episodes have one turn, and a search in it is not executed.
    None,
    /// An engine with something around it, such as a cache.
    Wrapped {
        /// The engine.
        engine: Box<EngineConfig>,
        /// What stands around it.
        wrap: WrapConfig,
    },
}

/// A server that decodes the policy during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GeneratorConfig {
    /// SGLang.
    Sglang {
        /// Its address.
        url: String,
        /// The folder through which it is given new weights, under the same path on its machine; `served` in the run's folder
        /// if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
        /// Whether it is sent a seed with every turn, so that a run repeats. It must then have been started with
        /// `--enable-deterministic-inference`.
        #[serde(default = "yes")]
        seeds: bool,
    },
}

fn yes() -> bool {
    true
}

impl GeneratorConfig {
    /// Addresses the server. Nothing is sent yet.
    pub fn generator(&self, model: &LanguageModel, format: &EpisodeFormat, out: impl AsRef<Path>) -> ServedPolicy {
        let Self::Sglang { url, folder, seeds } = self;
        let server = SglangGenerator::new(url, model.config.max_positions).with_stop_strings(format.stop_tags());
        let server = if *seeds { server.with_seeds() } else { server };
        let folder = folder.clone().unwrap_or_else(|| out.as_ref().join("served"));
        ServedPolicy::new(server, model, folder)
    }

    /// A generator for a policy that does not change: the server is made to load the model's own folder, under the path that it has
    /// here.
    ///
    /// # Errors
    /// When the server cannot load it.
    pub fn generator_of(
        &self,
        model: &LanguageModel,
        folder: &Path,
        format: &EpisodeFormat,
    ) -> Result<Box<dyn Generator>, GenerateError> {
        let Self::Sglang { url, seeds, .. } = self;
        let server = SglangGenerator::new(url, model.config.max_positions).with_stop_strings(format.stop_tags());
        let mut server = if *seeds { server.with_seeds() } else { server };
        let absolute = std::path::absolute(folder).ok();
        let path = absolute.as_deref().and_then(Path::to_str).ok_or_else(|| GenerateError::Remote {
            endpoint: url.clone(),
            message: format!("{} has no absolute path in UTF-8, which the server could be told", folder.display()),
        })?;
        server.refit(path, WeightVersion::default())?;
        Ok(Box::new(server))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl EngineConfig {
    /// Reads the model or the corpus, or addresses the server.
    ///
    /// # Errors
    /// When a file is missing or broken, or there is no key for the web service.
    pub fn read(&self) -> Result<Box<dyn SearchEngine>, EngineError> {
        self.read_on(&Device::flex())
    }

    /// As [`read`](Self::read); a simulator is decoded on a device.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_on(&self, device: &Device) -> Result<Box<dyn SearchEngine>, EngineError> {
        Ok(match self {
            Self::Simulator { model: folder, simulation } => {
                let model = LanguageModel::read(folder).map_err(SimulatorError::from)?;
                let completer = LocalCompleter::on(&model, device).map_err(SimulatorError::from)?;
                Box::new(SimulatedEngine::new(completer, SimulatorPrompt::for_model(folder)?, *simulation))
            }
            Self::Bm25 { corpus } => Box::new(Bm25Index::read(corpus)?),
            Self::Retriever { url, dialect } => Box::new(RetrieverServer::new(url, *dialect)),
            Self::Web { provider } => Box::new(WebSearch::from_env(*provider)?),
            Self::Simulated(simulator) => simulator.read_on(device)?,
            Self::None => Box::new(Absent),
            Self::Wrapped { engine, wrap } => wrap.around(|| engine.read_on(device))?,
        })
    }

    /// Whether a model plays the engine, which then must be told question and answers.
    pub fn is_simulated(&self) -> bool {
        match self {
            Self::Simulator { .. } | Self::Simulated(_) => true,
            Self::Wrapped { engine, .. } => engine.is_simulated(),
            Self::Bm25 { .. } | Self::Retriever { .. } | Self::Web { .. } | Self::None => false,
        }
    }
}

/// Stands where nothing is searched.
struct Absent;

impl SearchEngine for Absent {
    fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Err(SearchError::Index("there is no engine (kind = \"none\")".into()))
    }
}

/// An engine that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The simulator's model or prompt.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The corpus, or the key of a web service.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A server that does not answer as it should.
    #[error(transparent)]
    Server(#[from] GenerateError),
    /// A server's key is not where `key_env` says.
    #[error("the environment variable {0} is not set: put the server's key there, or leave `key_env` out")]
    Key(String),
    /// A server that offers no model, or several.
    #[error("{url} does not offer exactly one model, but [{offered}]: say which with `served_model`")]
    ModelName {
        /// The address.
        url: String,
        /// The models that it lists.
        offered: String,
    },
    /// More addresses than are taken.
    #[error("`urls` has {found} addresses, expected one for {what}")]
    Addresses {
        /// The role of the server.
        what: String,
        /// How many there are.
        found: usize,
    },
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no TOML, or has a key that nobody knows, or a value of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// An evaluation that names a simulator.
    #[error(
        "`{table}` is a simulator, which needs to be told the answers: an evaluation takes a real engine, for example \
         [validation] engine = {{ kind = \"bm25\", corpus = \"corpus.jsonl\" }}"
    )]
    Simulated {
        /// Where it stands.
        table: &'static str,
    },
    /// A configuration that TOML cannot hold.
    #[error("the configuration cannot be printed: {0}")]
    Print(String),
    /// A `key=value` without `=`, or with a key that leads nowhere.
    #[error("--set {assignment}: {message}; expected key.path=value, such as train.steps=50")]
    Assignment {
        /// What was given.
        assignment: String,
        /// What is wrong.
        message: String,
    },
}

impl RunConfig {
    /// Reads a file and applies `key.path=value` assignments on top of it. A value is written as in TOML, and a text as it stands:
    /// where a key wants a text, `2026-11-28`, `1.5` and `true` are one.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub fn read(path: impl AsRef<Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        let text = read_text(&path)?;
        Self::parse(path, &text, assignments)
    }

    /// As [`read`](Self::read), from text; `path` is for messages only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: impl AsRef<Path>, text: &str, assignments: &[String]) -> Result<Self, ConfigError> {
        let run = Tables::parse(&path, text, assignments)?.into_run();
        run.map_err(|message| ConfigError::Parse { path: path.as_ref().into(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "model = \"m\"\nquestions = \"q\"\nout = \"o\"\nengine = { kind = \"bm25\", corpus = \"c\" }\n";

    fn parse(text: &str, assignments: &[&str]) -> Result<RunConfig, ConfigError> {
        let assignments: Vec<String> = assignments.iter().map(|a| a.to_string()).collect();
        RunConfig::parse("run.toml", text, &assignments)
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let message = parse(&format!("{TEXT}[train]\nlearning_rates = 1\n"), &[]).unwrap_err().to_string();
        assert!(
            message.contains("run.toml") && message.contains("learning_rates") && message.contains("line 6"),
            "{message}"
        );
    }

    #[test]
    fn assignments_win_over_the_file() {
        let config =
            parse(TEXT, &["train.steps=7", "engine.corpus=other/c.jsonl", "train.algorithm.name=ppo"]).unwrap();
        assert_eq!(config.train.steps, 7);
        assert_eq!(config.engine, EngineConfig::Bm25 { corpus: "other/c.jsonl".into() });
        assert!(parse(TEXT, &["train.step=7"]).unwrap_err().to_string().contains("step"));
        assert!(parse(TEXT, &["steps"]).unwrap_err().to_string().contains("has no ="));
    }

    /// A shell has taken the quotes off.
    #[test]
    fn a_text_may_look_like_any_other_value() {
        for text in [
            "2026-11-28",
            "2026-11-28T10:00:00Z",
            "10:30:00",
            "1.5",
            "7",
            "0x1f",
            "true",
            "inf",
            "[1]",
            "1#2",
            "None",
            "a=b",
        ] {
            let config = parse(TEXT, &[&format!("out={text}")]).unwrap();
            assert_eq!(config.out, PathBuf::from(text));
            // In a table that is read twice, and beside values that are what they look like.
            let url = format!("engine.url={text}");
            let config =
                parse(TEXT, &["train.steps=7", "engine={kind=\"retriever\",url=\"\"}", &url, "train.gradient_norm=2"])
                    .unwrap();
            assert_eq!(config.engine, EngineConfig::Retriever { url: text.into(), dialect: Dialect::SearchR1 });
            assert_eq!((config.train.steps, config.train.gradient_norm), (7, 2.0));
        }
        let config = parse(TEXT, &["out = runs/x ", "model=\"7\"", "questions='a b'", "train.seed=3"]).unwrap();
        assert_eq!((config.out, config.model), ("runs/x".into(), "7".into()));
        assert_eq!((config.questions, config.train.seed), ("a b".into(), 3));
    }

    #[test]
    fn what_a_key_does_not_take_is_refused_by_its_name() {
        for (assignment, expected) in [
            ("train.steps=2026-11-28", "steps"),
            ("train.steps=1.5", "steps"),
            ("train.gradient_checkpointing=1", "gradient_checkpointing"),
            ("train.gradient_checkpointing=True", "gradient_checkpointing"),
            ("train.lora=None", "lora"),
            ("out=", "has no value"),
            ("=5", "has no key"),
            ("train.=5", "has no key"),
            ("out.x=5", "goes through a key that is no table"),
            ("train.learning_rates=1", "learning_rates"),
            ("train.steps=5\nseed=7", "steps"),
        ] {
            let message = parse(TEXT, &[assignment]).unwrap_err().to_string();
            assert!(message.contains(expected), "{assignment}: {message}");
        }
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        let engine = EngineConfig::Bm25 { corpus: "no/such/corpus.jsonl".into() };
        assert!(engine.read().err().unwrap().to_string().contains("no/such/corpus.jsonl"));
        let engine = EngineConfig::Simulator { model: "no/such/model".into(), simulation: Default::default() };
        assert!(engine.read().err().unwrap().to_string().contains("no/such/model"));
    }

    #[test]
    fn a_server_that_decodes_the_policy_has_a_folder_and_seeds_of_its_own() {
        let text = format!("{TEXT}[generator]\nkind = \"sglang\"\nurl = \"http://localhost:30000\"\n");
        let expected = GeneratorConfig::Sglang { url: "http://localhost:30000".into(), folder: None, seeds: true };
        assert_eq!(parse(&text, &[]).unwrap().generator, Some(expected));
        assert!(parse(&text, &["generator.kind=vllm"]).unwrap_err().to_string().contains("vllm"));
        assert_eq!(parse(TEXT, &[]).unwrap().generator, None);
    }

    #[test]
    fn everything_else_has_the_default() {
        let config = parse(TEXT, &[]).unwrap();
        assert_eq!(config.train, TrainConfig::default());
        assert_eq!(config.reward, RewardConfig::default());
        // Keys that are as they always were are not written: other programs read the file.
        let written = toml::to_string(&config).unwrap();
        assert!(!written.contains("\nreward =") && !written.contains("dialect"), "{written}");
    }

    #[test]
    fn a_reward_is_named_or_weighted() {
        let reward = |text: &str| parse(&format!("reward = {text}\n{TEXT}"), &[]).unwrap().reward.to_string();
        assert_eq!(reward("\"em\""), "em");
        assert_eq!(reward("[{ name = \"f1\" }, { name = \"format\", weight = 0.2 }]"), "f1+0.2*format");
        assert_eq!(parse(TEXT, &["reward=contains"]).unwrap().reward.to_string(), "contains");
        let message = parse(&format!("reward = \"bleu\"\n{TEXT}"), &[]).unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("\"format\""), "{message}");
    }

    #[test]
    fn every_engine_is_told_by_its_keys() {
        let engine = |keys: &str| {
            let text = format!("model = \"m\"\nquestions = \"q\"\nout = \"o\"\n[engine]\n{keys}");
            parse(&text, &[]).map(|config| config.engine)
        };
        let retriever = |dialect| EngineConfig::Retriever { url: "http://h".into(), dialect };
        let plain = "kind = \"retriever\"\nurl = \"http://h\"\n";
        assert_eq!(engine(plain).unwrap(), retriever(Dialect::SearchR1));
        assert_eq!(engine(&format!("{plain}dialect = \"search_r1\"")).unwrap(), retriever(Dialect::SearchR1));
        assert_eq!(engine(&format!("{plain}dialect = \"zerosearch\"")).unwrap(), retriever(Dialect::ZeroSearch));
        let web = |provider| EngineConfig::Web { provider };
        assert_eq!(engine("kind = \"web\"\nprovider = \"serpapi\"").unwrap(), web(WebProvider::SerpApi));
        assert_eq!(engine("kind = \"web\"\nprovider = \"serper\"").unwrap(), web(WebProvider::Serper));
        assert!(engine("kind = \"web\"\nprovider = \"other\"").unwrap_err().to_string().contains("serper"));
    }
}
