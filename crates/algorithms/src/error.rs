//! Errors of a batch, a parameter or a loss's inputs.

use thiserror::Error;

/// A request that an algorithm refuses. Nothing has been changed when one is returned.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AlgorithmError {
    /// Nothing in the batch was written by the policy.
    #[error("the batch has no trained token; drop it, or look at why every rollout ended before the policy wrote")]
    NoTrainedTokens,
    /// Two lists that belong together have different lengths.
    #[error("`{what}` has {found} values, expected {expected}: one for each {per}")]
    LengthMismatch {
        /// The list that does not fit.
        what: &'static str,
        /// The items that it should hold one value for.
        per: &'static str,
        /// How many it should hold.
        expected: usize,
        /// How many it holds.
        found: usize,
    },
    /// An input is NaN or infinite.
    #[error("`{what}[{index}]` is {value}, expected a finite number; find the rollout that produced it")]
    NotFinite {
        /// The list.
        what: &'static str,
        /// Position in it.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A group has too few sequences for an estimator that compares them with each other.
    #[error(
        "group {group} has {size} sequence(s), but `{algorithm}` compares the samples of one question and needs at least \
         {needed}; sample each question {needed} times or more, and give all its samples the same group id"
    )]
    GroupTooSmall {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The group's id.
        group: usize,
        /// How many sequences it has.
        size: usize,
        /// How many it needs.
        needed: usize,
    },
    /// An input that this algorithm needs was not given.
    #[error("`{algorithm}` needs `{what}`: {remedy}")]
    Missing {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The missing input.
        what: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// A hyper-parameter outside its range.
    #[error("algorithm `{algorithm}`: `{name}` is {value}, expected {expected}")]
    Parameter {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The parameter's key in the configuration.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Its range, in words.
        expected: &'static str,
    },
    /// No algorithm has this name.
    #[error("there is no algorithm `{name}`; the known ones are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Every known name.
        known: String,
    },
    /// A saved state that another algorithm or configuration wrote.
    #[error(
        "cannot resume `{algorithm}` from {found} number(s) of state; resume with the algorithm and settings that saved it"
    )]
    State {
        /// The algorithm's name.
        algorithm: &'static str,
        /// How many numbers were given.
        found: usize,
    },
    /// The device could not hand back the loss's metrics.
    #[error("reading the loss from the device failed: {message}")]
    Device {
        /// Burn's message.
        message: String,
    },
}

/// Refuses a parameter unless `valid`.
pub(crate) fn require(
    algorithm: &'static str,
    name: &'static str,
    value: f64,
    valid: bool,
    expected: &'static str,
) -> Result<(), AlgorithmError> {
    if valid { Ok(()) } else { Err(AlgorithmError::Parameter { algorithm, name, value, expected }) }
}
