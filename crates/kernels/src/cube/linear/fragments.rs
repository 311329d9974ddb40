//! Products by tensor cores: `mma.sync.m16n8k16`, bf16 with sums in f32.
//!
//! A tile is sixteen outputs, a chunk sixteen inputs of it. The 256 numbers of a chunk lie as the 32 units of a warp hold them, sixteen
//! bytes each, so that a warp reads 512 bytes that follow one another. Eight rows are multiplied at a time; theirs lie alike. Which of
//! the sixteen inputs an instruction takes where is ours to say, as long as both sides agree: a unit has four that are adjacent.

use cubecl::prelude::*;

use super::{Linear, LinearOutput, Place, ProductPath, to_bf16, value_at};
use crate::cube::elementwise::{UNITS, cubes, gated};
use crate::cube::{Gpu, GpuBuffer};

type U2 = Vector<u32, Const<2>>;
type U4 = Vector<u32, Const<4>>;
type F4 = Vector<f32, Const<4>>;

/// Outputs of a tile.
pub(super) const OUTPUTS: usize = 16;
/// Inputs of a chunk.
const INPUTS: usize = 16;
/// Rows that one instruction multiplies.
const ROWS: usize = 8;
/// Warps of a cube.
const WARPS: usize = 8;
/// Warps that are busy on a large device: fewer tiles are cut in slices.
const BUSY: usize = 1600;

/// A kernel of its own; all shapes of weights share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    /// Warps that share the inputs of a tile.
    slices: usize,
    /// Rows of a cube, by eight.
    octets: usize,
    /// Chunks that are asked for at a time.
    ahead: usize,
    /// Whether the rows are in bf16; else every warp rounds what it takes, which few rows are quickest with.
    rounded: bool,
    bias: bool,
    output: LinearOutput,
    emulated: bool,
}

/// Slices in which the inputs of so many tiles are summed.
pub(super) fn slices(tiles: usize) -> usize {
    [8, 4, 2].into_iter().find(|slices| slices * tiles <= BUSY).unwrap_or(1)
}

fn chunks(inner: usize) -> usize {
    inner.div_ceil(INPUTS)
}

/// Words of one output, which are not next to one another.
pub(super) fn words_of_an_output(inner: usize) -> usize {
    chunks(inner) * INPUTS / 2
}

pub(super) fn words_of_rows(rows: usize, inner: usize) -> usize {
    rows.next_multiple_of(ROWS) * chunks(inner) * INPUTS / 2
}

/// Lays a matrix out at its place in a weight.
pub(super) fn fill(gpu: &Gpu, linear: &Linear, matrix: &GpuBuffer, place: Place) {
    let pairs = place.rows * linear.inner.div_ceil(2);
    unsafe {
        pack::launch_unchecked(
            &gpu.client,
            cubes(pairs),
            CubeDim::new_1d(UNITS as u32),
            matrix.arg(),
            linear.packed.arg(),
            place.rows as u32,
            place.group as u32,
            place.stride as u32,
            place.start as u32,
            linear.inner as u32,
        );
    }
}

/// See [`Linear::forward`].
pub(super) fn forward(
    gpu: &Gpu,
    linear: &Linear,
    x: &GpuBuffer,
    rows: usize,
    output: LinearOutput,
    rounded: &GpuBuffer,
    out: &GpuBuffer,
) {
    let inner = linear.inner;
    let words = words_of_rows(rows, inner);
    let emulated = linear.path == ProductPath::EmulatedTensorCores;
    let tiles = linear.packed.len() / (OUTPUTS * words_of_an_output(inner));
    let slices = slices(tiles);
    // Emulated, the memory of the fragments leaves less for that of the sums.
    let octets = rows.div_ceil(ROWS).next_power_of_two().min(if emulated { 4 } else { 8 });
    let ahead = if emulated { 1 } else { 4 };
    let many = rows > ROWS;
    let variant = Variant { slices, octets, ahead, rounded: many, bias: linear.bias.is_some(), output, emulated };
    unsafe {
        if many {
            round_rows::launch_unchecked(
                &gpu.client,
                cubes(words / 2),
                CubeDim::new_1d(UNITS as u32),
                x.arg(),
                rounded.pairs(words),
                rows as u32,
                inner as u32,
            );
        }
        product::launch_unchecked(
            &gpu.client,
            CubeCount::Static(tiles.div_ceil(WARPS / slices) as u32, rows.div_ceil(ROWS * octets) as u32, 1),
            CubeDim::new_1d(32 * WARPS as u32),
            linear.packed.quads(),
            x.arg(),
            rounded.pairs(words),
            linear.bias.as_ref().unwrap_or(x).arg(),
            out.arg(),
            rows as u32,
            inner as u32,
            tiles as u32,
            linear.width(output) as u32,
            variant,
        );
    }
}

