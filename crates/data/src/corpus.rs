//! Passages that a search engine indexes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::rows::{UniqueIds, present, read_rows, required_text, text_of};
use crate::{DataError, RowProblem};

/// A passage of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusRow {
    /// Its name, unique in the corpus, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its title, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text that is searched and shown.
    pub contents: String,
}

/// Reads the passages of a file, in order; its name says the format, as for [`read_questions`](crate::read_questions).
///
/// Keys: `id` as a string or a number and `title`, if there; `contents`; all others are ignored.
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row without
/// contents; an id used twice.
pub fn read_corpus(path: impl AsRef<Path>) -> Result<Vec<CorpusRow>, DataError> {
    let path = path.as_ref();
    let mut positions = Vec::new();
    let rows = read_rows(path, |row, position| {
        positions.push(position);
        let id = present(&row, "id");
        let title = present(&row, "title");
        Ok(CorpusRow {
            id: match id.map(|id| text_of(id).filter(|text| !text.is_empty())) {
                None => None,
                Some(Some(text)) => Some(text),
                Some(None) => return Err(RowProblem::new("id", id, "a string, a number, or no such key")),
            },
            title: match title.map(|title| title.as_str()) {
                None => None,
                Some(Some(text)) => Some(text.to_owned()),
                Some(None) => return Err(RowProblem::new("title", title, "a string, or no such key")),
            },
            contents: required_text(&row, "contents", "the passage, a text that is not blank")?,
        })
    })?;
    let mut ids = UniqueIds::new(path);
    for (row, position) in rows.iter().zip(positions) {
        if let Some(id) = &row.id {
            ids.insert(None, id, position)?;
        }
    }
    Ok(rows)
}
