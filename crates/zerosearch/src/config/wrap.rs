//! What stands around an engine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zerosearch_search::{Cached, Replay, SearchEngine};

use super::EngineError;

/// What stands around an engine, from the outside: an answer is looked for in the cache before the engine is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrapConfig {
    /// A JSONL file that remembers every answer of a real engine, across runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// A file that `cache` left: it answers, and the engine is neither read nor asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<PathBuf>,
}

impl WrapConfig {
    /// Puts the wrappers around an engine, which is read only where it is needed.
    pub(super) fn around(
        &self,
        read: impl FnOnce() -> Result<Box<dyn SearchEngine>, EngineError>,
    ) -> Result<Box<dyn SearchEngine>, EngineError> {
        if let Some(file) = &self.replay {
            return Ok(Box::new(Replay::read(file)?));
        }
        let mut engine = read()?;
        if let Some(file) = &self.cache {
            engine = Box::new(Cached::with_file(engine, file)?);
        }
        Ok(engine)
    }

    /// Refuses what contradicts itself or does not fit the engine.
    pub(super) fn check(&self, is_simulated: bool) -> Result<(), String> {
        match self {
            Self { cache: Some(_), replay: Some(_) } => {
                Err("`wrap.cache` stands beside `wrap.replay`, which answers alone: expected one of the two".into())
            }
            // Both know a query by its words, and a simulator's answer depends on the question, the quality and the seed as well.
            Self { cache: Some(_), .. } if is_simulated => Err(
                "`wrap.cache` does not go with kind = \"simulator\": it would give every question the same documents"
                    .into(),
            ),
            Self { replay: Some(_), .. } if is_simulated => {
                Err("`wrap.replay` does not go with kind = \"simulator\": the file holds answers of a real engine"
                    .into())
            }
            _ => Ok(()),
        }
    }
}