/// The word of a weight that holds an input of an output and the input beside it.
#[cube]
pub(in crate::cube) fn word_of(output: usize, input: usize, chunks: usize) -> usize {
    let unit = output % 8 * 4 + input % 16 / 4;
    let word = output % 16 / 8 + input % 4 / 2 * 2;
    ((output / 16 * chunks + input / 16) * 32 + unit) * 4 + word
}

/// Two inputs at a time.
#[cube(launch_unchecked)]
fn pack(matrix: &[f32], packed: &mut [u32], rows: u32, group: u32, stride: u32, start: u32, inner: u32) {
    let inner = inner as usize;
    let pairs = inner.div_ceil(2usize);
    let chunks = inner.div_ceil(16usize);
    let group = group as usize;
    let mut index = ABSOLUTE_POS;
    while index < rows as usize * pairs {
        let row = index / pairs;
        let input = index % pairs * 2;
        let output = start as usize + row / group * stride as usize + row % group;
        let low = to_bf16(value_at(matrix, row, input, inner));
        let high = to_bf16(value_at(matrix, row, input + 1, inner));
        packed[word_of(output, input, chunks)] = low | (high << 16u32);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// Rows as the units of a warp hold them, eight at a time; rows that are missing to eight are zero.
#[cube(launch_unchecked)]
fn round_rows(x: &[f32], rounded: &mut [U2], rows: u32, inner: u32) {
    let inner = inner as usize;
    let chunks = inner.div_ceil(16usize);
    let mut index = ABSOLUTE_POS;
    while index < rounded.len() {
        let unit = index % 32;
        let row = index / 32 / chunks * 8 + unit / 4;
        let input = index / 32 % chunks * 16 + unit % 4 * 4;
        rounded[index] = round(x, row, input, rows as usize, inner);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// Four inputs of a row.
#[cube]
fn round(x: &[f32], row: usize, input: usize, rows: usize, inner: usize) -> U2 {
    let mut pairs = U2::new(0u32);
    if row < rows {
        #[unroll]
        for pair in 0..2usize {
            let low = to_bf16(value_at(x, row, input + pair * 2, inner));
            let high = to_bf16(value_at(x, row, input + pair * 2 + 1, inner));
            pairs.insert(pair, low | (high << 16u32));
        }
    }
    pairs
}

/// Tiles of some rows. A warp sums every `slices`-th chunk of a tile; the slices are then added in their order.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn product(
    weight: &[U4],
    x: &[f32],
    rounded: &[U2],
    bias: &[f32],
    out: &mut [f32],
    rows: u32,
    inner: u32,
    tiles: u32,
    width: u32,
    #[comptime] variant: Variant,
) {
    let slices = comptime!(variant.slices);
    let octets = comptime!(variant.octets);
    let ahead = comptime!(variant.ahead);
    let inner = inner as usize;
    let chunks = inner.div_ceil(16usize);
    let rows = rows as usize;
    let warp = UNIT_POS as usize / 32;
    let unit = UNIT_POS as usize % 32;
    let tile = CUBE_POS_X as usize * comptime!(WARPS / variant.slices) + warp / slices;
    let slice = warp % slices;
    let first = CUBE_POS_Y as usize * octets;
    let there = tile < tiles as usize;

    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if variant.emulated { 32 * WARPS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if variant.emulated { 32 * WARPS } else { 1usize }));
    let mut sums = Array::<F4>::new(octets);
    #[unroll]
    for octet in 0..octets {
        sums[octet] = F4::new(0.0f32);
    }
    let mut chunk = slice.clone();
    let mut left = chunks.div_ceil(slices * ahead);
    while left > 0 {
        let mut a = Array::<U4>::new(ahead);
        #[unroll]
        for next in 0..ahead {
            let at = chunk + next * slices;
            let mut fragment = U4::new(0u32);
            if there && at < chunks {
                fragment = weight[(tile * chunks + at) * 32 + unit];
            }
            a[next] = fragment;
        }
        #[unroll]
        for next in 0..ahead {
            let at = chunk + next * slices;
            #[unroll]
            for octet in 0..octets {
                let mut fragment = U2::new(0u32);
                if comptime!(variant.rounded) {
                    if at < chunks && (first + octet) * 8 < rows {
                        fragment = rounded[((first + octet) * chunks + at) * 32 + unit];
                    }
                } else {
                    fragment = round(x, unit / 4, at * 16 + unit % 4 * 4, rows, inner);
                }
                sums[octet] =
                    multiply(a[next], fragment, sums[octet], &mut lent_a, &mut lent_b, comptime!(variant.emulated));
            }
        }
        chunk += ahead * slices;
        left -= 1;
    }

    let mut parts =
        Shared::<[F4]>::new_slice(comptime!(if variant.slices > 1 { 32 * WARPS * variant.octets } else { 1usize }));
    if comptime!(variant.slices > 1) {
        #[unroll]
        for octet in 0..octets {
            parts[octet * comptime!(32 * WARPS) + warp * 32 + unit] = sums[octet];
        }
        sync_cube();
    }
    #[unroll]
    for octet in 0..octets {
        let row = (first + octet) * 8 + unit % 4 * 2;
        // The warps of a tile take turns.
        if there && row < rows && slice == octet % slices {
            let mut sum = sums[octet];
            if comptime!(variant.slices > 1) {
                let at = octet * comptime!(32 * WARPS) + (warp - slice) * 32 + unit;
                sum = parts[at];
                #[unroll]
                for other in 1..slices {
                    sum += parts[at + other * 32];
                }
            }
            #[unroll]
            for beside in 0..2usize {
                if row + beside < rows {
                    let low = sum.extract(beside);
                    let high = sum.extract(comptime!(beside + 2));
                    store(low, high, tile, unit / 4, row + beside, width as usize, bias, out, variant);
                }
            }
        }
    }
}

/// Stores two of a tile's outputs of a row, eight apart.
#[cube]
#[allow(clippy::too_many_arguments)]
fn store(
    low: f32,
    high: f32,
    tile: usize,
    output: usize,
    row: usize,
    width: usize,
    bias: &[f32],
    out: &mut [f32],
    #[comptime] variant: Variant,
) {
    if comptime!(variant.output == LinearOutput::Gated) {
        let column = tile * 8 + output;
        if column < width {
            let mut gate = low;
            let mut up = high;
            if comptime!(variant.bias) {
                gate += bias[column];
                up += bias[width + column];
            }
            out[row * width + column] = gated(gate, up);
        }
    } else {
        #[unroll]
        for half in 0..2usize {
            let column = tile * 16 + half * 8 + output;
            if column < width {
                let at = row * width + column;
                let mut value = if comptime!(half == 0) { low } else { high };
                if comptime!(variant.bias) {
                    value += bias[column];
                }
                if comptime!(variant.output == LinearOutput::Add) {
                    value += out[at];
                }
                out[at] = value;
            }
        }
    }
}

/// `a · b + c` of a warp: sixteen outputs, sixteen inputs, eight rows. All units of the cube must call it.
#[cube]
pub(in crate::cube) fn multiply(
    a: U4,
    b: U2,
    c: F4,
    lent_a: &mut Shared<[U4]>,
    lent_b: &mut Shared<[U2]>,
    #[comptime] emulated: bool,
) -> F4 {
    if comptime!(emulated) {
        let unit = UNIT_POS as usize % 32;
        let warp = UNIT_POS as usize - unit;
        sync_cube();
        lent_a[warp + unit] = a;
        lent_b[warp + unit] = b;
        sync_cube();
        let mut sum = c;
        let mut quarter = 0usize;
        while quarter < 4 {
            let weights = lent_a[warp + unit / 4 * 4 + quarter];
            #[unroll]
            for word in 0..4usize {
                // Of the output and of the one eight further, the first two inputs and the second two.
                let weight = weights.extract(word);
                #[unroll]
                for beside in 0..2usize {
                    let values = lent_b[warp + (unit % 4 * 2 + beside) * 4 + quarter];
                    let value = values.extract(comptime!(word / 2));
                    let at = comptime!(word % 2 * 2 + beside);
                    let low = fma(f32::reinterpret(weight << 16u32), f32::reinterpret(value << 16u32), sum.extract(at));
                    let high = f32::reinterpret(value & 0xffff0000u32);
                    sum.insert(at, fma(f32::reinterpret(weight & 0xffff0000u32), high, low));
                }
            }
            quarter += 1;
        }
        sum
    } else {
        multiply_by_tensor_cores(a, b, c)
    }
}

/// Two numbers, as their bits, rounded to bf16 beside each other.
#[cube]
pub(in crate::cube) fn rounded_pair(low: u32, high: u32, #[comptime] emulated: bool) -> u32 {
    if comptime!(emulated) {
        to_bf16(f32::reinterpret(low)) | (to_bf16(f32::reinterpret(high)) << 16u32)
    } else {
        let pair: u32;
        let low = by_value::<f32>(f32::reinterpret(low));
        let high = by_value::<f32>(f32::reinterpret(high));
        gpu_asm!(
            "cvt.rn.bf16x2.f32 {pair}, {high}, {low};",
            high = in(_) high, low = in(_) low, pair = out(_) pair,
            options(pure, nomem)
        );
        pair
    }
}

#[cube]
fn multiply_by_tensor_cores(a: U4, b: U2, c: F4) -> F4 {
    let d: F4;
    let a = by_value::<U4>(a);
    let b = by_value::<U2>(b);
    let c = by_value::<F4>(c);
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {d}, {a}, {b}, {c};",
        a = in(_) a, b = in(_) b, c = in(_) c, d = out(_) d,
        options(pure, nomem)
    );
    d
}

/// The value of a local, which an instruction would take by its address.
#[cube]
#[allow(unused_variables)]
fn by_value<T: CubePrimitive>(x: T) -> T {
    intrinsic!(|scope| { x.read_value(scope).into() })
}
