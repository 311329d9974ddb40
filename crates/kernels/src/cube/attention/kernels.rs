//! The kernels of attention: the splits of a row's positions, and their sum.

use cubecl::prelude::*;

use super::place::Place;
use super::{CacheShape, F4, SPLIT, UNITS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub(super) shape: CacheShape,
    /// One split, which divides and writes to the output itself.
    pub(super) alone: bool,
    /// Keys and values are packed rows, and the logarithms of sums are wanted.
    pub(super) packed: bool,
}

/// The part of one split. The sum of the values, not divided by the sum of the weights; beside it the greatest score and that
/// sum.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend_split(
    queries: &[F4],
    keys: &[F4],
    values: &[F4],
    positions: &[u32],
    sequences: &[u32],
    tables: &[u32],
    line: u32,
    sums: &mut [F4],
    weights: &mut [f32],
    out: &mut [f32],
    log_sums: &mut [f32],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let shape = comptime!(variant.shape);
    let quads = comptime!(shape.quads());
    let group = comptime!(shape.group());
    let slices = comptime!(shape.slices());
    let split = CUBE_POS_X as usize;
    let head = CUBE_POS_Y as usize;
    let slot_of_row = CUBE_POS_Z as usize;
    let unit = UNIT_POS as usize;
    let place = Place::of(slot_of_row, positions, sequences, tables, line, variant);
    let length = place.length;
    let begin = split * SPLIT;
    let first = place.row * comptime!(shape.heads) + head * group;
    let first_part = slot_of_row * comptime!(shape.heads) + head * group;

    let mut query = Shared::<[F4]>::new_slice(comptime!(group * quads));
    let mut scores = Shared::<[f32]>::new_slice(comptime!(group * SPLIT));
    let mut greatest = Shared::<[f32]>::new_slice(comptime!(group * 16));
    let mut totals = Shared::<[f32]>::new_slice(comptime!(group * 16));
    let mut parts = Shared::<[F4]>::new_slice(UNITS);

    if begin < length {
        let mut i = unit;
        while i < comptime!(group * quads) {
            query[i] = queries[first * quads + i];
            i += UNITS;
        }
        sync_cube();
        #[unroll]
        for turn in 0..2usize {
            let slot = turn * UNITS + unit;
            let position = begin + slot;
            let mut score = Array::<f32>::new(group);
            #[unroll]
            for g in 0..group {
                score[g] = f32::new(-1.0e30);
            }
            if position < length {
                #[unroll]
                for g in 0..group {
                    score[g] = 0.0f32;
                }
                let (at, _) = place.vectors(tables, position, head, variant);
                let mut quad = 0usize;
                while quad < quads {
                    let key = keys[at + quad * comptime!(if variant.packed { 1usize } else { 16usize })];
                    #[unroll]
                    for g in 0..group {
                        let q = query[g * quads + quad];
                        let mut sum = score[g];
                        #[unroll]
                        for lane in 0..4usize {
                            sum = fma(q.extract(lane), key.extract(lane), sum);
                        }
                        score[g] = sum;
                    }
                    quad += 1;
                }
                #[unroll]
                for g in 0..group {
                    score[g] = score[g] * scale;
                }
            }
            #[unroll]
            for g in 0..group {
                scores[g * SPLIT + slot] = score[g];
            }
        }
        sync_cube();
        // Sixteen units look at the scores of one head.
        let lane = unit % 16;
        let mut g = unit / 16;
        while g < group {
            let mut most = scores[g * SPLIT + lane];
            let mut slot = lane + 16;
            while slot < SPLIT {
                most = max(most, scores[g * SPLIT + slot]);
                slot += 16;
            }
            greatest[g * 16 + lane] = most;
            g += 8;
        }
        sync_cube();
        let mut g = unit / 16;
        while g < group {
            let mut most = greatest[g * 16];
            let mut other = 1usize;
            while other < 16 {
                most = max(most, greatest[g * 16 + other]);
                other += 1;
            }
            let mut total = 0.0f32;
            let mut slot = lane.clone();
            while slot < SPLIT {
                let mut weight = 0.0f32;
                if begin + slot < length {
                    weight = (scores[g * SPLIT + slot] - most).exp();
                }
                scores[g * SPLIT + slot] = weight;
                total += weight;
                slot += 16;
            }
            totals[g * 16 + lane] = total;
            g += 8;
        }
        sync_cube();
        let mut sum = Array::<F4>::new(group);
        #[unroll]
        for g in 0..group {
            sum[g] = F4::new(0.0f32);
        }
        let column = unit % quads;
        let mut slot = unit / quads;
        if slot < slices {
            while slot < SPLIT {
                let position = begin + slot;
                if position < length {
                    let (_, at) = place.vectors(tables, position, head, variant);
                    let value = values[at + column];
                    #[unroll]
                    for g in 0..group {
                        sum[g] = fma(F4::new(scores[g * SPLIT + slot]), value, sum[g]);
                    }
                }
                slot += slices;
            }
        }
        let splits = CUBE_COUNT_X as usize;
        #[unroll]
        for g in 0..group {
            sync_cube();
            parts[unit] = sum[g];
            sync_cube();
            let part = (first_part + g) * splits + split;
            if unit < quads {
                let mut whole = parts[unit];
                #[unroll]
                for slice in 1..slices {
                    whole += parts[slice * quads + unit];
                }
                if comptime!(variant.alone) {
                    let total = sum_of_sixteen(&totals, g);
                    #[unroll]
                    for lane in 0..4usize {
                        let element = unit * 4 + lane;
                        if element < comptime!(shape.head_dim) {
                            out[(first + g) * comptime!(shape.head_dim) + element] = whole.extract(lane) / total;
                        }
                    }
                } else {
                    sums[part * quads + unit] = whole;
                }
            }
            if comptime!(!variant.alone || variant.packed) {
                if unit == 0 {
                    let mut most = greatest[g * 16];
                    let mut other = 1usize;
                    while other < 16 {
                        most = max(most, greatest[g * 16 + other]);
                        other += 1;
                    }
                    let total = sum_of_sixteen(&totals, g);
                    if comptime!(variant.alone) {
                        log_sums[first + g] = most + total.ln();
                    } else {
                        weights[part * 2] = most;
                        weights[part * 2 + 1] = total;
                    }
                }
            }
        }
    }
}

