//! Drawing a token from logits.
//!
//! The logits stay on the device; of a draw the token and two log-probabilities go to the host. A draw without limits reads the
//! logits three times. With top-k, top-p or min-p the cut is found by bisection over the order of the logits, whose sums have
//! one order as well.

mod cut;
mod draw;
mod measure;
mod rule;

pub(super) use self::measure::{greatest_of_row, sum_of_four, total_of_row};
use cubecl::prelude::*;

use self::cut::find_cut;
use self::draw::{pick, sum_kept};
use self::measure::measure_tiles;
use super::elementwise::cubes;
use super::{Gpu, GpuBuffer, GpuError, Reading};

/// Logits of one tile.
pub(super) const TILE: usize = 1024;
pub(super) const UNITS: usize = 256;
/// Words of one draw's rule.
const RULE: usize = DrawRule::WORDS;
/// Words of one tile's statistics: the greatest logit, the sum of exponentials below it, the best of the open logits, its token.
pub(super) const STATISTICS: usize = 4;
/// Words of one draw's cut: the greatest open logit, the order of the least that is kept, the last token of that order, the least
/// mass.
const CUT: usize = 4;

/// Words of one drawn token: itself and two log-probabilities.
const DRAWN: usize = 4;

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

impl DrawRule {
    /// Words of a rule as [`Sampler::encode`] writes it.
    pub const WORDS: usize = 8;
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

/// Draws that are on their way to the host.
pub struct Drawing {
    reading: Reading,
    rows: usize,
}

/// Draws tokens of one vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Logits of a row.
    pub vocabulary: usize,
}

/// Memory for the draws of some rows.
#[derive(Clone, Debug)]
pub struct DrawMemory {
    statistics: GpuBuffer,
    cuts: GpuBuffer,
    masses: GpuBuffer,
    drawn: GpuBuffer,
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
        let [words, banned] = self.encode(rules);
        let memory = self.memory(gpu, rules.len());
        self.launch(gpu, logits, rules.len(), [&gpu.upload_words(&words), &gpu.upload_words(&banned)], &memory);
        self.read(gpu, rules.len(), &memory)
    }

    /// Rules as the kernels read them, `[rules, DrawRule::WORDS]`, and the tokens that they ban.
    pub fn encode(&self, rules: &[DrawRule]) -> [Vec<u32>; 2] {
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
        // A buffer is never empty.
        banned.push(0);
        [words, banned]
    }

    /// Memory for the draws of this many rows.
    pub fn memory(&self, gpu: &Gpu, rows: usize) -> DrawMemory {
        let tiles = self.vocabulary.div_ceil(TILE);
        DrawMemory {
            statistics: gpu.empty(rows * tiles * STATISTICS),
            cuts: gpu.empty(rows * CUT),
            masses: gpu.empty(rows * tiles),
            drawn: gpu.empty(rows * DRAWN),
        }
    }

    /// Launches the draws of the first rows of `logits`, by rules as [`encode`](Self::encode) writes them.
    pub fn launch(
        &self,
        gpu: &Gpu,
        logits: &GpuBuffer,
        rows: usize,
        [rules, banned]: [&GpuBuffer; 2],
        DrawMemory { statistics, cuts, masses, drawn }: &DrawMemory,
    ) {
        let all_tiles = CubeCount::Static(self.vocabulary.div_ceil(TILE) as u32, rows as u32, 1);
        let all_rows = CubeCount::Static(rows as u32, 1, 1);
        let units = CubeDim::new_1d(UNITS as u32);
        let vocabulary = self.vocabulary as u32;
        unsafe {
            measure_tiles::launch_unchecked(
                &gpu.client,
                all_tiles.clone(),
                units,
                logits.arg(),
                rules.arg(),
                banned.arg(),
                statistics.arg(),
                vocabulary,
            );
            find_cut::launch_unchecked(
                &gpu.client,
                all_rows.clone(),
                units,
                logits.arg(),
                rules.arg(),
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
                rules.arg(),
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
                rules.arg(),
                banned.arg(),
                statistics.arg(),
                cuts.arg(),
                masses.arg(),
                drawn.arg(),
                vocabulary,
            );
        }
    }

    /// Waits for the draws of the first rows.
    ///
    /// # Errors
    /// When a kernel failed, be it one that computed the logits.
    pub fn read(&self, gpu: &Gpu, rows: usize, memory: &DrawMemory) -> Result<Vec<Drawn>, GpuError> {
        self.begin_read(gpu, rows, memory).wait()
    }

    /// Begins to copy the draws of the first rows to the host, as the kernels leave them that are launched so far.
    pub fn begin_read(&self, gpu: &Gpu, rows: usize, memory: &DrawMemory) -> Drawing {
        Drawing { reading: gpu.begin_read(&memory.drawn), rows }
    }

    /// Replaces numbers of draws, the first `rows` of `tokens`, by the tokens that were drawn.
    pub fn pass_on(&self, gpu: &Gpu, rows: usize, memory: &DrawMemory, tokens: &GpuBuffer) {
        unsafe {
            take_tokens::launch_unchecked(
                &gpu.client,
                cubes(rows),
                CubeDim::new_1d(UNITS as u32),
                memory.drawn.arg(),
                tokens.arg(),
                rows as u32,
            );
        }
    }
}

impl Drawing {
    /// Waits for the draws.
    ///
    /// # Errors
    /// When a kernel failed, be it one that computed the logits.
    pub fn wait(self) -> Result<Vec<Drawn>, GpuError> {
        let token = |words: &[u32]| Drawn {
            token: words[0],
            logprob: f32::from_bits(words[1]),
            sampling_logprob: f32::from_bits(words[2]),
        };
        Ok(self.reading.wait()?.chunks_exact(DRAWN).take(self.rows).map(token).collect())
    }
}

#[cube(launch_unchecked)]
fn take_tokens(drawn: &[u32], tokens: &mut [u32], rows: u32) {
    let mut row = ABSOLUTE_POS;
    while row < rows as usize {
        tokens[row] = drawn[tokens[row] as usize * DRAWN];
        row += CUBE_COUNT * CUBE_DIM as usize;
    }
}
