//! Drawing a token from logits.
//!
//! The logits stay on the device; of a draw the token and two log-probabilities go to the host. A draw without limits reads the
//! logits three times. With top-k, top-p or min-p the cut is found by bisection over the order of the logits, whose sums have
//! one order as well.

mod cut;
mod draw;
mod measure;
mod rule;

use cubecl::prelude::*;

use self::cut::find_cut;
use self::draw::{pick, sum_kept};
use self::measure::measure_tiles;
use super::{Gpu, GpuBuffer, GpuError};

/// Logits of one tile.
const TILE: usize = 1024;
const UNITS: usize = 256;
/// Words of one draw's rule.
const RULE: usize = 8;
/// Words of one tile's statistics: the greatest logit, the sum of exponentials below it, the best of the open logits, its token.
const STATISTICS: usize = 4;
/// Words of one draw's cut: the greatest open logit, the order of the least that is kept, the last token of that order, the least
/// mass.
const CUT: usize = 4;

/// How a token is drawn from one row of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawRule {
    /// Divides the logits; 0 takes the most probable token, the lowest among equals.
    pub temperature: f32,
    /// Keeps the most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of them with this share of the mass; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens with at least this share of the greatest mass; 0 keeps all.
    pub min_p: f32,
    /// In [0, 1): the share of the mass under which the token is taken.
    pub uniform: f32,
    /// Tokens that must not come.
    pub banned: Vec<u32>,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Its log-probability at temperature 1, with nothing cut away.
    pub logprob: f32,
    /// Its log-probability under the distribution that it was drawn from.
    pub sampling_logprob: f32,
}

/// Draws tokens of one vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Logits of a row.
    pub vocabulary: usize,
}

impl Sampler {
    /// One token for every row of `logits` (`[rules, vocabulary]`).
    ///
    /// # Errors
    /// When a kernel failed, be it one that computed the logits.
    pub fn draw(&self, gpu: &Gpu, logits: &GpuBuffer, rules: &[DrawRule]) -> Result<Vec<Drawn>, GpuError> {
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let tiles = self.vocabulary.div_ceil(TILE);
        let mut words = Vec::with_capacity(rules.len() * RULE);
        let mut banned = Vec::new();
        for rule in rules {
            words.extend([
                rule.temperature.to_bits(),
                if rule.top_k as usize >= self.vocabulary { 0 } else { rule.top_k },
                rule.top_p.to_bits(),
                rule.min_p.to_bits(),
                rule.uniform.to_bits(),
                banned.len() as u32,
                (banned.len() + rule.banned.len()) as u32,
                0,
            ]);
            banned.extend_from_slice(&rule.banned);
        }
        banned.push(0);
        let (words, banned) = (gpu.upload_words(&words), gpu.upload_words(&banned));
        let (statistics, cuts) = (gpu.empty(rules.len() * tiles * STATISTICS), gpu.empty(rules.len() * CUT));
        let (masses, drawn) = (gpu.empty(rules.len() * tiles), gpu.empty(rules.len() * 4));
        let all_tiles = CubeCount::Static(tiles as u32, rules.len() as u32, 1);
        let all_rows = CubeCount::Static(rules.len() as u32, 1, 1);
        let units = CubeDim::new_1d(UNITS as u32);
        let vocabulary = self.vocabulary as u32;
        unsafe {
            measure_tiles::launch_unchecked(
                &gpu.client,
                all_tiles.clone(),
                units,
                logits.arg(),
                words.arg(),
                banned.arg(),
                statistics.arg(),
                vocabulary,
            );
            find_cut::launch_unchecked(
                &gpu.client,
                all_rows.clone(),
                units,
                logits.arg(),
                words.arg(),
                banned.arg(),
                statistics.arg(),
                cuts.arg(),
                vocabulary,
            );
            sum_kept::launch_unchecked(
                &gpu.client,
                all_tiles,
                units,
                logits.arg(),
                words.arg(),
                banned.arg(),
                cuts.arg(),
                masses.arg(),
                vocabulary,
            );
            pick::launch_unchecked(
                &gpu.client,
                all_rows,
                units,
                logits.arg(),
                words.arg(),
                banned.arg(),
                statistics.arg(),
                cuts.arg(),
                masses.arg(),
                drawn.arg(),
                vocabulary,
            );
        }
        let drawn = gpu.read_words(&drawn)?;
        let token = |words: &[u32]| Drawn {
            token: words[0],
            logprob: f32::from_bits(words[1]),
            sampling_logprob: f32::from_bits(words[2]),
        };
        Ok(drawn.chunks_exact(4).map(token).collect())
    }
}
