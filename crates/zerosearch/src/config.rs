//! TOML files: what to train, on what, against which engine, and where the models are decoded.
//!
//! [`Tables`] is what may stand in a file, [`RunConfig`] the part of it that a training run needs.

mod assignment;
mod engine;
mod engine_keys;
mod generator;
mod judge;
mod keys;
mod parse;
mod policy;
mod print;
mod served_model;
mod simulator;
mod simulator_training;
mod tables;
mod wrap;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, read_text};
use zerosearch_reward::RewardConfig;
use zerosearch_train::TrainConfig;

pub use self::engine::{EngineConfig, EngineError};
pub use self::generator::GeneratorConfig;
pub use self::judge::JudgeConfig;
pub use self::policy::PolicyConfig;
pub use self::served_model::{Api, ServedModel, ServerKind};
pub use self::simulator::{SimulatorConfig, SimulatorMode};
pub use self::tables::Tables;
pub use self::wrap::{BudgetConfig, WrapConfig};
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
    /// The engine that answers the searches.
    pub engine: EngineConfig,
    /// The device that policy and simulator are decoded on and the policy is trained on: `auto`, `cpu`, `cuda:N` or `webgpu`.
    pub device: DeviceName,
    /// Devices that take part in the updates beside it, each with a copy of the weights: a list of such names.
    pub further_devices: Vec<DeviceName>,
    /// Where the policy is decoded, the table `policy` of the file; in this process if it is left out.
    pub generator: Option<GeneratorConfig>,
    /// How to train.
    pub train: TrainConfig,
    /// Validation, every `train.validate_every` steps.
    pub validation: Option<ValidationConfig>,
}

