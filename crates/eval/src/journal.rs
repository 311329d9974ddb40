//! Predictions kept as they come, so that an evaluation goes on after a kill.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, RowError, append, parse_rows, prepare_file, write_atomic};
use zerosearch_rollout::RolloutConfig;

use crate::attempt::Asked;
use crate::prediction::beside;
use crate::{EvalError, Prediction, Strategy};

/// Everything that predictions depend on. A journal is gone on with under the same setting only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The method.
    pub strategy: Strategy,
    /// The seed of all draws.
    pub seed: u64,
    /// How often each question is answered.
    pub samples: usize,
    /// The bounds of an episode, and how tokens are drawn.
    pub rollout: RolloutConfig,
    /// The [`fingerprint`](zerosearch_data::fingerprint) of the questions.
    pub questions: String,
    /// The fingerprint of the prompts.
    pub prompts: String,
    /// The model, as the caller names it.
    #[serde(default)]
    pub model: String,
    /// The engine, as the caller names it.
    #[serde(default)]
    pub engine: String,
}

/// The predictions of an evaluation that is not finished, one a line, in a file beside that of its scores: of `scores.json` it is
/// `scores.partial.jsonl`. The first line is the [`Setting`].
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Predictions that an earlier process made.
    done: Vec<Entry>,
}

/// A line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) prediction: Prediction,
    pub(crate) seconds: f64,
}

impl Journal {
    /// The journal beside a file of scores.
    pub fn path_of(scores: impl AsRef<Path>) -> PathBuf {
        beside(scores.as_ref(), "partial.jsonl")
    }

    /// Opens the journal beside a file of scores: one that is there with `resume`, else a new one. A last line that was cut short
    /// when its writer was killed is left out.
    ///
    /// # Errors
    /// When a journal is there and `resume` is not asked for; when it belongs to another setting, has a broken line, or cannot be
    /// read or written.
    pub fn open(scores: impl AsRef<Path>, setting: &Setting, resume: bool) -> Result<Self, EvalError> {
        let path = Self::path_of(scores);
        let done = match (path.exists(), resume) {
            (true, true) => read(&path, setting)?,
            (true, false) => return Err(EvalError::Interrupted { path }),
            (false, _) => Vec::new(),
        };
        prepare_file(&path, &[])?;
        // Written anew, so that the next line does not follow half of one.
        let mut lines = line(setting)?;
        for entry in &done {
            lines.extend(line(entry)?);
        }
        write_atomic(&path, &lines)?;
        let opened = OpenOptions::new().append(true).open(&path);
        let file = opened.map_err(|source| FileError::Write { path: path.clone(), source })?;
        Ok(Self { path, file, done })
    }

    /// Number of predictions that were there when it was opened.
    pub fn resumed(&self) -> usize {
        self.done.len()
    }

    /// Deletes the file, once the predictions are where they belong.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn finish(self) -> Result<(), EvalError> {
        let Self { path, file, .. } = self;
        drop(file);
        Ok(std::fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?)
    }

    /// The predictions of an earlier process, which must be those of the first of these questions.
    pub(crate) fn take(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Entry>, EvalError> {
        let name = |id: &str, sample: u64| format!("{id:?}, sample {sample}");
        for (row, Entry { prediction, .. }) in self.done.iter().enumerate() {
            let expected = asked.get(row).map(|asked| (asked.question.id.as_str(), asked.sample));
            if expected != Some((&prediction.id, prediction.sample)) {
                return Err(EvalError::OtherRow {
                    path: self.path.clone(),
                    row: row + 1,
                    found: name(&prediction.id, prediction.sample),
                    expected: expected.map_or("no question".into(), |(id, sample)| name(id, sample)),
                });
            }
        }
        Ok(self.done.clone())
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), EvalError> {
        for entry in entries {
            append(&mut self.file, &self.path, &line(entry)?)?;
        }
        Ok(())
    }
}

fn line(row: &impl Serialize) -> Result<Vec<u8>, EvalError> {
    let mut line = serde_json::to_vec(row).map_err(EvalError::Encode)?;
    line.push(b'\n');
    Ok(line)
}

/// A line is a setting or an entry, so that both are read in one pass.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Entry(Box<Entry>),
    Setting(Box<Setting>),
}

fn read(path: &Path, setting: &Setting) -> Result<Vec<Entry>, EvalError> {
    let bytes = std::fs::read(path).map_err(|source| FileError::Read { path: path.into(), source })?;
    let broken = |source| EvalError::Rows { path: path.into(), source };
    let rows: Vec<Row> = parse_rows(path, &bytes, serde_json::from_slice).map_err(broken)?;
    let mut rows = rows.into_iter();
    match rows.next() {
        Some(Row::Setting(found)) => refuse_other(path, &found, setting)?,
        // Killed before the first line was whole.
        None => return Ok(Vec::new()),
        Some(Row::Entry(_)) => {
            return Err(broken(RowError { line: 1, message: "expected the setting of the evaluation".into() }));
        }
    }
    let entry = |(row, line)| match row {
        Row::Entry(entry) => Ok(*entry),
        Row::Setting(_) => Err(broken(RowError { line, message: "a second setting, expected a prediction".into() })),
    };
    rows.zip(2..).map(entry).collect()
}

/// Names the first setting that is another.
fn refuse_other(path: &Path, found: &Setting, expected: &Setting) -> Result<(), EvalError> {
    let values = |setting: &Setting| serde_json::to_value(setting).map_err(EvalError::Encode);
    let (found, expected) = (values(found)?, values(expected)?);
    let differs = expected.as_object().into_iter().flatten().find(|(key, value)| found.get(key) != Some(value));
    match differs {
        None => Ok(()),
        Some((key, value)) => Err(EvalError::OtherEvaluation {
            path: path.into(),
            key: key.clone(),
            found: found.get(key).map_or("nothing".into(), ToString::to_string),
            expected: value.to_string(),
        }),
    }
}
