//! Questions and answers of an engine in a file: one JSON object a line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerosearch_data::Fingerprint;
use zerosearch_files::without_mark;
use zerosearch_http::parse_json;

use crate::{Document, Quality, Query, SearchError, SimulationContext};

/// The part of a query that its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    query: String,
    top_k: usize,
    simulated: Option<Simulated>,
}

/// The part of a simulated engine's key beside the words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Simulated {
    /// The fingerprint of the template.
    template: String,
    question: String,
    answers: Vec<String>,
    quality: Quality,
    seed: u64,
}

/// Makes keys of queries: for real engines, or for a simulated one with a certain template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    template: Option<String>,
}

impl Keys {
    pub(crate) fn simulated(template: &str) -> Self {
        let mut hash = Fingerprint::default();
        hash.text(template);
        Self { template: Some(hash.to_string()) }
    }

    /// # Errors
    /// [`SearchError::NoContext`] where a simulated engine is asked without one.
    pub(crate) fn of(&self, query: &Query<'_>) -> Result<Key, SearchError> {
        let simulated = match (&self.template, query.context) {
            (None, _) => None,
            (Some(_), None) => return Err(SearchError::NoContext),
            (Some(template), Some(SimulationContext { question, answers, quality, seed })) => {
                let (question, answers) = (question.to_owned(), answers.to_vec());
                Some(Simulated { template: template.clone(), question, answers, quality, seed })
            }
        };
        Ok(Key { query: query.text.to_owned(), top_k: query.top_k, simulated })
    }

    /// Refuses answers none of which has such a key, though there are some.
    pub(crate) fn check(&self, path: &Path, answers: &Answers) -> Result<(), SearchError> {
        let template = |key: &Key| key.simulated.as_ref().map(|simulated| simulated.template.clone());
        if answers.is_empty() || answers.keys().any(|key| template(key) == self.template) {
            return Ok(());
        }
        let name = |template: Option<&String>| match template {
            Some(template) => format!("a simulated engine with the template {template}"),
            None => "a real engine".into(),
        };
        let mut found: Vec<String> = answers.keys().map(|key| name(template(key).as_ref())).collect();
        found.sort_unstable();
        found.dedup();
        let message = format!(
            "its answers are of {}, none of {}: give the file of such an engine, or a new one",
            found.join(" and of "),
            name(self.template.as_ref())
        );
        Err(file_error(path, message))
    }
}

/// Answers by key. Only looked up; no order of it shows.
pub(crate) type Answers = HashMap<Key, Vec<Document>>;

#[derive(Deserialize)]
struct Row {
    query: String,
    top_k: usize,
    #[serde(default)]
    simulated: Option<Simulated>,
    documents: Vec<Document>,
}

#[derive(Serialize)]
struct RowRef<'a> {
    query: &'a str,
    top_k: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'a Simulated>,
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
/// the next answer would be glued to it. Two processes that append leave both their lines whole.
pub(crate) fn open(path: &Path) -> Result<(File, Answers), SearchError> {
    open_rows(path, "file", |bytes| parse(path, bytes))
}

/// Opens a file of rows to append to. `parse` gives what it holds and the length in bytes up to the end of the last whole row;
/// the rest is cut off, and a last row without its line break gets one. `name` is the file's, for messages.
pub(crate) fn open_rows<T>(
    path: &Path,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<(T, usize), SearchError>,
) -> Result<(File, T), SearchError> {
    let unusable =
        |error: std::io::Error| file_error(path, format!("cannot open the {name} for reading and writing: {error}"));
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(unusable)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unusable)?;
    let (rows, whole) = parse(&bytes)?;
    if whole < bytes.len() {
        file.set_len(whole as u64).map_err(unusable)?;
    }
    if bytes[..whole].last().is_some_and(|last| *last != b'\n') {
        file.write_all(b"\n").map_err(unusable)?;
    }
    Ok((file, rows))
}

/// Appends one answer, whole or not at all.
pub(crate) fn append(file: &mut File, path: &Path, key: &Key, documents: &[Document]) -> Result<(), SearchError> {
    let row = RowRef { query: &key.query, top_k: key.top_k, simulated: key.simulated.as_ref(), documents };
    let mut line =
        serde_json::to_string(&row).map_err(|error| file_error(path, format!("cannot write the answer: {error}")))?;
    line.push('\n');
    zerosearch_files::append(file, path, line.as_bytes()).map_err(|error| file_error(path, error.to_string()))
}

/// The answers, and the length in bytes up to the end of the last whole line. The first answer to a question counts.
///
/// Lines that are no JSON are damage, of a process that was killed or of a full disk: they are left out with a warning. A line
/// that is JSON and no answer, and a file that begins with a line that is no JSON, are of another kind and refused.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Answers, usize), SearchError> {
    let mut answers = Answers::new();
    let text = without_mark(bytes);
    let mut whole = bytes.len() - text.len();
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let ended = line.ends_with(b"\n");
        // Bytes and not text until here, because the last line may be cut within a character.
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() {
            let at = format!("{}:{}", path.display(), number + 1);
            match parse_json::<Row>(&text) {
                Ok(row) => {
                    let key = Key { query: row.query, top_k: row.top_k, simulated: row.simulated };
                    answers.entry(key).or_insert(row.documents);
                }
                Err(error) if !error.is_data() && (!answers.is_empty() || (!ended && error.is_eof())) => {
                    let damage = if ended { "the line is damaged" } else { "the last line is incomplete" };
                    tracing::warn!("{at}: {damage} and is ignored: {error}");
                    if !ended {
                        break;
                    }
                }
                Err(error) => {
                    let expected =
                        "expected `{\"query\": \"…\", \"top_k\": 5, \"documents\": […]}`, or delete the file";
                    return Err(SearchError::File {
                        path: at,
                        message: format!("not a recorded answer: {error}; {expected}"),
                    });
                }
            }
        }
        whole += line.len();
    }
    Ok((answers, whole))
}

pub(crate) fn file_error(path: &Path, message: String) -> SearchError {
    SearchError::File { path: path.display().to_string(), message }
}
