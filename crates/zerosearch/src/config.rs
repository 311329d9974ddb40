//! A training run as a TOML file: what to train, on what, against which engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, read_text};
use zerosearch_generate::{Ledger, Role};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{LanguageModel, LmError, LocalCompleter};
use zerosearch_remote::{RetryPolicy, SglangGenerator, VllmGenerator};
use zerosearch_reward::RewardConfig;
use zerosearch_search::{
    Bm25Folder, Bm25Index, Dialect, RetrieverServer, SearchEngine, SearchError, WebProvider, WebSearch,
};
use zerosearch_simulator::{SimulatedEngine, SimulationConfig, SimulatorError, SimulatorPrompt};
use zerosearch_train::{OldLogprobs, TrainConfig};

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
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The policy's folder.
    pub model: PathBuf,
    /// Training questions, JSONL or Parquet.
    pub questions: PathBuf,
    /// The run's folder.
    pub out: PathBuf,
    /// The score of a rollout: `"f1"`, `"em"`, `"contains"`, `"format"`, or a list of `{ name, weight }`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reward: RewardConfig,
    /// The engine that answers the searches.
    pub engine: EngineConfig,
    /// The device that policy and simulator are decoded on and the policy is trained on: `auto`, `cpu`, `cuda:N` or `webgpu`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: DeviceName,
    /// Where the policy is decoded; in this process if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorConfig>,
    /// How to train.
    #[serde(default)]
    pub train: TrainConfig,
    /// Validation, every `train.validate_every` steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// An engine to train against or to evaluate with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineConfig {
    /// A fine-tuned model that plays the engine: the method.
    Simulator {
        /// Its folder.
        model: PathBuf,
        /// How it samples.
        #[serde(default)]
        simulation: SimulationConfig,
    },
    /// BM25 over a corpus: the Search-R1 baseline.
    Bm25 {
        /// JSONL or Parquet rows `id?, title?, contents`.
        corpus: PathBuf,
        /// A folder for the index, which is built once and then opened in milliseconds; in memory if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<PathBuf>,
    },
    /// A retrieval server: the Search-R1 baseline.
    Retriever {
        /// Its address.
        url: String,
        /// The form of its requests, `search_r1` or `zerosearch`.
        #[serde(default, skip_serializing_if = "is_default")]
        dialect: Dialect,
    },
    /// Google through a service, whose key is read from `SERPAPI_API_KEY` or `SERPER_API_KEY`.
    Web {
        /// The service, `serpapi` or `serper`.
        provider: WebProvider,
    },
}

/// Servers that decode the policy during training.
///
/// Their kernels are not the trainer's, and neither are the log-probabilities that they report. So where a file with a `generator` has
/// neither `train.old_logprobs` nor `train.importance_sampling`, they are `"recomputed"` and the default truncated importance
/// sampling; `old_logprobs = "generator"` takes the server's for exact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GeneratorConfig {
    /// SGLang. It is given the whole policy after every update.
    Sglang {
        /// Its address.
        #[serde(default, skip_serializing_if = "is_default")]
        url: String,
        /// The addresses of several, beside or in the place of `url`.
        #[serde(default, skip_serializing_if = "is_default")]
        urls: Vec<String>,
        /// The folder through which it is given new weights, under the same path on its machine; `served` in the run's folder
        /// if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
        /// Whether it is sent a seed with every turn, so that a run repeats. It must then have been started with
        /// `--enable-deterministic-inference`.
        #[serde(default = "yes")]
        seeds: bool,
    },
    /// vLLM. It is given the policy's adapters after every update, so `train.lora` must be there.
    Vllm {
        /// Its address.
        #[serde(default, skip_serializing_if = "is_default")]
        url: String,
        /// The addresses of several, beside or in the place of `url`.
        #[serde(default, skip_serializing_if = "is_default")]
        urls: Vec<String>,
        /// The folder through which it is given new adapters, under the same path on its machine; `served` in the run's folder
        /// if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
        /// Whether it is sent a seed with every turn. A run repeats to the bit where it was started with `VLLM_BATCH_INVARIANT=1`.
        #[serde(default = "yes")]
        seeds: bool,
    },
}