#[cube]
fn sum_of_sixteen(totals: &Shared<[f32]>, head: usize) -> f32 {
    let mut total = totals[head * 16];
    let mut other = 1usize;
    while other < 16 {
        total += totals[head * 16 + other];
        other += 1;
    }
    total
}

/// The splits of every head, added in their order.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn combine(
    sums: &[f32],
    weights: &[f32],
    positions: &[u32],
    sequences: &[u32],
    tables: &[u32],
    line: u32,
    splits: u32,
    out: &mut [f32],
    log_sums: &mut [f32],
    #[comptime] variant: Variant,
) {
    let shape = comptime!(variant.shape);
    let dim = comptime!(shape.head_dim);
    let slot = CUBE_POS_X as usize;
    let splits = splits as usize;
    let place = Place::of(slot, positions, sequences, tables, line, variant);
    let used = place.length.div_ceil(SPLIT);
    let mut element = UNIT_POS as usize;
    while element < comptime!(shape.heads * shape.head_dim) && used > 0 {
        let part = (slot * comptime!(shape.heads) + element / dim) * splits;
        let mut most = weights[part * 2];
        let mut split = 1usize;
        while split < used {
            most = max(most, weights[(part + split) * 2]);
            split += 1;
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        let mut split = 0usize;
        while split < used {
            let factor = (weights[(part + split) * 2] - most).exp();
            sum = fma(factor, sums[(part + split) * comptime!(shape.padded()) + element % dim], sum);
            total = fma(factor, weights[(part + split) * 2 + 1], total);
            split += 1;
        }
        out[place.row * comptime!(shape.heads * shape.head_dim) + element] = sum / total;
        if comptime!(variant.packed) {
            if element % dim == 0 {
                log_sums[place.row * comptime!(shape.heads) + element / dim] = most + total.ln();
            }
        }
        element += 256usize;
    }
}
