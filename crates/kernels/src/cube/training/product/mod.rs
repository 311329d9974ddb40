//! Products of many rows: those of forward passes in the generator's order of sums, and those of gradients.

mod tensor_cores;
#[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
mod tests;
mod units;

use burn::backend::DType;
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes};
use super::super::linear::{ProductPath, slices_of};
use super::tensor::{GpuTensor, arg, empty, rows_and_columns, with_type};

/// Cubes that keep a large device busy: where there are fewer, long sums are cut in parts.
const BUSY: usize = 264;
/// Inputs of a part, at least where a device would be idle, and at most.
const PART: usize = 512;
const LONGEST: usize = 1 << 14;

/// One of two matrices that are multiplied: `[vectors, inner]`, or `[inner, vectors]` where it is `transposed`.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    pub(super) matrix: &'a GpuTensor,
    pub(super) transposed: bool,
}

/// The order in which a product is summed. Either goes by shapes alone.
#[derive(Clone, Copy)]
pub(super) enum Sums {
    /// As a generator multiplies a weight of so many outputs.
    Generator { outputs: usize },
    /// Any, the same ones each time.
    Any,
}

/// The memory of a product.
pub(super) enum Destination<'a> {
    /// Of its own, of this type.
    New(DType),
    /// A matrix of 32-bit floats, that no other tensor shares, to which it is added.
    Onto(&'a GpuTensor),
}

/// How a kernel walks through the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Walk {
    /// Sums of every so many chunks, added in their order.
    slices: usize,
    /// Inputs of a part, a multiple of a stage; every part has a result of its own.
    part: usize,
    parts: usize,
}

impl<'a> Factor<'a> {
    pub(super) fn plain(matrix: &'a GpuTensor) -> Self {
        Self { matrix, transposed: false }
    }

    pub(super) fn transposed(matrix: &'a GpuTensor) -> Self {
        Self { matrix, transposed: true }
    }

    /// Vectors and their inputs.
    fn shape(self) -> (usize, usize) {
        let (rows, columns) = rows_and_columns(self.matrix);
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }
}

/// `rows · columnsᵀ`, `[rows, columns]`. Tensor cores round both to bf16; sums are in f32.
pub(super) fn product(
    path: ProductPath,
    rows: Factor<'_>,
    columns: Factor<'_>,
    sums: Sums,
    destination: Destination<'_>,
) -> GpuTensor {
    let ((row_count, inner), (column_count, _)) = (rows.shape(), columns.shape());
    let shape = [row_count, column_count];
    let onto = match destination {
        Destination::Onto(_) => true,
        Destination::New(_) => false,
    };
    let walk = match sums {
        Sums::Generator { outputs } => Walk { slices: slices_of(path, outputs), part: inner, parts: 1 },
        Sums::Any if onto => Walk { slices: 1, part: inner, parts: 1 },
        Sums::Any => in_parts(path, shape, inner),
    };
    let (out, dtype, whole) = match destination {
        Destination::Onto(matrix) => (matrix.clone(), DType::F32, true),
        // Tensor cores store four numbers of bf16 at a time.
        Destination::New(dtype) if walk.parts == 1 && (dtype == DType::F32 || column_count % 4 == 0) => {
            (empty(rows.matrix, shape, dtype), dtype, true)
        }
        Destination::New(dtype) => {
            (empty(rows.matrix, [walk.parts, row_count, column_count], DType::F32), dtype, false)
        }
    };
    if row_count * column_count == 0 {
        return out;
    }
    match path {
        ProductPath::Units => units::launch(rows, columns, walk, onto, &out),
        _ => tensor_cores::launch(path, rows, columns, walk, onto, &out),
    }
    if whole { out } else { add_parts(&out, walk.parts, shape, dtype) }
}

/// Cuts sums where a device would be idle, and where they are so long that digits would be lost.
fn in_parts(path: ProductPath, [rows, columns]: [usize; 2], inner: usize) -> Walk {
    let (tile, stage) = match path {
        ProductPath::Units => (units::TILE, units::STAGE),
        _ => (tensor_cores::tile(path), tensor_cores::STAGE),
    };
    let tiles = rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]);
    let parts = (BUSY / tiles.max(1)).min(inner / PART).max(inner.div_ceil(LONGEST)).max(1);
    let part = inner.div_ceil(parts).next_multiple_of(stage).max(stage);
    Walk { slices: 1, part, parts: inner.div_ceil(part).max(1) }
}

/// The sums of all parts, in their order.
fn add_parts(parts: &GpuTensor, count: usize, shape: [usize; 2], dtype: DType) -> GpuTensor {
    let out = empty(parts, shape, dtype);
    let elements = shape[0] * shape[1];
    with_type!(out, F => unsafe {
        sum_parts::launch_unchecked::<F>(
            &parts.client,
            cubes(elements),
            CubeDim::new_1d(UNITS as u32),
            arg(parts),
            arg(&out),
            elements as u32,
            count as u32,
        );
    });
    out
}

#[cube(launch_unchecked)]
fn sum_parts<F: Float>(parts: &[f32], out: &mut [F], elements: u32, count: u32) {
    let elements = elements as usize;
    let mut index = ABSOLUTE_POS;
    while index < elements {
        let mut sum = parts[index];
        let mut part = 1usize;
        while part < count as usize {
            sum += parts[part * elements + index];
            part += 1;
        }
        out[index] = F::cast_from(sum);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
