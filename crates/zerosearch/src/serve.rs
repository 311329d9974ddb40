//! A server as a TOML file: which engine, at which address, how noisy.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use zerosearch_curriculum::{Curriculum, CurriculumConfig, CurriculumError};
use zerosearch_files::read_text;
use zerosearch_server::ServerConfig;

use crate::config::{ConfigError, EngineConfig};
use crate::device::DeviceName;

/// A TOML file that describes a server. Everything but `engine` has a default.
///
/// Tables that are meant for `train` and `evaluate` are left alone, so that one file serves all; keys that nobody knows are refused.
///
/// ```
/// let config = zerosearch::serve::ServeConfig::parse(
///     "serve.toml",
///     r#"
///     calls = 100000
///     [engine]
///     kind = "simulator"
///     model = "models/simulator"
///     [server]
///     port = 8001
///     [curriculum]
///     kind = "exponential"
///     "#,
/// )?;
/// assert_eq!((config.server.port, config.calls), (8001, 100_000));
/// # Ok::<(), zerosearch::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// What answers the searches.
    pub engine: EngineConfig,
    /// The address and the bounds.
    #[serde(default)]
    pub server: ServerConfig,
    /// The share of noisy documents, where the engine is a simulator; its steps are searches. None are noisy if it is left out.
    #[serde(default)]
    pub curriculum: Option<CurriculumConfig>,
    /// The number of searches after which the curriculum is at its end.
    #[serde(default)]
    pub calls: u64,
    /// The device that a simulator is decoded on: `auto`, `cpu`, `cuda:N` or `webgpu`.
    #[serde(default)]
    pub device: DeviceName,
    // The keys of other programs.
    #[serde(default, rename = "model")]
    _model: IgnoredAny,
    #[serde(default, rename = "policy")]
    _policy: IgnoredAny,
    #[serde(default, rename = "questions")]
    _questions: IgnoredAny,
    #[serde(default, rename = "out")]
    _out: IgnoredAny,
    #[serde(default, rename = "reward")]
    _reward: IgnoredAny,
    #[serde(default, rename = "generator")]
    _generator: IgnoredAny,
    #[serde(default, rename = "judge")]
    _judge: IgnoredAny,
    #[serde(default, rename = "train")]
    _train: IgnoredAny,
    #[serde(default, rename = "validation")]
    _validation: IgnoredAny,
}

impl ServeConfig {
    /// A server of this engine at the default address.
    pub fn new(engine: EngineConfig) -> Self {
        Self {
            engine,
            server: ServerConfig::default(),
            curriculum: None,
            calls: 0,
            device: DeviceName::default(),
            _model: IgnoredAny,
            _policy: IgnoredAny,
            _questions: IgnoredAny,
            _out: IgnoredAny,
            _reward: IgnoredAny,
            _generator: IgnoredAny,
            _judge: IgnoredAny,
            _train: IgnoredAny,
            _validation: IgnoredAny,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let text = read_text(&path)?;
        Self::parse(path, &text)
    }

    /// As [`read`](Self::read), from text; `path` is for messages only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.as_ref().into(), message: error.to_string() })
    }

    /// The curriculum, if noise was asked for.
    ///
    /// # Errors
    /// A value outside its range; a curriculum that follows turns or success, which a server does not know; or one that changes, without
    /// the number of searches over which it does.
    pub fn noise(&self) -> Result<Option<Box<dyn Curriculum>>, NoiseError> {
        let Some(curriculum) = &self.curriculum else { return Ok(None) };
        if let Some(kind) = unknowable(curriculum) {
            return Err(NoiseError::Unknowable(kind));
        }
        if self.calls == 0 && !matches!(curriculum, CurriculumConfig::Constant { .. }) {
            return Err(NoiseError::Calls);
        }
        Ok(Some(curriculum.build()?))
    }
}

