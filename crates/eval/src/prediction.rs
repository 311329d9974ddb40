//! One question's outcome, with everything that is needed to check it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_data::Question;
use zerosearch_files::{prepare_file, write_atomic};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_metrics::Author;
use zerosearch_rollout::Rollout;

use crate::EvalError;

/// The prediction for one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// A stretch of an episode by one author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utterance {
    /// Its author.
    pub author: Author,
    /// The text.
    pub text: String,
}

/// Everything before the policy's first turn.
pub(crate) struct Opening {
    pub(crate) transcript: Vec<Utterance>,
    pub(crate) searches: usize,
    pub(crate) search_failures: usize,
}

impl Opening {
    /// A prompt and nothing else.
    pub(crate) fn new(prompt: String) -> Self {
        Self { transcript: vec![Utterance { author: Author::Prompt, text: prompt }], searches: 0, search_failures: 0 }
    }
}

impl Prediction {
    /// Scores a rollout.
    pub(crate) fn new(question: &Question, opening: Opening, rollout: &Rollout, format: &EpisodeFormat) -> Self {
        // The same rule as in training, and in policy tokens only: the prompt shows an example answer.
        let answer = rollout.answer(format);
        let golden = &question.golden_answers;
        let mut transcript = opening.transcript;
        for turn in &rollout.turns {
            transcript.push(Utterance { author: Author::Policy, text: turn.text.clone() });
            transcript.extend(turn.observation.clone().map(|text| Utterance { author: Author::Observation, text }));
        }
        Self {
            id: question.id.clone(),
            question: question.question.clone(),
            golden_answers: golden.clone(),
            em: answer.is_some_and(|answer| zerosearch_reward::exact_match(answer, golden)),
            f1: answer.map_or(0.0, |answer| zerosearch_reward::f1(answer, golden)),
            contains: answer.is_some_and(|answer| zerosearch_reward::contains(answer, golden)),
            prediction: answer.map(str::to_owned),
            searches: opening.searches + rollout.searches(),
            search_failures: opening.search_failures + rollout.search_failures(),
            hops: question.hops,
            data_source: question.data_source.clone(),
            transcript,
        }
    }
}

/// The file of the predictions beside one of scores: `scores.json` has `scores.predictions.jsonl`, and a name without that ending,
/// such as `qwen2.5-3b`, is kept whole.
pub fn predictions_path(scores: impl AsRef<Path>) -> PathBuf {
    let scores = scores.as_ref();
    let json = scores.extension().is_some_and(|extension| extension == "json");
    let stem = if json { scores.file_stem() } else { scores.file_name() };
    let mut name = stem.unwrap_or_default().to_os_string();
    name.push(".predictions.jsonl");
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
