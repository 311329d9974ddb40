//! The place in the order of the logits where top-k and top-p cut.

use cubecl::prelude::*;

use super::rule::{is_banned, mass_of, order_of};
use super::{CUT, RULE, STATISTICS, TILE, UNITS};
use crate::cube::reduction::{cube_max, cube_sum};

/// How many open tokens, and how much of their mass, are above an order; of those of the order itself, the ones up to a token.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn above(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    row: usize,
    greatest: f32,
    order: u32,
    last: u32,
    by_mass: bool,
    shared: &mut Shared<[f32]>,
    vocabulary: usize,
) -> f32 {
    let mut sum = 0.0f32;
    let mut token = UNIT_POS as usize;
    while token < vocabulary {
        let logit = logits[row * vocabulary + token];
        let own = order_of(logit);
        if own > order || (own == order && token as u32 <= last) {
            if !is_banned(token, row, rules, banned) {
                if by_mass {
                    sum += mass_of(logit, greatest, row, rules);
                } else {
                    sum += 1.0f32;
                }
            }
        }
        token += UNITS;
    }
    cube_sum(sum, shared, UNITS)
}

/// The last token in the order of the logits, then of the tokens, that top-k and top-p keep.
#[cube(launch_unchecked)]
pub(super) fn find_cut(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    statistics: &[u32],
    cuts: &mut [u32],
    vocabulary: u32,
) {
    let vocabulary = vocabulary as usize;
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let tiles = vocabulary.div_ceil(TILE);
    let mut most = f32::new(-3.0e38);
    let mut tile = unit;
    while tile < tiles {
        let at = (row * tiles + tile) * STATISTICS;
        if statistics[at + 3] != 0xffffffffu32 {
            most = max(most, f32::reinterpret(statistics[at + 2]));
        }
        tile += UNITS;
    }
    let greatest = cube_max(most, &mut shared, UNITS);
    let top_k = rules[row * RULE + 1];
    let top_p = f32::reinterpret(rules[row * RULE + 2]);
    let min_p = f32::reinterpret(rules[row * RULE + 3]);

    // Everything above `cut`, and of those that equal it the tokens up to `last`.
    let mut cut = 0u32.runtime();
    let mut last = 0xffffffffu32.runtime();
    let mut turn = 0u32.runtime();
    while turn < 2u32 {
        let by_mass = turn == 1u32;
        let mut wanted = f32::cast_from(top_k);
        let mut limited = top_k > 0u32;
        if by_mass {
            limited = top_p < 1.0f32;
            wanted = 0.0f32;
            if limited {
                wanted = top_p * above(logits, rules, banned, row, greatest, cut, last, true, &mut shared, vocabulary);
            }
        }
        if limited {
            // The lowest order above which there is less than what is wanted.
            let mut low = cut;
            let mut high = order_of(greatest);
            while low < high {
                let middle = low + (high - low) / 2u32;
                let found =
                    strictly_above(logits, rules, banned, row, greatest, middle, by_mass, &mut shared, vocabulary);
                if found < wanted {
                    high = middle;
                } else {
                    low = middle + 1u32;
                }
            }
            let mut least = 0u32.runtime();
            let mut greatest_token = vocabulary as u32 - 1u32;
            if low == cut {
                greatest_token = min(greatest_token, last);
            }
            while least < greatest_token {
                let middle = least + (greatest_token - least) / 2u32;
                let found = above(logits, rules, banned, row, greatest, low, middle, by_mass, &mut shared, vocabulary);
                if found < wanted {
                    least = middle + 1u32;
                } else {
                    greatest_token = middle;
                }
            }
            cut = low;
            last = least;
        }
        turn += 1u32;
    }
    if unit == 0 {
        cuts[row * CUT] = u32::reinterpret(greatest);
        cuts[row * CUT + 1] = cut;
        cuts[row * CUT + 2] = last;
        cuts[row * CUT + 3] = u32::reinterpret(min_p);
    }
}

/// As [`above`], without those of the order itself.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn strictly_above(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    row: usize,
    greatest: f32,
    order: u32,
    by_mass: bool,
    shared: &mut Shared<[f32]>,
    vocabulary: usize,
) -> f32 {
    above(logits, rules, banned, row, greatest, order + 1u32, 0xffffffffu32.runtime(), by_mass, shared, vocabulary)
}
