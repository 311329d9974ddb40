//! JSON files in a run's folder.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerosearch_files::write_atomic;

use super::PipelineError;

/// A run's folder.
pub(crate) struct Folder<'a>(pub(crate) &'a Path);

impl Folder<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), PipelineError> {
        let path = self.path(name);
        let text = serde_json::to_string_pretty(value).map_err(|error| PipelineError::file(&path, error))?;
        Ok(write_atomic(&path, format!("{text}\n").as_bytes())?)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, PipelineError> {
        let path = self.path(name);
        let text = std::fs::read(&path).and_then(zerosearch_files::decode_text);
        let text = text.map_err(|error| PipelineError::file(&path, error))?;
        serde_json::from_str(&text)
            .map_err(|error| PipelineError::file(&path, format!("{error}; was the write cut short?")))
    }

    /// As [`read`](Self::read); `None` where there is no such file.
    pub(crate) fn read_if_there<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PipelineError> {
        if self.path(name).exists() { self.read(name).map(Some) } else { Ok(None) }
    }
}
