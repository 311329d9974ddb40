//! Sequences that live in a generator between turns.

use std::time::Instant;

use zerosearch_trajectory::{Finish, SampledToken, TokenId, WeightVersion};

use crate::{GenerateError, Sampling, Wake};

/// Names a live sequence in one generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Told each sampled token in turn, says whether the turn ends with it. That token is kept whole.
pub type Stop = Box<dyn FnMut(TokenId) -> bool + Send>;

/// A [`Stop`] that never stops: the turn ends by length, context or end of text.
pub fn never() -> Stop {
    Box::new(|_| false)
}

/// One stretch of sampling.
pub struct Turn {
    /// At most this many tokens are sampled.
    pub max_new_tokens: usize,
    /// Names the random stream of this turn; see [`stream_seed`](crate::stream_seed).
    pub seed: u64,
    /// Ends the turn.
    pub stop: Stop,
    /// The turn ends with [`Finish::TimedOut`] and what it has by then. What it has depends on the machine, so a run
    /// that meets a deadline does not repeat.
    pub deadline: Option<Instant>,
}

/// A new sequence.
pub struct Request<'a> {
    /// The prompt. Requests with equal prompts that wait together may share their prefill.
    pub prompt: &'a [TokenId],
    /// How tokens are drawn, for all turns of the sequence.
    pub sampling: Sampling,
    /// The first turn.
    pub turn: Turn,
}

/// A turn that ended. The sequence stays alive until it is released.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Whose turn it was.
    pub id: SequenceId,
    /// The sampled tokens, the stopping one included.
    pub tokens: Vec<SampledToken>,
    /// Why it ended.
    pub finish: Finish,
}

/// Decodes many sequences at once. It knows token ids and nothing of text.
///
/// A sequence lives in the generator between its turns, so that an observation extends its
/// KV cache instead of prefilling it again.
pub trait Generator {
    /// Admits a new sequence.
    ///
    /// # Errors
    /// When the prompt is empty, has an id outside the vocabulary, or leaves no room for a token.
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError>;

    /// Appends what a tool answered and starts the next turn.
    ///
    /// When the observation leaves no room in the context, the turn finishes with
    /// [`Finish::Context`] and no tokens: that is data, not an error.
    ///
    /// # Errors
    /// When the sequence is unknown or still decoding.
    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError>;

    /// Decodes until at least one turn ends, and returns all that ended, ascending by id.
    /// Empty exactly when nothing is decoding.
    ///
    /// # Errors
    /// When the engine fails.
    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError>;

    /// As [`poll`](Self::poll), but returns soon after `wake` is raised with what has ended, which may be nothing: so a
    /// sequence whose documents have come can be extended while others decode. A generator looks at the signal between
    /// decoding steps, or waits on it, and never lowers it. The sampled tokens are those of [`poll`](Self::poll).
    ///
    /// A generator whose decoding cannot be interrupted polls, which is the default.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    fn poll_until(&mut self, _wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        self.poll()
    }

    /// Ends the turn that a sequence is decoding: the next [`poll`](Self::poll) returns what it has, with
    /// [`Finish::Cancelled`]. Unknown ids, and sequences that wait, are ignored. A generator that has nothing to cut
    /// short ignores all, which is the default.
    fn cancel(&mut self, _id: SequenceId) {}

    /// Forgets a sequence and frees its cache. Unknown ids are ignored.
    fn release(&mut self, id: SequenceId);

    /// The version of the weights that sample now.
    fn weight_version(&self) -> WeightVersion;
}

impl<G: Generator + ?Sized> Generator for &mut G {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        (**self).start(request)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        (**self).extend(id, observation, turn)
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        (**self).poll()
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        (**self).poll_until(wake)
    }

    fn cancel(&mut self, id: SequenceId) {
        (**self).cancel(id);
    }

    fn release(&mut self, id: SequenceId) {
        (**self).release(id);
    }

    fn weight_version(&self) -> WeightVersion {
        (**self).weight_version()
    }
}
