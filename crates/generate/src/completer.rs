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
    /// The text after the prompt, stop strings cut off.
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

    /// How many calls at a time it is good for. 1, the default, is a model that decodes in batches: it wants the requests that
    /// wait together in one call. More is a service that answers each request in its own time: that many callers may
    /// bring a request each.
    fn concurrency(&self) -> usize {
        1
    }

    /// Figures that only grow, by name, such as the requests to each server behind a network. None by default.
    fn counters(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

impl<C: Completer + ?Sized> Completer for Arc<C> {
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        (**self).complete(requests)
    }

    fn concurrency(&self) -> usize {
        (**self).concurrency()
    }

    fn counters(&self) -> Vec<(String, f64)> {
        (**self).counters()
    }
}
