//! One question's outcome, with everything that is needed to check it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zerosearch_data::Question;
use zerosearch_files::write_atomic;
use zerosearch_metrics::Author;
use zerosearch_rollout::Rollout;

use crate::EvalError;

/// What came out for one question.
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
    /// Where the question comes from, if it says.
    pub data_source: Option<String>,
    /// The whole episode, in order.
    pub transcript: Vec<Utterance>,
}

/// A stretch of an episode by one author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utterance {
    /// Who wrote it.
    pub author: Author,
    /// The text.
    pub text: String,
}

/// What came before the policy's first turn.
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
    pub(crate) fn new(question: &Question, opening: Opening, rollout: &Rollout) -> Self {
        // The same rule as in training, and in policy tokens only: the prompt shows an example answer.
        let answer = zerosearch_reward::extract_answer(&rollout.policy_turns());
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
            em: answer.as_deref().is_some_and(|answer| zerosearch_reward::exact_match(answer, golden)),
            f1: answer.as_deref().map_or(0.0, |answer| zerosearch_reward::f1(answer, golden)),
            contains: answer.as_deref().is_some_and(|answer| zerosearch_reward::contains(answer, golden)),
            prediction: answer,
            searches: opening.searches + rollout.searches(),
            search_failures: opening.search_failures + rollout.search_failures(),
            hops: question.hops,
            data_source: question.data_source.clone(),
            transcript,
        }
    }
}

/// Writes predictions as JSONL, one a line.
///
/// # Errors
/// When the file cannot be written; an old one is then untouched.
pub fn write_predictions(path: impl AsRef<Path>, predictions: &[Prediction]) -> Result<(), EvalError> {
    let mut lines = Vec::new();
    for prediction in predictions {
        serde_json::to_writer(&mut lines, prediction).map_err(EvalError::Encode)?;
        lines.push(b'\n');
    }
    Ok(write_atomic(path, &lines)?)
}
