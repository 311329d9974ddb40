//! Products in f32 by the units of any device.
//!
//! A cube computes a tile of 128 rows and 64 columns, each unit eight rows of four columns.

use cubecl::prelude::*;

use super::super::tensor::{GpuTensor, arg, with_type};
use super::{Factor, Walk};

type F4 = Vector<f32, Const<4>>;

/// Rows and columns of a cube.
pub(super) const TILE: [usize; 2] = [ROWS, COLUMNS];
const ROWS: usize = 128;
const COLUMNS: usize = 64;
/// Inputs that follow one another in a sum.
const CHUNK: usize = 8;
/// Inputs that a cube stages at a time.
pub(super) const STAGE: usize = 2 * CHUNK;
const UNITS: usize = 256;
/// Vectors of four rows in a stage of one input, one more than there are so that units write to different banks.
const ROW_STRIDE: usize = ROWS / 4 + 1;
const COLUMN_STRIDE: usize = COLUMNS / 4 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    slices: usize,
    rows_transposed: bool,
    columns_transposed: bool,
    onto: bool,
}

/// See [`super::product`].
pub(super) fn launch(rows: Factor<'_>, columns: Factor<'_>, walk: Walk, onto: bool, out: &GpuTensor) {
    let ((row_count, inner), (column_count, _)) = (rows.shape(), columns.shape());
    let variant =
        Variant { slices: walk.slices, rows_transposed: rows.transposed, columns_transposed: columns.transposed, onto };
    let tiles = [column_count.div_ceil(COLUMNS), row_count.div_ceil(ROWS), walk.parts].map(|count| count as u32);
    with_type!(rows.matrix, A => with_type!(columns.matrix, B => with_type!(out, O => unsafe {
        multiply::launch_unchecked::<A, B, O>(
            &out.client,
            CubeCount::Static(tiles[0], tiles[1], tiles[2]),
            CubeDim::new_1d(UNITS as u32),
            arg(rows.matrix),
            arg(columns.matrix),
            arg(out),
            row_count as u32,
            column_count as u32,
            inner as u32,
            walk.part as u32,
            variant,
        );
    })));
}

/// Four vectors' numbers at one input, zeros where there are no more.
#[cube]
fn four<F: Float>(
    from: &[F],
    first: usize,
    count: usize,
    input: usize,
    end: usize,
    inner: usize,
    #[comptime] transposed: bool,
) -> F4 {
    let mut values = F4::new(0.0f32);
    if input < end {
        #[unroll]
        for lane in 0..4usize {
            if first + lane < count {
                let mut at = (first + lane) * inner + input;
                if comptime!(transposed) {
                    at = input * count + first + lane;
                }
                values.insert(lane, f32::cast_from(from[at]));
            }
        }
    }
    values
}

/// Stages the numbers of a tile's vectors: four of them side by side, input after input.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage<F: Float>(
    from: &[F],
    to: &mut Shared<[F4]>,
    first: usize,
    count: usize,
    chunk: usize,
    slices: usize,
    end: usize,
    inner: usize,
    #[comptime] transposed: bool,
    #[comptime] quads: usize,
) {
    let mut slot = UNIT_POS as usize;
    while slot < comptime!(STAGE * quads) {
        let mut k = slot % STAGE;
        let mut quad = slot / STAGE;
        // Units that follow one another read what does.
        if comptime!(transposed) {
            k = slot / quads;
            quad = slot % quads;
        }
        let input = (chunk + k / CHUNK * slices) * CHUNK + k % CHUNK;
        to[k * comptime!(quads + 1) + quad] = four::<F>(from, first + quad * 4, count, input, end, inner, transposed);
        slot += UNITS;
    }
}

/// A tile. Chunks of inputs are taken slice after slice: `slice`, `slice + slices`, …, each slice summed for itself.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn multiply<A: Float, B: Float, O: Float>(
    a: &[A],
    b: &[B],
    out: &mut [O],
    rows: u32,
    columns: u32,
    inner: u32,
    part: u32,
    #[comptime] variant: Variant,
) {
    let slices = comptime!(variant.slices);
    let (rows, columns, inner) = (rows as usize, columns as usize, inner as usize);
    let first_row = CUBE_POS_Y as usize * ROWS;
    let first_column = CUBE_POS_X as usize * COLUMNS;
    let begin = CUBE_POS_Z as usize * part as usize / CHUNK;
    let end = min(inner, (CUBE_POS_Z as usize + 1) * part as usize);
    let chunks = end.div_ceil(CHUNK);
    let quad = UNIT_POS as usize % 16;
    let octet = UNIT_POS as usize / 16;
    let mut shared_a = Shared::<[F4]>::new_slice(comptime!(STAGE * ROW_STRIDE));
    let mut shared_b = Shared::<[F4]>::new_slice(comptime!(STAGE * COLUMN_STRIDE));
    let mut sums = Array::<F4>::new(8usize);
    let mut totals = Array::<F4>::new(8usize);
    #[unroll]
    for row in 0..8usize {
        totals[row] = F4::new(0.0f32);
    }
    let mut slice = 0usize;
    while slice < slices {
        #[unroll]
        for row in 0..8usize {
            sums[row] = F4::new(0.0f32);
        }
        let mut chunk = begin + slice;
        while chunk < chunks {
            sync_cube();
            stage::<A>(
                a,
                &mut shared_a,
                first_row,
                rows,
                chunk,
                slices,
                end,
                inner,
                comptime!(variant.rows_transposed),
                comptime!(ROWS / 4),
            );
            stage::<B>(
                b,
                &mut shared_b,
                first_column,
                columns,
                chunk,
                slices,
                end,
                inner,
                comptime!(variant.columns_transposed),
                comptime!(COLUMNS / 4),
            );
            sync_cube();
            let mut k = 0usize;
            while k < STAGE {
                let weights = shared_b[k * COLUMN_STRIDE + quad];
                #[unroll]
                for half in 0..2usize {
                    let values = shared_a[k * ROW_STRIDE + octet * 2 + half];
                    #[unroll]
                    for lane in 0..4usize {
                        let row = comptime!(half * 4 + lane);
                        sums[row] = fma(weights, F4::new(values.extract(lane)), sums[row]);
                    }
                }
                k += 1;
            }
            chunk += 2 * slices;
        }
        #[unroll]
        for row in 0..8usize {
            totals[row] = totals[row] + sums[row];
        }
        slice += 1;
    }
    let start = CUBE_POS_Z as usize * rows * columns;
    #[unroll]
    for r in 0..8usize {
        let row = first_row + octet * 8 + r;
        if row < rows {
            #[unroll]
            for lane in 0..4usize {
                let column = first_column + quad * 4 + lane;
                if column < columns {
                    let at = start + row * columns + column;
                    let mut total = totals[r].extract(lane);
                    if comptime!(variant.onto) {
                        total += f32::cast_from(out[at]);
                    }
                    out[at] = O::cast_from(total);
                }
            }
        }
    }
}