fn yes() -> bool {
    true
}

/// A run waits for its servers for some minutes: so long one takes that is started again.
const PATIENCE: RetryPolicy = RetryPolicy {
    timeout: Duration::from_secs(300),
    attempts: 40,
    first_pause: Duration::from_millis(250),
    longest_pause: Duration::from_secs(8),
};

impl GeneratorConfig {
    /// The addresses of the servers.
    pub fn urls(&self) -> Vec<&str> {
        let (Self::Sglang { url, urls, .. } | Self::Vllm { url, urls, .. }) = self;
        std::iter::once(url).filter(|url| !url.is_empty()).chain(urls).map(String::as_str).collect()
    }

    /// Refuses what cannot work with this training: no address, or whole weights on vLLM.
    ///
    /// # Errors
    /// Names the key and what is expected.
    pub fn check(&self, train: &TrainConfig) -> Result<(), LmError> {
        if self.urls().is_empty() {
            return Err(LmError::Config {
                path: "generator".into(),
                key: "urls".into(),
                value: "empty".into(),
                expected: "the address of at least one server, such as [\"http://localhost:30000\"]".into(),
            });
        }
        match (self, &train.lora) {
            (Self::Vllm { .. }, None) => Err(ServedPolicy::needs_adapters()),
            _ => Ok(()),
        }
    }

    /// Addresses the servers. Nothing is sent yet.
    pub fn generator(&self, model: &LanguageModel, format: &EpisodeFormat, out: impl AsRef<Path>) -> ServedPolicy {
        let (urls, context, stop) = (self.urls(), model.config.max_positions, format.stop_tags());
        let (Self::Sglang { folder, seeds, .. } | Self::Vllm { folder, seeds, .. }) = self;
        let folder = folder.clone().unwrap_or_else(|| out.as_ref().join("served"));
        match self {
            Self::Sglang { .. } => {
                let server = SglangGenerator::at(&urls, context).with_stop_strings(stop).with_retry(PATIENCE);
                ServedPolicy::new(if *seeds { server.with_seeds() } else { server }, model, folder)
            }
            Self::Vllm { .. } => {
                let server = VllmGenerator::at(&urls, context).with_stop_strings(stop).with_retry(PATIENCE);
                ServedPolicy::vllm(if *seeds { server.with_seeds() } else { server }, model, folder)
            }
        }
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
        self.read_with(device, &Ledger::new())
    }

