//! The engine and the model behind a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use zerosearch_curriculum::{Curriculum, Progress};
use zerosearch_generate::{Completer, Stream};
use zerosearch_search::{Quality, SearchEngine};

/// An engine to serve, with the share of noisy documents and, where it is a simulator, its language model.
pub struct Service {
    pub(crate) engine: Arc<dyn SearchEngine>,
    pub(crate) model: Option<(String, Arc<dyn Completer>)>,
    noise: Option<Box<dyn Curriculum>>,
    calls: u64,
    next: AtomicU64,
    next_completion: AtomicU64,
}

impl Service {
    /// Serves an engine; a simulated one writes useful documents only.
    pub fn new(engine: Arc<dyn SearchEngine>) -> Self {
        Self { engine, model: None, noise: None, calls: 0, next: AtomicU64::new(0), next_completion: AtomicU64::new(0) }
    }

    /// Draws the quality of documents by a curriculum whose steps are searches: it is at its end after `calls` of them.
    ///
    /// A server knows no turns and no success rate: a curriculum by turn stays in its first, an adaptive one at its least noise.
    #[must_use]
    pub fn with_noise(mut self, noise: Box<dyn Curriculum>, calls: u64) -> Self {
        (self.noise, self.calls) = (Some(noise), calls);
        self
    }

    /// Answers OpenAI's `/v1/chat/completions` and `/v1/completions` with this model under this name.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>, model: Arc<dyn Completer>) -> Self {
        self.model = Some((name.into(), model));
        self
    }

    /// The number of the next completion, counted from 0.
    pub(crate) fn count_completion(&self) -> u64 {
        self.next_completion.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the first of these searches, counted from 0.
    pub(crate) fn count(&self, searches: usize) -> u64 {
        self.next.fetch_add(searches as u64, Ordering::Relaxed)
    }

    /// The curriculum's probability of noise at a search.
    pub(crate) fn noise_at(&self, call: u64) -> f64 {
        self.noise.as_ref().map_or(0.0, |noise| noise.noise_probability(Progress::at(call, self.calls)))
    }

    /// The curriculum's probability of noise at the next search.
    pub(crate) fn noise_now(&self) -> f64 {
        self.noise_at(self.next.load(Ordering::Relaxed))
    }
}

/// The quality of documents that the stream with this seed draws.
pub(crate) fn draw_quality(seed: u64, noise_probability: f64) -> Quality {
    let uniform: f64 = Stream { seed, purpose: "noise", ..Stream::default() }.rng().random();
    if uniform < noise_probability { Quality::Noisy } else { Quality::Useful }
}
