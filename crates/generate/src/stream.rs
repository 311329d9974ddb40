//! Named random streams: a draw depends on its name alone, never on what was drawn before it elsewhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Names a random stream by where in a run it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The purpose of the draws; two purposes never share a stream.
    pub purpose: &'static str,
    /// The training step (or 0).
    pub step: u64,
    /// The question's index in its data set.
    pub question: u64,
    /// The sample's index in its group.
    pub sample: u64,
    /// The turn in the episode.
    pub turn: u64,
}

impl Stream {
    /// The stream's seed, well mixed.
    pub fn value(&self) -> u64 {
        let purpose = self
            .purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        stream_seed(&[self.seed, purpose, self.step, self.question, self.sample, self.turn])
    }

    /// The stream itself.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.value())
    }
}

/// Mixes the parts of a stream's name into one seed (SplitMix64, chained).
pub fn stream_seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
