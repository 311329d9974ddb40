//! Errors of generators and completers.

use zerosearch_trajectory::TokenId;

/// Errors of generators and completers.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A sampling parameter out of its range.
    #[error("{name} is {value}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// The given value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty: give at least one token (for example the beginning-of-text token)")]
    EmptyPrompt,
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is outside the vocabulary of {vocabulary}: the tokenizer does not belong to this model")]
    UnknownToken {
        /// The id.
        id: TokenId,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A prompt that leaves no room for a single new token.
    #[error("the prompt has {length} tokens, the context holds {context}: shorten it or raise the context length")]
    PromptTooLong {
        /// Tokens in the prompt.
        length: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// An id that names no live sequence, or one that is still decoding.
    #[error("sequence {0} is not waiting for an observation")]
    NotWaiting(u64),
    /// An engine behind a network failed.
    #[error("{endpoint}: {message}")]
    Remote {
        /// The address.
        endpoint: String,
        /// The problem.
        message: String,
    },
    /// An engine in this process failed.
    #[error("generation failed: {0}")]
    Engine(String),
}
