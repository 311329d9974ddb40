//! Answers from a recording.

use std::path::{Path, PathBuf};

use crate::tape::{self, Answers};
use crate::{Document, Query, SearchEngine, SearchError};

/// Answers from a file that [`Cached::with_file`](crate::Cached::with_file) wrote, and from nothing
/// else: an experiment on a web search engine that repeats exactly, without a key and without a network.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    answers: Answers,
}

impl Replay {
    /// Reads the recording.
    ///
    /// # Errors
    /// [`SearchError::File`] names the file and the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SearchError> {
        let path = path.as_ref();
        Ok(Self { answers: tape::read(path)?, path: path.to_path_buf() })
    }
}

impl SearchEngine for Replay {
    /// The recorded answer; a query that was not recorded is [`SearchError::NotRecorded`].
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.answers.get(&(query.text.to_string(), query.top_k)).cloned().ok_or_else(|| SearchError::NotRecorded {
            path: self.path.display().to_string(),
            query: query.text.to_string(),
            top_k: query.top_k,
        })
    }
}
