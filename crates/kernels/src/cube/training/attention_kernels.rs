//! Kernels of attention: forward, and the gradients of queries and of keys and values.

use cubecl::prelude::*;

use super::super::attention::Tile;
use super::attention::{KEYS, LANES, QUERIES};
use super::spans::{KEY_TILE, VISIT};
use crate::AttentionShape;

/// A score that no query gives.
pub(super) const UNSEEN: f32 = -1.0e30;

/// Copies vectors of one head from rows one below the other, zeros where there are no more.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load_rows<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    first: usize,
    end: usize,
    stride: usize,
    column: usize,
    #[comptime] rows: usize,
    #[comptime] dim: usize,
    #[comptime] units: usize,
) {
    let mut index = UNIT_POS as usize;
    while index < comptime!(rows * dim) {
        let row = first + index / dim;
        let mut value = 0.0f32;
        if row < end {
            value = f32::cast_from(from[row * stride + column + index % dim]);
        }
        to[index] = value;
        index += units;
    }
}

/// As [`load_rows`], of keys or values by their positions in the sequence.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load_keys<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    tile: &Tile,
    begin: usize,
    end: usize,
    stride: usize,
    column: usize,
    #[comptime] dim: usize,
    #[comptime] units: usize,
) {
    let mut index = UNIT_POS as usize;
    while index < comptime!(KEYS * dim) {
        let position = begin + index / dim;
        let mut value = 0.0f32;
        if position < end {
            value = f32::cast_from(from[tile.key_row(position) * stride + column + index % dim]);
        }
        to[index] = value;
        index += units;
    }
}

#[cube]
fn dot(a: &Shared<[f32]>, a_row: usize, b: &Shared<[f32]>, b_row: usize, #[comptime] dim: usize) -> f32 {
    let mut sum = 0.0f32;
    let mut column = 0usize;
    while column < dim {
        sum = fma(a[a_row * dim + column], b[b_row * dim + column], sum);
        column += 1;
    }
    sum
}

/// Adds multiples of the rows of a tile to the columns of a unit, which are `lane`, `lane + LANES` and so on.
#[cube]
fn accumulate(
    weights: &Shared<[f32]>,
    first: usize,
    tile: &Shared<[f32]>,
    lane: usize,
    sums: &mut Array<f32>,
    #[comptime] rows: usize,
    #[comptime] dim: usize,
) {
    let mut row = 0usize;
    while row < rows {
        let weight = weights[first + row];
        #[unroll]
        for part in 0..comptime!(dim.div_ceil(LANES)) {
            let column = lane + part * LANES;
            if column < dim {
                sums[part] = fma(weight, tile[row * dim + column], sums[part]);
            }
        }
        row += 1;
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    tiles: &[u32],
    out: &mut [F],
    log_sums: &mut [f32],
    scale: f32,
    #[comptime] shape: AttentionShape,
) {
    let dim = comptime!(shape.head_dim);
    let units = comptime!(QUERIES * LANES);
    let (stride, kv_stride) = comptime!((shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim));
    let parts = comptime!(shape.head_dim.div_ceil(LANES));
    let tile = Tile::read(tiles, CUBE_POS_X as usize);
    let head = CUBE_POS_Y as usize;
    let kv_column = head / comptime!(shape.heads / shape.kv_heads) * dim;
    let (query, lane) = (UNIT_POS as usize / LANES, UNIT_POS as usize % LANES);
    let mut queries = Shared::<[f32]>::new_slice(comptime!(QUERIES * shape.head_dim));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut values = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut scores = Shared::<[f32]>::new_slice(comptime!(QUERIES * KEYS));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(QUERIES * KEYS));
    load_rows::<F>(q, &mut queries, tile.first, tile.first + tile.count, stride, head * dim, QUERIES, dim, units);

    let position = tile.shared_length + tile.first + query - tile.own_start;
    let end = tile.shared_length + tile.first + tile.count - tile.own_start;
    let mut most = f32::new(UNSEEN);
    let mut total = 0.0f32;
    let mut sums = Array::<f32>::new(parts);
    #[unroll]
    for part in 0..parts {
        sums[part] = 0.0f32;
    }
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        load_keys::<F>(k, &mut keys, &tile, begin, end, kv_stride, kv_column, dim, units);
        load_keys::<F>(v, &mut values, &tile, begin, end, kv_stride, kv_column, dim, units);
        sync_cube();
        let mut slot = lane.clone();
        while slot < KEYS {
            let mut score = f32::new(UNSEEN);
            if begin + slot <= position {
                score = dot(&queries, query, &keys, slot, dim) * scale;
            }
            scores[query * KEYS + slot] = score;
            slot += LANES;
        }
        sync_cube();
        let mut higher = most;
        let mut slot = 0usize;
        while slot < KEYS {
            higher = max(higher, scores[query * KEYS + slot]);
            slot += 1;
        }
        let mut slot = lane.clone();
        while slot < KEYS {
            let mut weight = 0.0f32;
            if begin + slot <= position {
                weight = f32::exp(scores[query * KEYS + slot] - higher);
            }
            weights[query * KEYS + slot] = weight;
            slot += LANES;
        }
        sync_cube();
        let kept = f32::exp(most - higher);
        total *= kept;
        #[unroll]
        for part in 0..parts {
            sums[part] = sums[part] * kept;
        }
        let mut slot = 0usize;
        while slot < KEYS {
            total += weights[query * KEYS + slot];
            slot += 1;
        }
        accumulate(&weights, query * KEYS, &values, lane, &mut sums, KEYS, dim);
        most = higher;
        begin += KEYS;
    }
    if query < tile.count {
        let row = tile.first + query;
        #[unroll]
        for part in 0..parts {
            let column = lane + part * LANES;
            if column < dim {
                out[row * stride + head * dim + column] = F::cast_from(sums[part] / total);
            }
        }
        if lane == 0 {
            log_sums[row * comptime!(shape.heads) + head] = most + f32::ln(total);
        }
    }
}

