//! Which documents a simulated engine is told to write.

use rand::RngExt;
use zerosearch_curriculum::{Curriculum, Progress};
use zerosearch_generate::Stream;
use zerosearch_search::Quality;

/// Whether engines are told what a simulated one needs, and how often it writes noise.
#[derive(Clone, Copy)]
pub enum Noise<'a> {
    /// Engines get the query alone: evaluation with a real one.
    Off,
    /// Engines get the question, its answers, a quality drawn for this search, and a seed. A real
    /// engine ignores all that.
    Curriculum {
        /// Gives the probability of noisy documents.
        curriculum: &'a dyn Curriculum,
        /// How far training has come. The turn in it is set anew for every search.
        progress: Progress,
    },
}

impl Noise<'_> {
    /// The quality of one search's documents. It depends on the search's name alone.
    pub(crate) fn draw(&self, search: Stream) -> Option<Quality> {
        let Noise::Curriculum { curriculum, progress } = self else { return None };
        let turn = u32::try_from(search.turn).unwrap_or(u32::MAX);
        let probability = curriculum.noise_probability(Progress { turn, ..*progress });
        let draw: f64 = Stream { purpose: "noise", ..search }.rng().random();
        Some(if draw < probability { Quality::Noisy } else { Quality::Useful })
    }
}
