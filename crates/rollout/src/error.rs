//! Errors that stop a whole run. A failure inside one episode is data, not an error.

use zerosearch_generate::GenerateError;

/// Errors of a run.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// A bound that leaves nothing to do.
    #[error("{key} is 0, expected at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A time that no turn can end within, or that no clock can count.
    #[error(
        "turn_timeout_s is {seconds}, expected a number of seconds above 0 and below 1e9; leave it out for no limit"
    )]
    Timeout {
        /// The given value.
        seconds: f64,
    },
    /// The fixed observations alone are longer than the bound.
    #[error(
        "max_observation_tokens is {max}, but with this tokenizer the longest fixed observation has {needed} tokens: set it to at least {needed}"
    )]
    ObservationBound {
        /// The bound.
        max: usize,
        /// The least bound that works.
        needed: usize,
    },
    /// A tool that cannot be told from another one, or from a part of the format.
    #[error(
        "a tool has the tag {tag:?}, which is empty, another tool's, or one of the format: give each tool a tag of its own"
    )]
    ToolTag {
        /// The tag.
        tag: String,
    },
    /// Two tasks with one name would draw the same random numbers and give the same rollout twice.
    #[error(
        "two tasks have question_index {question_index} and sample {sample}: number the samples of a question 0, 1, 2, …"
    )]
    DuplicateTask {
        /// The question.
        question_index: u64,
        /// The sample.
        sample: u64,
    },
    /// The generator cannot work with a task.
    #[error("question {question_index}, sample {sample}: {source}")]
    Task {
        /// The question.
        question_index: u64,
        /// The sample.
        sample: u64,
        /// The generator's error.
        source: GenerateError,
    },
    /// The generator failed, or sampling parameters are out of range.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The generator ended a turn that this run did not start.
    #[error(
        "the generator finished sequence {0}, which this run does not have: give each run a generator without live sequences"
    )]
    UnknownSequence(u64),
    /// The generator says that nothing is decoding, though turns were started that have not ended.
    #[error("the generator stopped with {0} turns unfinished: this is a defect of the generator")]
    Stalled(usize),
}
