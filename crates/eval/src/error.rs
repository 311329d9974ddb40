//! Errors that stop an evaluation. A bad answer or a failed search never does.

use zerosearch_files::FileError;
use zerosearch_rollout::RolloutError;
use zerosearch_text::TextError;

use crate::Strategy;

/// Errors of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A strategy that nobody knows.
    #[error("unknown strategy {0:?}, expected direct, cot, rag or search")]
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
    /// A prediction that is no JSON.
    #[error("a prediction cannot be encoded as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}
