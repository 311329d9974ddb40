//! Named random streams and what is drawn from them.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The stream of one purpose and item: never depends on what else was drawn.
pub(crate) fn stream(seed: u64, purpose: &str, item: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ hash(&format!("{purpose}\u{0}{item}")))
}

/// FNV-1a with a final mix: stable across platforms and releases.
pub(crate) fn hash(text: &str) -> u64 {
    let mut z = text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One of the items; the default where there are none.
pub(crate) fn pick<T: Clone + Default>(items: &[T], rng: &mut ChaCha8Rng) -> T {
    if items.is_empty() { T::default() } else { items[rng.random_range(0..items.len())].clone() }
}
