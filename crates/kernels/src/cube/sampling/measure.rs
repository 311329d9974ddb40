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
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        let token = tile * TILE + unit * 4 + i;
        if token < vocabulary {
            sum += (logits[row * vocabulary + token] - greatest).exp();
        }
    }
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
