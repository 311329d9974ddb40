//! Rotation of queries and keys, and what is appended to the cache.

use cubecl::prelude::*;

use super::elementwise::rotated;
use super::rms_norm::inverse_of_narrow;
use super::{CacheShape, Gpu, GpuBuffer, PagedRows};

const UNITS: usize = 64;

/// The gains `[head_dim]` of heads that are normalised before they are rotated.
#[derive(Clone, Debug)]
pub struct HeadNorms {
    /// Of the queries.
    pub query: GpuBuffer,
    /// Of the keys.
    pub key: GpuBuffer,
    /// Added to the mean of the squares.
    pub epsilon: f32,
}

/// Rotates queries and keys (rotate-half) by their positions, and writes keys and values to the cache.
///
/// `qkv` `[rows, (heads + 2 · kv_heads) · head_dim]`; `cos`, `sin` `[positions, head_dim / 2]`; `queries`
/// `[rows, heads, head_dim rounded up to four]`; `keys`, `values`: one layer of the cache (see [`CacheShape`]).
#[allow(clippy::too_many_arguments)]
pub fn rotate_and_append(
    gpu: &Gpu,
    shape: CacheShape,
    rows: &PagedRows,
    [cos, sin]: [&GpuBuffer; 2],
    norms: Option<&HeadNorms>,
    qkv: &GpuBuffer,
    queries: &GpuBuffer,
    [keys, values]: [&GpuBuffer; 2],
) {
    let [query, key] = norms.map_or([cos, sin], |norms| [&norms.query, &norms.key]);
    unsafe {
        rotate::launch_unchecked(
            &gpu.client,
            CubeCount::Static(rows.rows as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            qkv.arg(),
            cos.arg(),
            sin.arg(),
            query.arg(),
            key.arg(),
            rows.positions.arg(),
            rows.sequences.arg(),
            rows.tables.arg(),
            rows.width as u32,
            queries.arg(),
            keys.arg(),
            values.arg(),
            norms.map_or(0.0, |norms| norms.epsilon),
            shape,
            norms.is_some(),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn rotate(
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    query_gain: &[f32],
    key_gain: &[f32],
    positions: &[u32],
    sequences: &[u32],
    tables: &[u32],
    width: u32,
    queries: &mut [f32],
    keys: &mut [f32],
    values: &mut [f32],
    epsilon: f32,
    #[comptime] shape: CacheShape,
    #[comptime] normalised: bool,
) {
    let dim = comptime!(shape.head_dim);
    let half = comptime!(shape.head_dim / 2);
    let heads = comptime!(shape.heads);
    let rotated_heads = comptime!(shape.heads + shape.kv_heads);
    let padded = comptime!(shape.padded());
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let start = row * comptime!((shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    let position = positions[row] as usize;
    let slot = position % 16;
    let block = tables[sequences[row] as usize * width as usize + position / 16] as usize * comptime!(shape.kv_heads);

    let mut inverse = Shared::<[f32]>::new_slice(rotated_heads);
    if comptime!(normalised) {
        let mut head = unit;
        while head < rotated_heads {
            inverse[head] = inverse_of_narrow::<f32>(qkv, start + head * dim, dim as u32, epsilon);
            head += UNITS;
        }
        sync_cube();
    }
    let mut pair = unit;
    while pair < comptime!(rotated_heads * half) {
        let head = pair / half;
        let i = pair % half;
        let mut a = qkv[start + head * dim + i];
        let mut b = qkv[start + head * dim + half + i];
        if comptime!(normalised) {
            let factor = inverse[head];
            if head < heads {
                a = a * factor * query_gain[i];
                b = b * factor * query_gain[half + i];
            } else {
                a = a * factor * key_gain[i];
                b = b * factor * key_gain[half + i];
            }
        }
        let (low, high) = rotated(a, b, cos[position * half + i], sin[position * half + i]);
        if head < heads {
            queries[(row * heads + head) * padded + i] = low;
            queries[(row * heads + head) * padded + half + i] = high;
        } else {
            let at = (block + head - heads) * comptime!(padded * 16);
            keys[at + i / 4 * 64 + slot * 4 + i % 4] = low;
            keys[at + (half + i) / 4 * 64 + slot * 4 + (half + i) % 4] = high;
        }
        pair += UNITS;
    }
    let mut element = unit;
    while element < comptime!(shape.kv_heads * shape.head_dim) {
        let at = ((block + element / dim) * 16 + slot) * padded + element % dim;
        values[at] = qkv[start + rotated_heads * dim + element];
        element += UNITS;
    }
    if comptime!(padded > dim) {
        let mut head = unit;
        while head < heads {
            #[unroll]
            for i in dim..padded {
                queries[(row * heads + head) * padded + i] = 0.0f32;
            }
            head += UNITS;
        }
    }
}
