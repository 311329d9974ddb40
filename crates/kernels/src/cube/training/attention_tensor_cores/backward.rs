//! The gradients of queries, and of keys with their values.

use cubecl::prelude::*;

use super::super::super::attention::Tile;
use super::super::spans::{KEY_TILE, VISIT};
use super::UNITS;
use super::lines::{F4, U2, U4, Variant, Ways, add_lines, own_lines, products, stage, store, zeros};

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn queries_gradient<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    upstream: &[Vector<F, Const<4>>],
    tiles: &[u32],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_q: &mut [Vector<F, Const<4>>],
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
    let mut keys_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut keys_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut values_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut unused = Shared::<[U2]>::new_slice(1usize);
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut queries = Array::<U4>::new(comptime!(variant.chunks()));
    let mut above = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(q, &mut queries, row, last, stride, head * width, variant);
    own_lines::<F>(upstream, &mut above, row, last, stride, head * width, variant);
    // Of two lines.
    let mut log_sum = Array::<f32>::new(2usize);
    let mut of_output = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        log_sum[half] = 0.0f32;
        of_output[half] = 0.0f32;
        if row + half * 8 < last {
            log_sum[half] = log_sums[(row + half * 8) * heads + head];
            of_output[half] = of_outputs[(row + half * 8) * heads + head];
        }
    }
    let mut sums = zeros(variant);
    let position = tile.shared_length + row - tile.own_start;
    let end = tile.shared_length + last - tile.own_start;
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        stage::<F>(
            k,
            &mut keys_along,
            &mut keys_across,
            &tile,
            begin,
            end,
            kv_stride,
            kv_column,
            comptime!(Ways::Both),
            variant,
        );
        stage::<F>(
            v,
            &mut values_along,
            &mut unused,
            &tile,
            begin,
            end,
            kv_stride,
            kv_column,
            comptime!(Ways::Along),
            variant,
        );
        sync_cube();
        #[unroll(!emulated)]
        for sixteen in 0..comptime!(variant.others / 16) {
            let mut slopes = Array::<F4>::new(2usize);
            #[unroll]
            for other in 0..2usize {
                let instruction = sixteen * 2 + other;
                let scores = products(&queries, &keys_along, instruction, &mut lent_a, &mut lent_b, variant);
                let d_weights = products(&above, &values_along, instruction, &mut lent_a, &mut lent_b, variant);
                let mut slope = F4::new(0.0f32);
                #[unroll]
                for i in 0..4usize {
                    let half = comptime!(i / 2);
                    let key = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + i % 2);
                    if key <= position + half * 8 {
                        let weight = f32::exp(scores.extract(i) * scale - log_sum[half]);
                        slope.insert(i, weight * (d_weights.extract(i) - of_output[half]) * scale);
                    }
                }
                slopes[other] = slope;
            }
            add_lines(slopes[0], slopes[1], &keys_across, sixteen, &mut sums, &mut lent_a, &mut lent_b, variant);
        }
        begin += comptime!(variant.others);
    }
    store::<F>(&sums, d_q, row, last, stride, head * width, variant);
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn keys_gradient<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    upstream: &[Vector<F, Const<4>>],
    tiles: &[u32],
    visits: &[u32],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_k: &mut [Vector<F, Const<4>>],
    d_v: &mut [Vector<F, Const<4>>],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let (width, stride, kv_stride) = comptime!(variant.quads());
    let heads = comptime!(variant.shape.heads);
    let group = comptime!(variant.shape.heads / variant.shape.kv_heads);
    let emulated = comptime!(variant.emulated);
    let line = CUBE_POS_X as usize * KEY_TILE;
    let first = tiles[line] as usize;
    let last = first + tiles[line + 1] as usize;
    let kv_head = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize % 32;
    let row = first + UNIT_POS as usize / 32 * 16 + unit / 4;
    let mut queries_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut queries_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut above_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut above_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut keys = Array::<U4>::new(comptime!(variant.chunks()));
    let mut values = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(k, &mut keys, row, last, kv_stride, kv_head * width, variant);
    own_lines::<F>(v, &mut values, row, last, kv_stride, kv_head * width, variant);
    let mut key_sums = zeros(variant);
    let mut value_sums = zeros(variant);
    // Queries are one below the other.
    let rows = Tile::of_all_rows();
    let mut visit = tiles[line + 2] as usize;
    while visit < tiles[line + 3] as usize {
        let at = visit * VISIT;
        let (query_first, query_end) = (visits[at] as usize, visits[at + 1] as usize);
        let (from, to) = (visits[at + 2] as usize, visits[at + 3] as usize);
        let is_own = visits[at + 4] == 1u32;
        let mut of_group = 0usize;
        while of_group < group {
            let head = kv_head * group + of_group;
            let column = head * width;
            let mut begin = query_first;
            while begin < query_end {
                sync_cube();
                stage::<F>(
                    q,
                    &mut queries_along,
                    &mut queries_across,
                    &rows,
                    begin,
                    query_end,
                    stride,
                    column,
                    comptime!(Ways::Both),
                    variant,
                );
                stage::<F>(
                    upstream,
                    &mut above_along,
                    &mut above_across,
                    &rows,
                    begin,
                    query_end,
                    stride,
                    column,
                    comptime!(Ways::Both),
                    variant,
                );
                sync_cube();
                #[unroll(!emulated)]
                for sixteen in 0..comptime!(variant.others / 16) {
                    let mut weights = Array::<F4>::new(2usize);
                    let mut slopes = Array::<F4>::new(2usize);
                    #[unroll]
                    for other in 0..2usize {
                        let instruction = sixteen * 2 + other;
                        let scores = products(&keys, &queries_along, instruction, &mut lent_a, &mut lent_b, variant);
                        let d_weights = products(&values, &above_along, instruction, &mut lent_a, &mut lent_b, variant);
                        let mut weight = F4::new(0.0f32);
                        let mut slope = F4::new(0.0f32);
                        #[unroll]
                        for beside in 0..2usize {
                            let query = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + beside);
                            if query < query_end {
                                let log_sum = log_sums[query * heads + head];
                                let of_output = of_outputs[query * heads + head];
                                #[unroll]
                                for half in 0..2usize {
                                    let i = comptime!(half * 2 + beside);
                                    let key = row + half * 8;
                                    if from <= key && key < to && (!is_own || key <= query) {
                                        let share = f32::exp(scores.extract(i) * scale - log_sum);
                                        weight.insert(i, share);
                                        slope.insert(i, share * (d_weights.extract(i) - of_output) * scale);
                                    }
                                }
                            }
                        }
                        weights[other] = weight;
                        slopes[other] = slope;
                    }
                    add_lines(
                        weights[0],
                        weights[1],
                        &above_across,
                        sixteen,
                        &mut value_sums,
                        &mut lent_a,
                        &mut lent_b,
                        variant,
                    );
                    add_lines(
                        slopes[0],
                        slopes[1],
                        &queries_across,
                        sixteen,
                        &mut key_sums,
                        &mut lent_a,
                        &mut lent_b,
                        variant,
                    );
                }
                begin += comptime!(variant.others);
            }
            of_group += 1;
        }
        visit += 1;
    }
    store::<F>(&key_sums, d_k, row, last, kv_stride, kv_head * width, variant);
    store::<F>(&value_sums, d_v, row, last, kv_stride, kv_head * width, variant);
}
