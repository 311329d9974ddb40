//! Products in f32 by the units of any device.
//!
//! The outputs of a weight are cut in tiles of 32. In a tile, sixteen bytes of one output lie beside the same inputs of the next, so
//! that the units of a cube read what follows one another.

use cubecl::prelude::*;

use super::{Linear, LinearOutput, Place, to_bf16, value_at};
use crate::cube::elementwise::gated;
use crate::cube::{Gpu, GpuBuffer};

type U4 = Vector<u32, Const<4>>;
type F4 = Vector<f32, Const<4>>;

/// Outputs that a cube computes.
pub(super) const LANES: usize = 32;
/// Parts in which a cube sums each of them.
pub(super) const SLICES: usize = 8;
/// Inputs that a unit takes from a weight at a time.
const CHUNK: usize = 8;
/// Inputs that a cube stages at a time.
const STAGE: usize = 2 * SLICES * CHUNK;

/// A kernel of its own; all shapes of weights share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    /// Rows of a cube, by four.
    quads: usize,
    bf16: bool,
    bias: bool,
    output: LinearOutput,
}

/// Vectors of sixteen bytes in a chunk of one output.
fn pieces(bf16: bool) -> usize {
    if bf16 { 1 } else { 2 }
}

/// Words of one output, which are not next to one another.
pub(super) fn words_of_an_output(inner: usize, bf16: bool) -> usize {
    inner.div_ceil(STAGE) * STAGE * pieces(bf16) / 2
}

/// The place of a word of an output, of which each has so many.
#[cube]
pub(in crate::cube) fn word_at(output: usize, word: usize, words: usize) -> usize {
    ((output / 32 * words / 4 + word / 4) * 32 + output % 32) * 4 + word % 4
}

/// Lays a matrix out at its place in a weight.
pub(super) fn fill(gpu: &Gpu, linear: &Linear, matrix: &GpuBuffer, place: Place) {
    let Linear { inner, bf16, .. } = *linear;
    let per_row = inner.div_ceil(CHUNK) * pieces(bf16);
    unsafe {
        pack::launch_unchecked(
            &gpu.client,
            CubeCount::Static(place.rows.div_ceil(LANES) as u32, per_row.div_ceil(SLICES) as u32, 1),
            CubeDim::new_2d(LANES as u32, SLICES as u32),
            matrix.arg(),
            linear.packed.quads(),
            place.rows as u32,
            place.group as u32,
            place.stride as u32,
            place.start as u32,
            inner as u32,
            (inner.div_ceil(STAGE) * STAGE / CHUNK * pieces(bf16)) as u32,
            bf16,
        );
    }
}

/// See [`Linear::forward`].
pub(super) fn forward(gpu: &Gpu, linear: &Linear, x: &GpuBuffer, rows: usize, output: LinearOutput, out: &GpuBuffer) {
    // Few rows share a cube where there are few; the order of sums is the same.
    let quads = if rows <= 4 {
        1
    } else if rows <= 8 {
        2
    } else {
        4
    };
    let variant = Variant { quads, bf16: linear.bf16, bias: linear.bias.is_some(), output };
    let tiles = linear.packed.len() / (LANES * words_of_an_output(linear.inner, linear.bf16));
    unsafe {
        product::launch_unchecked(
            &gpu.client,
            CubeCount::Static(tiles as u32, rows.div_ceil(4 * quads) as u32, 1),
            CubeDim::new_2d(LANES as u32, SLICES as u32),
            linear.packed.quads(),
            x.arg(),
            linear.bias.as_ref().unwrap_or(x).arg(),
            out.arg(),
            rows as u32,
            linear.inner as u32,
            linear.width(output) as u32,
            variant,
        );
    }
}

/// Sixteen bytes of a packed weight, of the row and piece of this unit.
#[cube(launch_unchecked)]
fn pack(
    matrix: &[f32],
    packed: &mut [U4],
    rows: u32,
    group: u32,
    stride: u32,
    start: u32,
    inner: u32,
    pieces: u32,
    #[comptime] bf16: bool,
) {
    let inner = inner as usize;
    let row = CUBE_POS_X * 32u32 + UNIT_POS_X;
    let piece = (CUBE_POS_Y * 8u32 + UNIT_POS_Y) as usize;
    if row < rows {
        let values = comptime!(if bf16 { 8usize } else { 4usize });
        if piece * values < inner {
            let mut vector = U4::empty();
            #[unroll]
            for lane in 0..4usize {
                if comptime!(bf16) {
                    let low = to_bf16(value_at(matrix, row as usize, piece * values + 2 * lane, inner));
                    let high = to_bf16(value_at(matrix, row as usize, piece * values + 2 * lane + 1, inner));
                    vector.insert(lane, low | (high << 16u32));
                } else {
                    let value = value_at(matrix, row as usize, piece * values + lane, inner);
                    vector.insert(lane, u32::reinterpret(value));
                }
            }
            let output = (start + row / group * stride + row % group) as usize;
            packed[(output / 32 * pieces as usize + piece) * 32 + output % 32] = vector;
        }
    }
}

