//! A generator as a trainer needs it: one that rests during updates and counts its work.

use crate::{GenerateError, Generator};

/// A [`Generator`] that a trainer collects rollouts with.
///
/// It runs in the trainer's process, on a device, or behind a network. How it takes new weights is
/// `zerosearch_lm::Refit`, since weights are tensors and this crate knows none.
pub trait RolloutGenerator: Generator + Send {
    /// Gives back the memory that only decoding needs, weights first, so that an update can have it: vLLM's sleep. Live
    /// sequences stay. Nothing decodes until the generator is woken and given weights.
    ///
    /// A generator whose memory is not the trainer's has nothing to give back, which is the default.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    fn sleep(&mut self) -> Result<(), GenerateError> {
        Ok(())
    }

    /// Takes the memory again that [`sleep`](Self::sleep) gave back. The weights come afterwards, by a refit.
    ///
    /// # Errors
    /// When the engine cannot be reached, or there is no memory.
    fn wake(&mut self) -> Result<(), GenerateError> {
        Ok(())
    }

    /// Bounds the bytes of all caches together. A generator whose caches are another program's ignores it, which is the
    /// default.
    fn limit_cache(&mut self, _bytes: usize) {}

    /// The counts since the generator was made or since they were last taken. They begin anew, and released sequences have no
    /// influence on them: a resumed run counts what one counts that never stopped.
    fn take_statistics(&mut self) -> Statistics;

    /// Figures that only grow, by name, such as the requests to each server behind a network. A step's metrics show by how much
    /// they grew. None by default.
    fn counters(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// The work of a generator over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tokens sampled.
    pub sampled: u64,
    /// Prompt and observation tokens computed, those computed again included.
    pub prefilled: u64,
    /// Tokens whose cache was there already: another sequence's, live or released, or what was left of the sequence's own after
    /// it had been given up.
    pub shared: u64,
    /// Tokens whose cache was given up for want of memory, to be computed again.
    pub evicted: u64,
    /// The most bytes that the caches of live sequences held at once. What is kept of released ones is not counted: it makes
    /// room when a live one needs it.
    pub peak_cache_bytes: u64,
}
