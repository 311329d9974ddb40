//! A draw's rule, and what it says of one token.

use cubecl::prelude::*;

use super::{CUT, RULE};

/// A number whose order is that of the floats.
#[cube]
pub(super) fn order_of(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let mut order = bits | 0x80000000u32;
    if bits >= 0x80000000u32 {
        order = bits ^ 0xffffffffu32;
    }
    order
}

#[cube]
pub(super) fn is_banned(token: usize, row: usize, rules: &[u32], banned: &[u32]) -> bool {
    let mut found = false;
    let mut entry = rules[row * RULE + 5] as usize;
    while entry < rules[row * RULE + 6] as usize {
        if banned[entry] as usize == token {
            found = true;
        }
        entry += 1;
    }
    found
}

/// The mass of a logit below the greatest.
#[cube]
pub(super) fn mass_of(logit: f32, greatest: f32, row: usize, rules: &[u32]) -> f32 {
    let temperature = f32::reinterpret(rules[row * RULE]);
    let mut mass = (logit - greatest).exp();
    if temperature > 0.0f32 {
        mass = ((logit - greatest) / temperature).exp();
    }
    mass
}

/// The mass of a token where it is kept, else 0.
#[cube]
pub(super) fn kept_mass(
    logits: &[f32],
    rules: &[u32],
    banned: &[u32],
    cuts: &[u32],
    row: usize,
    token: usize,
    vocabulary: usize,
) -> f32 {
    let mut mass = 0.0f32;
    if token < vocabulary {
        let logit = logits[row * vocabulary + token];
        let order = order_of(logit);
        let cut = cuts[row * CUT + 1];
        if order > cut || (order == cut && token as u32 <= cuts[row * CUT + 2]) {
            if !is_banned(token, row, rules, banned) {
                let found = mass_of(logit, f32::reinterpret(cuts[row * CUT]), row, rules);
                if found >= f32::reinterpret(cuts[row * CUT + 3]) {
                    mass = found;
                }
            }
        }
    }
    mass
}
