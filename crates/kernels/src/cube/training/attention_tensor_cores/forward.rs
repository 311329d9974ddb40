//! Attention of queries to the keys before them.

use cubecl::prelude::*;

use super::super::super::attention::Tile;
use super::super::attention_kernels::UNSEEN;
use super::UNITS;
use super::lines::{F4, U2, U4, Variant, Ways, add_lines, own_lines, products, stage, store, zeros};

/// Goes through the keys twice: for the sums of exponentials, then for the values, so that nothing that is summed changes its scale.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    tiles: &[u32],
    out: &mut [Vector<F, Const<4>>],
    log_sums: &mut [f32],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let (width, stride, kv_stride) = comptime!(variant.quads());
    let heads = comptime!(variant.shape.heads);
    let emulated = comptime!(variant.emulated);
    let tile = Tile::read(tiles, CUBE_POS_X as usize);
    let head = CUBE_POS_Y as usize;
    let kv_column = head / comptime!(variant.shape.heads / variant.shape.kv_heads) * width;
    let unit = UNIT_POS as usize % 32;
    let row = tile.first + UNIT_POS as usize / 32 * 16 + unit / 4;
    let last = tile.first + tile.count;
    let mut keys = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut values = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    // Of the four units of a line, its greatest score and its sum.
    let mut parts = Shared::<[f32]>::new_slice(comptime!(4 * UNITS));
    let mut queries = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(q, &mut queries, row, last, stride, head * width, variant);
    let position = tile.shared_length + row - tile.own_start;
    let end = tile.shared_length + last - tile.own_start;
    // Of two lines.
    let mut most = Array::<f32>::new(2usize);
    let mut total = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        most[half] = f32::new(UNSEEN);
        total[half] = 0.0f32;
    }
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        let ways = comptime!(Ways::Along);
        stage::<F>(k, &mut keys, &mut values, &tile, begin, end, kv_stride, kv_column, ways, variant);
        sync_cube();
        #[unroll(!emulated)]
        for instruction in 0..comptime!(variant.others / 8) {
            let scores = products(&queries, &keys, instruction, &mut lent_a, &mut lent_b, variant);
            let first = begin + instruction / 2 * 16 + unit % 4 * 4 + instruction % 2 * 2;
            #[unroll]
            for half in 0..2usize {
                let mut score = Array::<f32>::new(2usize);
                #[unroll]
                for beside in 0..2usize {
                    score[beside] = f32::new(UNSEEN);
                    if first + beside <= position + half * 8 {
                        score[beside] = scores.extract(comptime!(half * 2 + beside)) * scale;
                    }
                }
                let higher = max(most[half], max(score[0], score[1]));
                // A unit that has seen no key yet has a sum of zero, whatever it is multiplied by.
                let kept = total[half] * f32::exp(most[half] - higher);
                total[half] = kept + weight_of(score[0], higher) + weight_of(score[1], higher);
                most[half] = higher;
            }
        }
        begin += comptime!(variant.others);
    }
    let mut log_sum = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        sync_cube();
        parts[UNIT_POS as usize * 2] = most[half];
        parts[UNIT_POS as usize * 2 + 1] = total[half];
        sync_cube();
        let line = UNIT_POS as usize / 4 * 8;
        let mut highest = parts[line];
        #[unroll]
        for other in 1..4usize {
            highest = max(highest, parts[line + other * 2]);
        }
        let mut sum = 0.0f32;
        #[unroll]
        for other in 0..4usize {
            sum = fma(f32::exp(parts[line + other * 2] - highest), parts[line + other * 2 + 1], sum);
        }
        log_sum[half] = highest + f32::ln(sum);
        if row + half * 8 < last && unit % 4 == 0 {
            log_sums[(row + half * 8) * heads + head] = log_sum[half];
        }
    }
    let mut sums = zeros(variant);
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        let (along, across) = comptime!((Ways::Along, Ways::Across));
        // A way that is not staged writes nothing.
        stage::<F>(k, &mut keys, &mut lent_b, &tile, begin, end, kv_stride, kv_column, along, variant);
        stage::<F>(v, &mut lent_b, &mut values, &tile, begin, end, kv_stride, kv_column, across, variant);
        sync_cube();
        #[unroll(!emulated)]
        for sixteen in 0..comptime!(variant.others / 16) {
            let mut weights = Array::<F4>::new(2usize);
            #[unroll]
            for other in 0..2usize {
                let instruction = sixteen * 2 + other;
                let scores = products(&queries, &keys, instruction, &mut lent_a, &mut lent_b, variant);
                let mut weight = F4::new(0.0f32);
                #[unroll]
                for i in 0..4usize {
                    let half = comptime!(i / 2);
                    let key = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + i % 2);
                    if key <= position + half * 8 {
                        weight.insert(i, f32::exp(scores.extract(i) * scale - log_sum[half]));
                    }
                }
                weights[other] = weight;
            }
            add_lines(weights[0], weights[1], &values, sixteen, &mut sums, &mut lent_a, &mut lent_b, variant);
        }
        begin += comptime!(variant.others);
    }
    store::<F>(&sums, out, row, last, stride, head * width, variant);
}

/// The exponential of a score below the highest, of which there is none for keys that are not seen.
#[cube]
fn weight_of(score: f32, highest: f32) -> f32 {
    let mut weight = 0.0f32;
    if score > f32::new(UNSEEN) {
        weight = f32::exp(score - highest);
    }
    weight
}
