//! Answers from a recording.

use std::path::{Path, PathBuf};

use crate::tape::{self, Answers, Keys};
use crate::{Document, Query, SearchEngine, SearchError};

/// Answers from a file that [`Cached`](crate::Cached) wrote, and from nothing else: an experiment on a web search engine that
/// repeats exactly, without a key and without a network, or a run with a large simulator that repeats without the simulator.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    keys: Keys,
    answers: Answers,
}

impl Replay {
    /// Reads the recording of a real engine.
    ///
    /// # Errors
    /// [`SearchError::File`] names the file and the line, also where the recording is another engine's.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SearchError> {
        Self::with_keys(path.as_ref(), Keys::default())
    }

    /// Reads the recording of a simulated engine, made by [`Cached::simulated`](crate::Cached::simulated) with the same template.
    ///
    /// # Errors
    /// As [`read`](Self::read), and where the recording was made with another template.
    pub fn simulated(path: impl AsRef<Path>, template: &str) -> Result<Self, SearchError> {
        Self::with_keys(path.as_ref(), Keys::simulated(template))
    }

    fn with_keys(path: &Path, keys: Keys) -> Result<Self, SearchError> {
        let answers = tape::read(path)?;
        keys.check(path, &answers)?;
        Ok(Self { path: path.to_path_buf(), keys, answers })
    }
}

impl SearchEngine for Replay {
    /// The recorded answer; a query that was not recorded is [`SearchError::NotRecorded`].
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let key = self.keys.of(query)?;
        self.answers.get(&key).cloned().ok_or_else(|| SearchError::NotRecorded {
            path: self.path.display().to_string(),
            query: query.text.to_string(),
            top_k: query.top_k,
        })
    }
}
