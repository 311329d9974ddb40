//! Questions and answers of an engine in a file: one JSON object a line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerosearch_files::without_mark;

use crate::{Document, SearchError};

/// What an engine was asked, as far as its answer depends on it.
pub(crate) type Key = (String, usize);

/// What it answered, by what it was asked. Only looked up, never iterated.
pub(crate) type Answers = HashMap<Key, Vec<Document>>;

#[derive(Deserialize)]
struct Row {
    query: String,
    top_k: usize,
    documents: Vec<Document>,
}

#[derive(Serialize)]
struct RowRef<'a> {
    query: &'a str,
    top_k: usize,
    documents: &'a [Document],
}

/// Reads a finished recording.
pub(crate) fn read(path: &Path) -> Result<Answers, SearchError> {
    let bytes = std::fs::read(path).map_err(|error| file_error(path, format!("cannot read the recording: {error}")))?;
    let (answers, _) = parse(path, &bytes)?;
    Ok(answers)
}

/// Opens a file to append to, and what it holds already; a missing file is begun.
///
/// A process that was killed while it wrote leaves half a line at the end: that is cut off, because
/// the next answer would be glued to it.
pub(crate) fn open(path: &Path) -> Result<(File, Answers), SearchError> {
    let writable =
        |error: std::io::Error| file_error(path, format!("cannot open the file for reading and writing: {error}"));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(writable)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(writable)?;
    let (answers, whole) = parse(path, &bytes)?;
    file.set_len(whole).map_err(writable)?;
    file.seek(SeekFrom::End(0)).map_err(writable)?;
    Ok((file, answers))
}

/// Appends one answer, whole or not at all.
pub(crate) fn append(file: &mut File, path: &Path, key: &Key, documents: &[Document]) -> Result<(), SearchError> {
    let row = RowRef { query: &key.0, top_k: key.1, documents };
    let mut line =
        serde_json::to_string(&row).map_err(|error| file_error(path, format!("cannot write the answer: {error}")))?;
    line.push('\n');
    zerosearch_files::append(file, path, line.as_bytes()).map_err(|error| file_error(path, error.to_string()))
}

/// The answers, and the length in bytes of the whole lines. The first answer to a question counts.
/// Bytes and not text, because the last line may be cut within a character.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Answers, u64), SearchError> {
    let mut answers = Answers::new();
    let text = without_mark(bytes);
    let mut whole = (bytes.len() - text.len()) as u64;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            tracing::warn!("{}: the last line is incomplete and is ignored", path.display());
            break;
        }
        whole += line.len() as u64;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_slice(line).map_err(|error| SearchError::File {
            path: format!("{}:{}", path.display(), number + 1),
            message: format!("not a recorded answer: {error}; expected `{{\"query\": \"…\", \"top_k\": 5, \"documents\": […]}}`, or delete the file"),
        })?;
        answers.entry((row.query, row.top_k)).or_insert(row.documents);
    }
    Ok((answers, whole))
}

pub(crate) fn file_error(path: &Path, message: String) -> SearchError {
    SearchError::File { path: path.display().to_string(), message }
}
