//! One question's outcome, with everything that is needed to check it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, parse_rows, prepare_file, write_atomic};
use zerosearch_metrics::Author;

use crate::EvalError;
use crate::attempt::{Asked, Attempt};

/// The prediction for one question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// Every answer that counts as right.
    pub golden_answers: Vec<String>,
    /// The answer that the policy gave; absent when it gave none.
    pub prediction: Option<String>,
    /// Whether it equals a golden answer, both normalised.
    pub em: bool,
    /// The best F1 with any golden answer.
    pub f1: f64,
    /// Whether it contains a golden answer, both normalised.
    pub contains: bool,
    /// Number of executed searches, failed ones included.
    pub searches: usize,
    /// Number of searches that the engine could not answer.
    pub search_failures: usize,
    /// How many facts the question joins, if it says.
    pub hops: Option<usize>,
    /// Data set of the question, if known.
    pub data_source: Option<String>,
    /// The whole episode, in order.
    pub transcript: Vec<Utterance>,
    /// The sample's number, where a question is answered several times.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample: u64,
    /// How often the model condensed what a search had found.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub condensations: u64,
    /// Number of tokens that the model read: prompts and observations, each once.
    #[serde(default)]
    pub tokens_in: u64,
    /// Number of tokens that the model sampled.
    #[serde(default)]
    pub tokens_out: u64,
    /// The type of the question, if the row says: `bridge`, `comparison`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How much of the evidence the searches found, if the row names its evidence and the method searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// The documents that an answer rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Number of them that were among the documents of a search.
    pub found: usize,
    /// Number of them.
    pub of: usize,
}

impl Evidence {
    /// The share that was found, from 0 to 1.
    pub fn recall(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.found as f64 / self.of as f64 }
    }
}

/// A stretch of an episode by one author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utterance {
    /// Its author.
    pub author: Author,
    /// The text.
    pub text: String,
}

impl Prediction {
    /// Scores an attempt.
    pub(crate) fn new(asked: &Asked<'_>, attempt: Attempt, evidence: Option<Evidence>) -> Self {
        let (question, answer) = (asked.question, attempt.answer);
        let golden = &question.golden_answers;
        Self {
            id: question.id.clone(),
            question: question.question.clone(),
            golden_answers: golden.clone(),
            em: answer.as_ref().is_some_and(|answer| zerosearch_reward::exact_match(answer, golden)),
            f1: answer.as_ref().map_or(0.0, |answer| zerosearch_reward::f1(answer, golden)),
            contains: answer.as_ref().is_some_and(|answer| zerosearch_reward::contains(answer, golden)),
            prediction: answer,
            searches: attempt.queries.len(),
            search_failures: attempt.search_failures,
            hops: question.known_hops(),
            data_source: question.data_source.clone(),
            transcript: attempt.transcript,
            sample: asked.sample,
            condensations: attempt.condensations as u64,
            tokens_in: attempt.tokens_in as u64,
            tokens_out: attempt.tokens_out as u64,
            kind: question.kind().map(str::to_owned),
            evidence,
        }
    }

    /// The question's name: predictions with the same one answer the same question.
    pub(crate) fn key(&self) -> (Option<&str>, &str) {
        (self.data_source.as_deref(), &self.id)
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The file of the predictions beside one of scores: `scores.json` has `scores.predictions.jsonl`, and a name without that ending,
/// such as `qwen2.5-3b`, is kept whole.
pub fn predictions_path(scores: impl AsRef<Path>) -> PathBuf {
    beside(scores.as_ref(), "predictions.jsonl")
}

/// The file of this ending beside one of scores.
pub(crate) fn beside(scores: &Path, ending: &str) -> PathBuf {
    let json = scores.extension().is_some_and(|extension| extension == "json");
    let stem = if json { scores.file_stem() } else { scores.file_name() };
    let mut name = stem.unwrap_or_default().to_os_string();
    name.push(".");
    name.push(ending);
    scores.with_file_name(name)
}

/// Writes predictions as JSONL, one a line; missing folders are made.
///
/// # Errors
/// When the file cannot be written; an old one is then untouched.
pub fn write_predictions(path: impl AsRef<Path>, predictions: &[Prediction]) -> Result<(), EvalError> {
    let mut lines = Vec::new();
    for prediction in predictions {
        serde_json::to_writer(&mut lines, prediction).map_err(EvalError::Encode)?;
        lines.push(b'\n');
    }
    prepare_file(&path, &[])?;
    Ok(write_atomic(path, &lines)?)
}

/// Reads predictions, one a line; `path` may also be the file of the scores that they stand beside.
///
/// # Errors
/// When the file cannot be read, has no rows, or a line is no prediction.
pub fn read_predictions(path: impl AsRef<Path>) -> Result<Vec<Prediction>, EvalError> {
    let path = path.as_ref();
    let path = match path.extension() {
        Some(extension) if extension == "jsonl" => path.to_owned(),
        _ => predictions_path(path),
    };
    let bytes = std::fs::read(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
    let rows: Vec<Prediction> = parse_rows(&path, &bytes, serde_json::from_slice)
        .map_err(|source| EvalError::Rows { path: path.clone(), source })?;
    if rows.is_empty() { Err(EvalError::NoPredictions { path }) } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/today/p.jsonl");
        write_predictions(&path, &[]).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn predictions_are_named_after_the_whole_name_of_the_scores() {
        for (scores, predictions) in [
            ("scores.json", "scores.predictions.jsonl"),
            ("results.v1.2/scores.seed.0.json", "results.v1.2/scores.seed.0.predictions.jsonl"),
            ("out/qwen2.5-3b", "out/qwen2.5-3b.predictions.jsonl"),
            ("out/qwen2.5-7b", "out/qwen2.5-7b.predictions.jsonl"),
            ("./ergebnis.ü", "./ergebnis.ü.predictions.jsonl"),
            ("scores.predictions.jsonl", "scores.predictions.jsonl.predictions.jsonl"),
        ] {
            assert_eq!(predictions_path(scores), Path::new(predictions));
        }
    }
}