/// A curriculum that a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    /// A value outside its range, or a text that is no probability.
    #[error(transparent)]
    Curriculum(#[from] CurriculumError),
    /// It follows what a server is not told.
    #[error(
        "the curriculum {0:?} follows turns or success, which a server is not told: use exponential, linear, step or constant"
    )]
    Unknowable(&'static str),
    /// It changes, and it is not said how fast.
    #[error("the noise changes, but not over how many searches: give `calls` (--calls 100000)")]
    Calls,
    /// A `--noise` that is neither a number nor two.
    #[error("the noise is {0:?}, expected a probability, or two for the first and the last search: 0.25, 0:0.5")]
    Text(String),
}

/// The noise of a command line: `0.25` for every search, or `0:0.5` from the first search to the last as in the paper.
///
/// # Errors
/// Texts of other forms. Ranges are checked when the curriculum is built.
pub fn parse_noise(text: &str) -> Result<CurriculumConfig, NoiseError> {
    let number = |part: &str| part.trim().parse::<f64>().map_err(|_| NoiseError::Text(text.into()));
    match text.split_once(':') {
        None => Ok(CurriculumConfig::Constant { probability: number(text)? }),
        Some((start, end)) => Ok(CurriculumConfig::Exponential { start: number(start)?, end: number(end)?, base: 4.0 }),
    }
}

fn unknowable(curriculum: &CurriculumConfig) -> Option<&'static str> {
    match curriculum {
        CurriculumConfig::Adaptive { .. } => Some("adaptive"),
        CurriculumConfig::PerTurn { .. } => Some("per_turn"),
        CurriculumConfig::Reversed { of } => unknowable(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_curriculum::Progress;

    use super::*;

    const ENGINE: &str = "[engine]\nkind = \"bm25\"\ncorpus = \"c.jsonl\"\n";

    #[test]
    fn a_file_for_training_serves_too_and_unknown_keys_are_named() {
        let text =
            format!("model = \"m\"\nquestions = \"q\"\nout = \"o\"\ndevice = \"cpu\"\n{ENGINE}[train]\nsteps = 5\n");
        let config = ServeConfig::parse("f.toml", &text).unwrap();
        assert_eq!(config, ServeConfig { device: DeviceName::Cpu, ..ServeConfig::new(config.engine.clone()) });
        for (text, expected) in [
            (format!("{ENGINE}[server]\nprot = 1\n"), "prot"),
            (format!("{ENGINE}[sever]\nport = 1\n"), "sever"),
            (String::new(), "engine"),
        ] {
            let message = ServeConfig::parse("f.toml", &text).unwrap_err().to_string();
            assert!(message.contains("f.toml") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn noise_is_built_for_what_a_server_knows() {
        let noise = |noise: &str, calls| {
            let config = ServeConfig::new(EngineConfig::Bm25 { corpus: "c".into(), index: None });
            ServeConfig { curriculum: Some(parse_noise(noise)?), calls, ..config }.noise()
        };
        let at = |curriculum: Result<Option<Box<dyn Curriculum>>, NoiseError>, step| {
            curriculum.unwrap().unwrap().noise_probability(Progress::at(step, 10))
        };
        assert_eq!((at(noise("0.25", 0), 0), at(noise("0:0.5", 10), 0), at(noise("0:0.5", 10), 10)), (0.25, 0.0, 0.5));
        for (text, calls, expected) in
            [("0:0.5", 0, "--calls"), ("a", 1, "0:0.5"), ("1.5", 1, "1.5"), ("0:2", 1, "2"), ("", 1, "0.25")]
        {
            let message = noise(text, calls).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let text = format!("calls = 9\n{ENGINE}[curriculum]\nkind = \"adaptive\"\nlow = 0.2\nhigh = 0.5\n");
        let message = ServeConfig::parse("f.toml", &text).unwrap().noise().err().unwrap().to_string();
        assert!(message.contains("adaptive"), "{message}");
    }
}
