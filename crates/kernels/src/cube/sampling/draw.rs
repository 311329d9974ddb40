//! The token under which a uniform number falls.

use cubecl::prelude::*;

use super::measure::{greatest_of_row, total_of_row};
use super::rule::kept_mass;
use super::{CUT, RULE, STATISTICS, TILE, UNITS};
use crate::cube::reduction::cube_sum;

/// The mass that each tile keeps.
#[cube(launch_unchecked)]
pub(super) fn sum_kept(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    cuts: &[u32],
    masses: &mut [f32],
    vocabulary: u32,
) {
    let vocabulary = vocabulary as usize;
    let tile = CUBE_POS_X as usize;
    let row = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        sum += kept_mass(logits, rules, banned, cuts, row, tile * TILE + unit * 4 + i, vocabulary);
    }
    let total = cube_sum(sum, &mut shared, UNITS);
    if unit == 0 {
        masses[row * CUBE_COUNT_X as usize + tile] = total;
    }
}

/// The token of every draw and its log-probabilities.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn pick(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    statistics: &[u32],
    cuts: &[u32],
    masses: &[f32],
    drawn: &mut [u32],
    vocabulary: u32,
) {
    let vocabulary = vocabulary as usize;
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let tiles = vocabulary.div_ceil(TILE);
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut chosen = Shared::<[u32]>::new_slice(2usize);
    let mut rest = Shared::<[f32]>::new_slice(1usize);
    let temperature = f32::reinterpret(rules[row * RULE]);

    let greatest = greatest_of_row(statistics, row, tiles, &mut shared);
    let total = total_of_row(statistics, row, tiles, greatest, &mut shared);
    let mut mass = 0.0f32;
    let mut tile = unit;
    while tile < tiles {
        mass += masses[row * tiles + tile];
        tile += UNITS;
    }
    let kept = cube_sum(mass, &mut shared, UNITS);

    // The tile under which the uniform number falls, the last one with any mass where rounding leaves a little.
    if unit == 0 {
        let mut left = f32::reinterpret(rules[row * RULE + 4]) * kept;
        let mut found = 0u32.runtime();
        let mut left_in_it = left;
        let mut done = false;
        let mut tile = 0usize;
        while tile < tiles {
            let own = masses[row * tiles + tile];
            if !done && own > 0.0f32 {
                found = tile as u32;
                left_in_it = left;
                if left < own {
                    done = true;
                } else {
                    left -= own;
                }
            }
            tile += 1;
        }
        chosen[0] = found;
        rest[0] = left_in_it;
    }
    sync_cube();
    let tile = chosen[0] as usize;
    let mut own = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        own += kept_mass(logits, rules, banned, cuts, row, tile * TILE + unit * 4 + i, vocabulary);
    }
    sync_cube();
    shared[unit] = own;
    sync_cube();
    if unit == 0 {
        let mut left = rest[0];
        let mut group = 0usize;
        let mut left_in_it = left;
        let mut done = false;
        let mut other = 0usize;
        while other < UNITS {
            let mass = shared[other];
            if !done && mass > 0.0f32 {
                group = other;
                left_in_it = left;
                if left < mass {
                    done = true;
                } else {
                    left -= mass;
                }
            }
            other += 1;
        }
        let mut token = 0u32.runtime();
        let mut left = left_in_it;
        let mut done = false;
        #[unroll]
        for i in 0..4usize {
            let id = tile * TILE + group * 4 + i;
            let mass = kept_mass(logits, rules, banned, cuts, row, id, vocabulary);
            if !done && mass > 0.0f32 {
                token = id as u32;
                if left < mass {
                    done = true;
                } else {
                    left -= mass;
                }
            }
        }
        if temperature == 0.0f32 {
            let mut best = f32::new(-3.0e38);
            let mut found = false;
            let mut tile = 0usize;
            while tile < tiles {
                let at = (row * tiles + tile) * STATISTICS;
                if statistics[at + 3] != 0xffffffffu32 {
                    let value = f32::reinterpret(statistics[at + 2]);
                    if !found || value > best {
                        found = true;
                        best = value;
                        token = statistics[at + 3];
                    }
                }
                tile += 1;
            }
        }
        let logit = logits[row * vocabulary + token as usize];
        let logprob = logit - greatest - total.ln();
        let mut drawn_from = 0.0f32;
        if temperature > 0.0f32 {
            drawn_from = (logit - f32::reinterpret(cuts[row * CUT])) / temperature - kept.ln();
        }
        drawn[row * 4] = token;
        drawn[row * 4 + 1] = u32::reinterpret(logprob);
        drawn[row * 4 + 2] = u32::reinterpret(drawn_from);
    }
}