/// 32 outputs of some rows. Unit `(lane, slice)` sums the chunks `slice`, `slice + 8`, … of output `lane`; the slices are then
/// added in their order.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn product(
    weight: &[U4],
    x: &[f32],
    bias: &[f32],
    out: &mut [f32],
    rows: u32,
    inner: u32,
    width: u32,
    #[comptime] variant: Variant,
) {
    let quads = comptime!(variant.quads);
    let pieces = comptime!(pieces(variant.bf16));
    let inner = inner as usize;
    let width = width as usize;
    let stages = inner.div_ceil(STAGE);
    let lane = UNIT_POS_X as usize;
    let slice = UNIT_POS_Y as usize;
    let unit = UNIT_POS as usize;
    let tile = CUBE_POS_X as usize;
    let first = CUBE_POS_Y as usize * comptime!(4 * quads);
    let rows = rows as usize;

    // Four rows of one input are a vector; the sums of the slices take the same memory afterwards.
    let mut shared = Shared::<[F4]>::new_slice(comptime!(if STAGE * quads > 256 { STAGE * quads } else { 256usize }));
    let mut sums = Array::<F4>::new(quads);
    #[unroll]
    for quad in 0..quads {
        sums[quad] = F4::new(0.0f32);
    }
    let mut stage = 0usize;
    while stage < stages {
        sync_cube();
        let mut slot = unit;
        while slot < comptime!(STAGE * quads) {
            let column = stage * STAGE + slot % STAGE;
            let row = first + slot / STAGE * 4;
            let mut values = F4::new(0.0f32);
            if column < inner {
                #[unroll]
                for r in 0..4usize {
                    if row + r < rows {
                        values.insert(r, x[(row + r) * inner + column]);
                    }
                }
            }
            shared[slot % STAGE * quads + slot / STAGE] = values;
            slot += 256usize;
        }
        sync_cube();
        #[unroll]
        for turn in 0..2usize {
            let chunk = turn * 8 + slice;
            let at = ((tile * stages + stage) * 16 + chunk) * pieces * 32 + lane;
            #[unroll]
            for piece in 0..pieces {
                let vector = weight[at + piece * 32];
                #[unroll]
                for word in 0..4usize {
                    let bits = vector.extract(word);
                    if comptime!(variant.bf16) {
                        let column = chunk * 8 + word * 2;
                        multiply_add(f32::reinterpret(bits << 16u32), column, &shared, &mut sums, quads);
                        multiply_add(f32::reinterpret(bits & 0xffff0000u32), column + 1, &shared, &mut sums, quads);
                    } else {
                        let column = chunk * 8 + piece * 4 + word;
                        multiply_add(f32::reinterpret(bits), column, &shared, &mut sums, quads);
                    }
                }
            }
        }
        stage += 1;
    }
    #[unroll]
    for quad in 0..quads {
        sync_cube();
        shared[unit] = sums[quad];
        sync_cube();
        // Another slice stores each quad, so that its units are not always the same ones.
        if slice == quad {
            let row = first + quad * 4;
            if comptime!(variant.output == LinearOutput::Gated) {
                let column = tile * 16 + lane;
                if lane < 16 {
                    if column < width {
                        let mut gate = all_slices(&shared, lane);
                        let mut up = all_slices(&shared, lane + 16);
                        if comptime!(variant.bias) {
                            gate += F4::new(bias[column]);
                            up += F4::new(bias[width + column]);
                        }
                        #[unroll]
                        for r in 0..4usize {
                            if row + r < rows {
                                out[(row + r) * width + column] = gated(gate.extract(r), up.extract(r));
                            }
                        }
                    }
                }
            } else {
                let column = tile * 32 + lane;
                if column < width {
                    let mut added = 0.0f32;
                    if comptime!(variant.bias) {
                        added = bias[column];
                    }
                    let sum = all_slices(&shared, lane);
                    #[unroll]
                    for r in 0..4usize {
                        if row + r < rows {
                            let at = (row + r) * width + column;
                            let mut value = sum.extract(r);
                            if comptime!(variant.bias) {
                                value += added;
                            }
                            if comptime!(variant.output == LinearOutput::Add) {
                                value += out[at];
                            }
                            out[at] = value;
                        }
                    }
                }
            }
        }
    }
}

#[cube]
fn multiply_add(weight: f32, column: usize, shared: &Shared<[F4]>, sums: &mut Array<F4>, #[comptime] quads: usize) {
    let weight = F4::new(weight);
    #[unroll]
    for quad in 0..quads {
        sums[quad] = fma(weight, shared[column * quads + quad], sums[quad]);
    }
}

#[cube]
fn all_slices(shared: &Shared<[F4]>, lane: usize) -> F4 {
    let mut sum = shared[lane];
    #[unroll]
    for slice in 1..8usize {
        sum += shared[slice * 32 + lane];
    }
    sum
}
