//! Text in, text out: what a judge or a simulator needs of a language model.

use std::sync::Arc;

use crate::{GenerateError, Sampling};

/// One text to complete.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The text so far.
    pub prompt: String,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most this many tokens.
    pub max_new_tokens: usize,
    /// Names the random stream.
    pub seed: u64,
    /// Generation ends before the first of these strings; they are cut off.
    pub stop: Vec<String>,
}

/// A completed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the model wrote after the prompt, stop strings cut off.
    pub text: String,
    /// Number of sampled tokens.
    pub tokens: usize,
}

/// Any language model as a function of text: local, remote, or a fixture in a test.
pub trait Completer: Send + Sync {
    /// Completes every request; answers stand in the order of the requests.
    ///
    /// # Errors
    /// When the engine fails.
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError>;
}

impl<C: Completer + ?Sized> Completer for Arc<C> {
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        (**self).complete(requests)
    }
}
