//! Errors that stop an evaluation. A bad answer or a failed search never does.

use std::path::PathBuf;

use zerosearch_files::{FileError, RowError};
use zerosearch_rollout::RolloutError;
use zerosearch_text::TextError;

use crate::Strategy;

/// Errors of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// An unknown strategy.
    #[error("unknown strategy {0:?}, expected direct, cot, rag or search, or ra_agent, search_o1 or ircot")]
    UnknownStrategy(String),
    /// A strategy that searches, without an engine.
    #[error("the strategy {0} needs a search engine: give a corpus or a retriever, or use direct or cot")]
    NoEngine(Strategy),
    /// Nothing to evaluate.
    #[error("there are no questions to evaluate: check the file of questions and the limit")]
    NoQuestions,
    /// A prompt that cannot be rendered.
    #[error(transparent)]
    Prompt(#[from] TextError),
    /// The generator failed, or a bound is out of range.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// A file of prompts that is the prompt of no method.
    #[error("{path}: no prompt has this name, expected one of {known}")]
    UnknownPrompt {
        /// The file.
        path: PathBuf,
        /// The names that prompts have.
        known: String,
    },
    /// Several samples that would all be the same.
    #[error(
        "{samples} samples of each question with greedy decoding would be the same: set a temperature above 0, or take one sample"
    )]
    GreedySamples {
        /// Number of samples.
        samples: usize,
    },
    /// A line that is no row of its file.
    #[error("{path}: {source}")]
    Rows {
        /// The file.
        path: PathBuf,
        /// The line and its fault.
        source: RowError,
    },
    /// A file without predictions.
    #[error("{path}: holds no predictions; was the evaluation completed?")]
    NoPredictions {
        /// The file.
        path: PathBuf,
    },
    /// An evaluation that was interrupted, and is neither gone on with nor given up.
    #[error(
        "{path} holds the predictions of an evaluation that was interrupted: go on with `--resume`, or delete the file to begin anew"
    )]
    Interrupted {
        /// The journal.
        path: PathBuf,
    },
    /// A journal of another evaluation.
    #[error(
        "{path} belongs to an evaluation with another {key}: {found} there, {expected} now; run it with the same settings, or delete the file to begin anew"
    )]
    OtherEvaluation {
        /// The journal.
        path: PathBuf,
        /// The setting.
        key: String,
        /// Its value in the journal.
        found: String,
        /// Its value now.
        expected: String,
    },
    /// A row of a journal that does not belong to the question in its place.
    #[error(
        "{path}, row {row}: the prediction for {found}, expected that for {expected}; delete the file to begin anew"
    )]
    OtherRow {
        /// The journal.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The id in the row.
        found: String,
        /// The id that belongs there.
        expected: String,
    },
    /// Two sets of predictions that cannot be compared question by question.
    #[error("{0}")]
    NotPaired(String),
    /// A prediction that is no JSON.
    #[error("a prediction cannot be encoded as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}
