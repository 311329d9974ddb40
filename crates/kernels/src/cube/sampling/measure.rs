//! Statistics of the logits, tile by tile.

use cubecl::prelude::*;

use super::rule::is_banned;
use super::{STATISTICS, TILE, UNITS};
use crate::cube::reduction::{cube_max, cube_sum};

/// Of every tile the greatest logit and the sum of the exponentials below it; of the tokens that may come, the best.
#[cube(launch_unchecked)]
pub(super) fn measure_tiles(logits: &[f32], rules: &[u32], banned: &[u32], statistics: &mut [u32], vocabulary: u32) {
    let vocabulary = vocabulary as usize;
    let tile = CUBE_POS_X as usize;
    let row = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut tokens = Shared::<[u32]>::new_slice(UNITS);
    let mut most = f32::new(-3.0e38);
    let mut best = f32::new(-3.0e38);
    let mut best_token = 0xffffffffu32.runtime();
    #[unroll]
    for i in 0..4usize {
        let token = tile * TILE + unit * 4 + i;
        if token < vocabulary {
            let logit = logits[row * vocabulary + token];
            most = max(most, logit);
            if !is_banned(token, row, rules, banned) {
                if best_token == 0xffffffffu32 || logit > best {
                    best = logit;
                    best_token = token as u32;
                }
            }
        }
    }
    let greatest = cube_max(most, &mut shared, UNITS);
    let sum = sum_of_four(logits, row * vocabulary, tile * TILE + unit * 4, vocabulary, greatest);
    let total = cube_sum(sum, &mut shared, UNITS);
    sync_cube();
    shared[unit] = best;
    tokens[unit] = best_token;
    sync_cube();
    if unit == 0 {
        let mut other = 1usize;
        while other < UNITS {
            if tokens[other] != 0xffffffffu32 {
                if best_token == 0xffffffffu32 || shared[other] > best {
                    best = shared[other];
                    best_token = tokens[other];
                }
            }
            other += 1;
        }
        let at = (row * CUBE_COUNT_X as usize + tile) * STATISTICS;
        statistics[at] = u32::reinterpret(greatest);
        statistics[at + 1] = u32::reinterpret(total);
        statistics[at + 2] = u32::reinterpret(best);
        statistics[at + 3] = best_token;
    }
}

/// The exponentials of four tokens' logits below the greatest one of a tile.
#[cube]
pub(in crate::cube) fn sum_of_four(
    logits: &[f32],
    start: usize,
    first: usize,
    vocabulary: usize,
    greatest: f32,
) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        if first + i < vocabulary {
            sum += (logits[start + first + i] - greatest).exp();
        }
    }
    sum
}

/// The greatest logit of a row, from the statistics of its tiles.
#[cube]
pub(in crate::cube) fn greatest_of_row(
    statistics: &[u32],
    row: usize,
    tiles: usize,
    shared: &mut Shared<[f32]>,
) -> f32 {
    let mut most = f32::new(-3.0e38);
    let mut tile = UNIT_POS as usize;
    while tile < tiles {
        most = max(most, f32::reinterpret(statistics[(row * tiles + tile) * STATISTICS]));
        tile += UNITS;
    }
    cube_max(most, shared, UNITS)
}

/// The sum of all exponentials of a row below its greatest logit.
#[cube]
pub(in crate::cube) fn total_of_row(
    statistics: &[u32],
    row: usize,
    tiles: usize,
    greatest: f32,
    shared: &mut Shared<[f32]>,
) -> f32 {
    let mut sum = 0.0f32;
    let mut tile = UNIT_POS as usize;
    while tile < tiles {
        let at = (row * tiles + tile) * STATISTICS;
        sum = fma((f32::reinterpret(statistics[at]) - greatest).exp(), f32::reinterpret(statistics[at + 1]), sum);
        tile += UNITS;
    }
    cube_sum(sum, shared, UNITS)
}