/// A set of questions that nothing is learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// The questions, JSONL or Parquet.
    pub questions: PathBuf,
    /// The engine that answers their searches.
    pub engine: EngineConfig,
    /// The share of noisy documents, where the engine is a simulator.
    #[serde(default)]
    pub noise: Option<f64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Invalid TOML, an unknown key, or a value of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The problem, with line and column.
        message: String,
    },
    /// A comparison of a simulator without one.
    #[error(
        "`engine` is no simulator: expected the one that is compared, for example [engine] kind = \"simulator\", model = \"DIR\""
    )]
    NoSimulator,
    /// A comparison of a simulator with nothing.
    #[error(
        "there is no real engine to compare the simulator with: expected [validation] with `questions` and, for example, \
         engine = {{ kind = \"bm25\", corpus = \"corpus.jsonl\" }}"
    )]
    NoneToCompare,
    /// An evaluation that names a simulator.
    #[error(
        "`{table}` is a simulator, which needs to be told the answers: an evaluation takes a real engine, for example \
         [validation] engine = {{ kind = \"bm25\", corpus = \"corpus.jsonl\" }}"
    )]
    Simulated {
        /// Where it stands.
        table: &'static str,
    },
    /// No real engine to collect interactions with.
    #[error(
        "`engine` is {found}: interactions are collected with a real engine, for example [engine] kind = \"bm25\", \
         corpus = \"corpus.jsonl\"; or give those that you have with --data FILE"
    )]
    NoRealEngine {
        /// The engine in its place.
        found: &'static str,
    },
    /// A configuration that TOML cannot hold.
    #[error("the configuration cannot be printed: {0}")]
    Print(String),
    /// A `key=value` without `=`, or with a key that leads nowhere.
    #[error("--set {assignment}: {message}; expected key.path=value, such as train.steps=50")]
    Assignment {
        /// The given value.
        assignment: String,
        /// The problem.
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
    use zerosearch_algorithms::{Grpo, Kl};
    use zerosearch_search::{Dialect, WebProvider};
    use zerosearch_train::OldLogprobs;

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
        assert_eq!(config.engine, EngineConfig::Bm25 { corpus: "other/c.jsonl".into(), index: None });
        let config = parse(TEXT, &["train.algorithm.name=grpo", "train.algorithm.kl.coefficient=0"]).unwrap();
        assert_eq!(config.train.algorithm, Grpo { kl: Kl::NONE, ..Grpo::default() }.into());
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
            assert_eq!(config.engine, EngineConfig::Retriever { urls: vec![text.into()], dialect: Dialect::SearchR1 });
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
        let engine = EngineConfig::Bm25 { corpus: "no/such/corpus.jsonl".into(), index: None };
        assert!(engine.read().err().unwrap().to_string().contains("no/such/corpus.jsonl"));
        let engine = EngineConfig::Simulator { model: "no/such/model".into(), simulation: Default::default() };
        assert!(engine.read().err().unwrap().to_string().contains("no/such/model"));
    }

    #[test]
    fn an_index_in_a_folder_is_built_once_and_answers_like_the_one_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let (corpus, index) = (folder.path().join("corpus.jsonl"), folder.path().join("index"));
        std::fs::write(&corpus, "{\"contents\": \"Chad borders Niger.\"}\n{\"contents\": \"Mali\"}\n").unwrap();
        let text =
            format!("model = \"m\"\nquestions = \"q\"\nout = \"o\"\n[engine]\nkind = \"bm25\"\ncorpus = {corpus:?}\n");
        let search = |assignments: &[String]| {
            let config = RunConfig::parse("run.toml", &text, assignments).unwrap();
            let query = zerosearch_search::Query { text: "niger", top_k: 3, context: None };
            config.engine.read().unwrap().search(&query).unwrap()
        };
        let expected = search(&[]);
        assert_eq!(expected.len(), 1);
        for _ in 0..2 {
            assert_eq!(search(&[format!("engine.index={index:?}")]), expected);
        }
        assert!(index.join("index.json").exists());
    }

    #[test]
    fn a_server_that_decodes_the_policy_has_a_folder_and_seeds_of_its_own() {
        let text = format!("{TEXT}[generator]\nkind = \"sglang\"\nurl = \"http://localhost:30000\"\n");
        let url = || "http://localhost:30000".to_string();
        let expected = GeneratorConfig::Sglang { url: url(), urls: Vec::new(), folder: None, seeds: true };
        assert_eq!(parse(&text, &[]).unwrap().generator, Some(expected));
        let several = ["generator.kind=vllm", "generator.urls=[\"a:1\", \"b:2\"]", "generator.seeds=false"];
        let several = parse(&text, &several).unwrap().generator.unwrap();
        let urls = ["a:1", "b:2"].map(String::from).to_vec();
        assert_eq!(several, GeneratorConfig::Vllm { url: url(), urls, folder: None, seeds: false });
        assert_eq!(several.urls(), ["http://localhost:30000", "a:1", "b:2"]);
        assert!(parse(&text, &["generator.kind=other"]).unwrap_err().to_string().contains("vllm"));
        assert_eq!(parse(TEXT, &[]).unwrap().generator, None);
    }

    #[test]
    fn a_generator_that_cannot_be_trained_through_is_refused_before_the_run() {
        let refused = |keys: &str, assignments: &[&str]| {
            let config = parse(&format!("{TEXT}[generator]\n{keys}\n"), assignments).unwrap();
            config.generator.unwrap().check(&config.train).err().map(|error| error.to_string())
        };
        let vllm = "kind = \"vllm\"\nurls = [\"localhost:8000\"]";
        let message = refused(vllm, &[]).unwrap();
        assert!(message.contains("train.lora") && message.contains("serve the policy with SGLang"), "{message}");
        assert_eq!(refused(vllm, &["train.lora.rank=4"]), None);
        assert!(refused("kind = \"sglang\"", &[]).unwrap().contains("`urls` is empty"));
        assert_eq!(refused("kind = \"sglang\"\nurl = \"localhost:30000\"", &[]), None);
    }

    #[test]
    fn the_log_probabilities_of_a_server_are_corrected_unless_the_file_says_otherwise() {
        let text = format!("{TEXT}[generator]\nkind = \"sglang\"\nurl = \"localhost:30000\"\n");
        let on = (OldLogprobs::Recomputed, Some(Default::default()));
        let off = (OldLogprobs::Generator, None);
        for (text, assignments, expected) in [
            (text.as_str(), &[][..], on),
            (&text, &["train.steps=7"], on),
            (&text, &["train.old_logprobs=generator"], off),
            (&text, &["train.old_logprobs=recomputed"], (OldLogprobs::Recomputed, None)),
            // A greedy token is not drawn.
            (&text, &["train.rollout.sampling.temperature=0"], off),
            (TEXT, &[], off),
        ] {
            let train = parse(text, assignments).unwrap().train;
            assert_eq!((train.old_logprobs, train.importance_sampling), expected, "{assignments:?}");
            assert!(train.validate().is_ok());
        }
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
        let retriever = |dialect| EngineConfig::Retriever { urls: vec!["http://h".into()], dialect };
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