    /// As [`read_on`](Self::read_on); a simulator reports what it uses to a ledger.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(&self, device: &Device, ledger: &Ledger) -> Result<Box<dyn SearchEngine>, EngineError> {
        Ok(match self {
            Self::Simulator { model: folder, simulation } => {
                let model = LanguageModel::read(folder).map_err(SimulatorError::from)?;
                let completer = LocalCompleter::on(&model, device).map_err(SimulatorError::from)?;
                let completer = completer.with_account(ledger.account(Role::Simulator));
                Box::new(SimulatedEngine::new(completer, SimulatorPrompt::for_model(folder)?, *simulation))
            }
            Self::Bm25 { corpus, index: None } => Box::new(Bm25Index::read(corpus)?),
            Self::Bm25 { corpus, index: Some(folder) } => Box::new(Bm25Folder::open_or_build(corpus, folder)?),
            Self::Retriever { url, dialect } => Box::new(RetrieverServer::new(url, *dialect)),
            Self::Web { provider } => Box::new(WebSearch::from_env(*provider)?),
        })
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
        /// The problem, with line and column.
        message: String,
    },
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
        let failed = |message: String| ConfigError::Parse { path: path.as_ref().into(), message };
        if assignments.is_empty() {
            // Straight from the text, so that messages have line and column.
            let config: Self = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
            let table = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
            return Ok(config.corrected(&table));
        }
        let table: toml::Table = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
        let assignments = assignments.iter().map(|assignment| Assignment::parse(assignment));
        let assignments = assignments.collect::<Result<Vec<_>, _>>()?;
        // Only the keys' types tell a date from a text that looks like one: the first reading that fits them all counts.
        let doubtful = assignments.iter().filter(|assignment| assignment.is_doubtful()).count().min(MOST_DOUBTFUL);
        let mut first_error = None;
        for as_text in 0..1_u32 << doubtful {
            let mut table = table.clone();
            let mut index = 0;
            for assignment in &assignments {
                let is_text = assignment.is_doubtful() && index < doubtful && as_text >> index & 1 == 1;
                index += usize::from(assignment.is_doubtful());
                assignment.apply(&mut table, is_text)?;
            }
            match table.clone().try_into::<Self>() {
                Ok(config) => return Ok(config.corrected(&table)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        Err(failed(first_error.map(|error: toml::de::Error| error.to_string()).unwrap_or_default()))
    }
}

impl RunConfig {
    /// With the corrections for a server's log-probabilities, where its keys do not say otherwise.
    fn corrected(mut self, keys: &toml::Table) -> Self {
        let train = keys.get("train").and_then(toml::Value::as_table);
        let is_said = |key: &str| train.is_some_and(|train| train.contains_key(key));
        let is_drawn = self.train.rollout.sampling.temperature > 0.0;
        if self.generator.is_some() && is_drawn && !is_said("old_logprobs") && !is_said("importance_sampling") {
            self.train.old_logprobs = OldLogprobs::Recomputed;
            self.train.importance_sampling = Some(Default::default());
        }
        self
    }
}

/// So many values that may be texts or something else are tried in all combinations.
const MOST_DOUBTFUL: usize = 12;

/// A `key.path=value`.
struct Assignment<'a> {
    whole: &'a str,
    path: &'a str,
    text: &'a str,
    value: toml::Value,
}

impl<'a> Assignment<'a> {
    fn parse(whole: &'a str) -> Result<Self, ConfigError> {
        let (path, text) = whole.split_once('=').ok_or_else(|| failed(whole, "has no ="))?;
        let (path, text) = (path.trim(), text.trim());
        if path.is_empty() {
            return Err(failed(whole, "has no key"));
        }
        if text.is_empty() {
            return Err(failed(whole, "has no value"));
        }
        // A value that is no TOML is a text: --set model=models/other needs no quotes.
        let parsed = toml::from_str::<toml::Table>(&format!("v = {text}")).ok().filter(|parsed| parsed.len() == 1);
        let value = parsed.and_then(|mut parsed| parsed.remove("v"));
        Ok(Self { whole, path, text, value: value.unwrap_or_else(|| text.into()) })
    }

    /// Whether the value has another reading, as a text.
    fn is_doubtful(&self) -> bool {
        !self.value.is_str() && !self.value.is_table()
    }

    fn apply(&self, table: &mut toml::Table, as_text: bool) -> Result<(), ConfigError> {
        let mut keys: Vec<&str> = self.path.split('.').map(str::trim).collect();
        let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(|| failed(self.whole, "has no key"))?;
        let mut table = table;
        for key in keys {
            let entry = table.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = entry.as_table_mut().ok_or_else(|| failed(self.whole, "goes through a key that is no table"))?;
        }
        let value = if as_text { self.text.into() } else { self.value.clone() };
        table.insert(last.to_string(), value);
        Ok(())
    }
}

fn failed(assignment: &str, message: &str) -> ConfigError {
    ConfigError::Assignment { assignment: assignment.into(), message: message.into() }
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
        assert_eq!(config.engine, EngineConfig::Bm25 { corpus: "other/c.jsonl".into(), index: None });
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
