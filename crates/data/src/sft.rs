//! Examples for supervised fine-tuning.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::rows::{read_rows, required_text, write_jsonl};

/// One example: the loss is on the completion only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftRow {
    /// Input of the model.
    pub prompt: String,
    /// The completion to learn.
    pub completion: String,
}

/// Reads the examples of a file, in order; keys other than `prompt` and `completion` are ignored. Its name says
/// the format, as for [`read_questions`](crate::read_questions).
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row whose prompt
/// or completion is missing, blank or no string.
pub fn read_sft(path: impl AsRef<Path>) -> Result<Vec<SftRow>, DataError> {
    read_rows(path.as_ref(), |row, _| {
        Ok(SftRow {
            prompt: required_text(&row, "prompt", "a text that is not blank")?,
            completion: required_text(&row, "completion", "a text that is not blank")?,
        })
    })
}

/// Writes examples as `.jsonl`; the file appears complete or not at all.
///
/// # Errors
/// Another type of file, or a place that cannot be written.
pub fn write_sft(path: impl AsRef<Path>, rows: &[SftRow]) -> Result<(), DataError> {
    write_jsonl(path.as_ref(), rows)
}