/// The product of each row's output with its gradient, by head.
#[cube(launch_unchecked)]
pub(super) fn differences<F: Float>(upstream: &[F], output: &[F], out: &mut [f32], count: u32, dim: u32) {
    let dim = dim as usize;
    let mut index = ABSOLUTE_POS;
    while index < count as usize {
        let mut sum = 0.0f32;
        let mut column = 0usize;
        while column < dim {
            let at = index * dim + column;
            sum = fma(f32::cast_from(upstream[at]), f32::cast_from(output[at]), sum);
            column += 1;
        }
        out[index] = sum;
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend_backward<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    tiles: &[u32],
    upstream: &[F],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_q: &mut [F],
    scale: f32,
    #[comptime] shape: AttentionShape,
) {
    let dim = comptime!(shape.head_dim);
    let units = comptime!(QUERIES * LANES);
    let (stride, kv_stride) = comptime!((shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim));
    let parts = comptime!(shape.head_dim.div_ceil(LANES));
    let tile = Tile::read(tiles, CUBE_POS_X as usize);
    let head = CUBE_POS_Y as usize;
    let kv_column = head / comptime!(shape.heads / shape.kv_heads) * dim;
    let (query, lane) = (UNIT_POS as usize / LANES, UNIT_POS as usize % LANES);
    let mut queries = Shared::<[f32]>::new_slice(comptime!(QUERIES * shape.head_dim));
    let mut above = Shared::<[f32]>::new_slice(comptime!(QUERIES * shape.head_dim));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut values = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(QUERIES * KEYS));
    let last = tile.first + tile.count;
    load_rows::<F>(q, &mut queries, tile.first, last, stride, head * dim, QUERIES, dim, units);
    load_rows::<F>(upstream, &mut above, tile.first, last, stride, head * dim, QUERIES, dim, units);

    let position = tile.shared_length + tile.first + query - tile.own_start;
    let end = tile.shared_length + last - tile.own_start;
    let mut log_sum = 0.0f32;
    let mut of_output = 0.0f32;
    if query < tile.count {
        let at = (tile.first + query) * comptime!(shape.heads) + head;
        log_sum = log_sums[at];
        of_output = of_outputs[at];
    }
    let mut sums = Array::<f32>::new(parts);
    #[unroll]
    for part in 0..parts {
        sums[part] = 0.0f32;
    }
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        load_keys::<F>(k, &mut keys, &tile, begin, end, kv_stride, kv_column, dim, units);
        load_keys::<F>(v, &mut values, &tile, begin, end, kv_stride, kv_column, dim, units);
        sync_cube();
        let mut slot = lane.clone();
        while slot < KEYS {
            let mut slope = 0.0f32;
            if begin + slot <= position && query < tile.count {
                let weight = f32::exp(dot(&queries, query, &keys, slot, dim) * scale - log_sum);
                slope = weight * (dot(&above, query, &values, slot, dim) - of_output) * scale;
            }
            slopes[query * KEYS + slot] = slope;
            slot += LANES;
        }
        sync_cube();
        accumulate(&slopes, query * KEYS, &keys, lane, &mut sums, KEYS, dim);
        begin += KEYS;
    }
    if query < tile.count {
        #[unroll]
        for part in 0..parts {
            let column = lane + part * LANES;
            if column < dim {
                d_q[(tile.first + query) * stride + head * dim + column] = F::cast_from(sums[part]);
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn keys_backward<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    tiles: &[u32],
    visits: &[u32],
    upstream: &[F],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_k: &mut [F],
    d_v: &mut [F],
    scale: f32,
    #[comptime] shape: AttentionShape,
) {
    let dim = comptime!(shape.head_dim);
    let units = comptime!(KEYS * LANES);
    let group = comptime!(shape.heads / shape.kv_heads);
    let (stride, kv_stride) = comptime!((shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim));
    let parts = comptime!(shape.head_dim.div_ceil(LANES));
    let line = CUBE_POS_X as usize * KEY_TILE;
    let (first, count) = (tiles[line] as usize, tiles[line + 1] as usize);
    let kv_head = CUBE_POS_Y as usize;
    let (key, lane) = (UNIT_POS as usize / LANES, UNIT_POS as usize % LANES);
    let mut queries = Shared::<[f32]>::new_slice(comptime!(QUERIES * shape.head_dim));
    let mut above = Shared::<[f32]>::new_slice(comptime!(QUERIES * shape.head_dim));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut values = Shared::<[f32]>::new_slice(comptime!(KEYS * shape.head_dim));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(KEYS * QUERIES));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(KEYS * QUERIES));
    load_rows::<F>(k, &mut keys, first, first + count, kv_stride, kv_head * dim, KEYS, dim, units);
    load_rows::<F>(v, &mut values, first, first + count, kv_stride, kv_head * dim, KEYS, dim, units);
    let mut key_sums = Array::<f32>::new(parts);
    let mut value_sums = Array::<f32>::new(parts);
    #[unroll]
    for part in 0..parts {
        key_sums[part] = 0.0f32;
        value_sums[part] = 0.0f32;
    }
    let row = first + key;
    let mut visit = tiles[line + 2] as usize;
    while visit < tiles[line + 3] as usize {
        let at = visit * VISIT;
        let (query_first, query_end) = (visits[at] as usize, visits[at + 1] as usize);
        let (from, to) = (visits[at + 2] as usize, visits[at + 3] as usize);
        let is_own = visits[at + 4] == 1u32;
        let mut of_group = 0usize;
        while of_group < group {
            let head = kv_head * group + of_group;
            let mut begin = query_first;
            while begin < query_end {
                sync_cube();
                load_rows::<F>(q, &mut queries, begin, query_end, stride, head * dim, QUERIES, dim, units);
                load_rows::<F>(upstream, &mut above, begin, query_end, stride, head * dim, QUERIES, dim, units);
                sync_cube();
                // As many lanes as queries.
                let query = begin + lane;
                let mut weight = 0.0f32;
                let mut slope = 0.0f32;
                let is_seen = query < query_end && key < count && from <= row && row < to;
                if is_seen && (!is_own || row <= query) {
                    let at = query * comptime!(shape.heads) + head;
                    weight = f32::exp(dot(&queries, lane, &keys, key, dim) * scale - log_sums[at]);
                    slope = weight * (dot(&above, lane, &values, key, dim) - of_outputs[at]) * scale;
                }
                weights[key * QUERIES + lane] = weight;
                slopes[key * QUERIES + lane] = slope;
                sync_cube();
                accumulate(&weights, key * QUERIES, &above, lane, &mut value_sums, QUERIES, dim);
                accumulate(&slopes, key * QUERIES, &queries, lane, &mut key_sums, QUERIES, dim);
                begin += QUERIES;
            }
            of_group += 1;
        }
        visit += 1;
    }
    if key < count {
        #[unroll]
        for part in 0..parts {
            let column = lane + part * LANES;
            if column < dim {
                let at = row * kv_stride + kv_head * dim + column;
                d_k[at] = F::cast_from(key_sums[part]);
                d_v[at] = F::cast_from(value_sums[part]);
            }
        }
    }
}
