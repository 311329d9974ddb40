//! The draw of useful or noisy documents for a search.

use rand_distr::{Distribution, StandardUniform};
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
        let draw: f64 = StandardUniform.sample(&mut Stream { purpose: "noise", ..search }.rng());
        Some(if draw < probability { Quality::Noisy } else { Quality::Useful })
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use zerosearch_curriculum::Constant;

    use super::*;

    #[test]
    fn decisions_are_those_of_a_uniform_number_below_the_probability() {
        let mut noisy = 0;
        for seed in 0..200 {
            let search = Stream { seed, purpose: "search", turn: seed % 5, ..Stream::default() };
            let uniform: f64 = Stream { purpose: "noise", ..search }.rng().random();
            let edges = [uniform.next_down(), uniform, uniform.next_up()];
            for probability in (0..=100).map(|percent| f64::from(percent) / 100.0).chain(edges) {
                let curriculum = Constant::new(probability).unwrap();
                let noise = Noise::Curriculum { curriculum: &curriculum, progress: Progress::at(0, 1) };
                let expected = if uniform < probability { Quality::Noisy } else { Quality::Useful };
                assert_eq!(noise.draw(search), Some(expected), "seed {seed}, probability {probability}");
                noisy += usize::from(expected == Quality::Noisy);
            }
        }
        assert!((9_000..12_000).contains(&noisy), "{noisy} of 20800 draws were noisy");
    }
}
