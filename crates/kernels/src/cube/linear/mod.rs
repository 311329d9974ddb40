//! Products of rows with a weight that is laid out for them.

mod copy;
mod fragments;
mod plain;

use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

pub use self::copy::WeightCopy;
pub(super) use self::copy::{Layout, write_pair};
pub(super) use self::fragments::{multiply, rounded_pair, word_of};
pub(super) use self::plain::word_at;
use super::{Gpu, GpuBuffer};

/// A weight `[outer, inner]` in a device's memory, in f32 or bf16, laid out as its path multiplies. What is missing to whole tiles is
/// zero.
#[derive(Clone, Debug)]
pub struct Linear {
    packed: GpuBuffer,
    bias: Option<GpuBuffer>,
    inner: usize,
    outer: usize,
    bf16: bool,
    gated: bool,
    path: ProductPath,
}

/// The units that multiply. Each has an order of sums of its own, which the shape of a weight decides, never the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProductPath {
    /// Those of any device: rows in f32.
    Units,
    /// Tensor cores of NVIDIA: rows rounded to bf16, as the weight is, sums in f32.
    TensorCores,
    /// The same by shared memory on any device, slowly: shows that everything lies where tensor cores expect it.
    EmulatedTensorCores,
}

/// Which matrices become one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearParts {
    /// One below another.
    Stacked,
    /// A gate and what it gates, for [`LinearOutput::Gated`].
    Gated,
}

/// Destination of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearOutput {
    /// In place of what is there.
    Store,
    /// Added to what is there.
    Add,
    /// `silu(gate) · up`, half as wide as the weight.
    Gated,
}

/// The outputs of a weight that the rows of a matrix become: `group` rows follow one another, then the next ones `stride` further.
#[derive(Clone, Copy, Debug)]
struct Place {
    rows: usize,
    group: usize,
    stride: usize,
    start: usize,
}

impl ProductPath {
    /// The fastest for weights of a type.
    pub fn of(gpu: &Gpu, bf16: bool) -> Self {
        let [bfloat, float] = [FloatKind::BF16, FloatKind::F32].map(ElemType::Float);
        let wanted = MmaConfig { a_type: bfloat, b_type: bfloat, cd_type: float, m: 16, n: 8, k: 16 };
        if bf16 && gpu.client.features().matmul.mma.contains(&wanted) { Self::TensorCores } else { Self::Units }
    }

    /// Outputs of a tile.
    fn tile(self) -> usize {
        if self == Self::Units { plain::LANES } else { fragments::OUTPUTS }
    }
}

/// Slices in which the sums of a weight of so many outputs are cut.
pub(super) fn slices_of(path: ProductPath, outputs: usize) -> usize {
    match path {
        ProductPath::Units => plain::SLICES,
        _ => fragments::slices(outputs.div_ceil(path.tile())),
    }
}

impl Linear {
    /// Memory for a weight, filled with zeros. `bf16`: its values are rounded to bf16.
    pub fn new(gpu: &Gpu, inner: usize, outer: usize, parts: LinearParts, bf16: bool) -> Self {
        Self::on(gpu, ProductPath::of(gpu, bf16), inner, outer, parts, bf16)
    }

    /// As [`new`](Self::new), for a path. Tensor cores want bf16.
    pub fn on(gpu: &Gpu, path: ProductPath, inner: usize, outer: usize, parts: LinearParts, bf16: bool) -> Self {
        assert!(bf16 || path == ProductPath::Units, "Linear: tensor cores multiply weights in bf16");
        let gated = parts == LinearParts::Gated;
        // Gates and what they gate are a tile.
        let tiles = if gated { (outer / 2).div_ceil(path.tile() / 2) } else { outer.div_ceil(path.tile()) };
        let words = match path {
            ProductPath::Units => plain::words_of_an_output(inner, bf16),
            _ => fragments::words_of_an_output(inner),
        };
        Self { packed: gpu.zeros(tiles * path.tile() * words), bias: None, inner, outer, bf16, gated, path }
    }

    /// Takes matrices `[outer_i, inner]`, row-major, that together have its shape, in the memory of the present ones.
    pub fn fill(&self, gpu: &Gpu, matrices: &[&GpuBuffer]) {
        let rows: Vec<usize> = matrices.iter().map(|matrix| matrix.len() / self.inner).collect();
        for (matrix, place) in matrices.iter().zip(self.places(&rows)) {
            match self.path {
                ProductPath::Units => plain::fill(gpu, self, matrix, place),
                _ => fragments::fill(gpu, self, matrix, place),
            }
        }
    }

    /// The places of matrices with so many rows.
    fn places(&self, rows: &[usize]) -> impl Iterator<Item = Place> {
        let (mut first, tile, gated) = (0, self.path.tile(), self.gated);
        rows.iter().copied().enumerate().map(move |(index, rows)| {
            let start = if gated { index * tile / 2 } else { first };
            first += rows;
            match gated {
                true => Place { rows, group: tile / 2, stride: tile, start },
                false => Place { rows, group: rows.max(1), stride: 0, start },
            }
        })
    }

    /// Adds this to every product. `[outer]`: where there are gates, theirs first.
    pub fn set_bias(&mut self, bias: Option<GpuBuffer>) {
        self.bias = bias;
    }

    /// The vector that is added.
    pub fn bias(&self) -> Option<&GpuBuffer> {
        self.bias.as_ref()
    }

    /// Width of its output.
    pub fn outer(&self) -> usize {
        self.outer
    }

    /// Bytes in the device's memory.
    pub fn bytes(&self) -> usize {
        (self.packed.len() + self.bias.as_ref().map_or(0, GpuBuffer::len)) * size_of::<f32>()
    }

    pub(super) fn packed(&self) -> &GpuBuffer {
        &self.packed
    }

    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    /// Words of the device's memory for one output, and how they lie.
    pub(super) fn layout(&self) -> (usize, Layout) {
        match self.path {
            ProductPath::Units => {
                let layout = if self.bf16 { Layout::UnitsBf16 } else { Layout::Units };
                (plain::words_of_an_output(self.inner, self.bf16), layout)
            }
            _ => (fragments::words_of_an_output(self.inner), Layout::Fragments),
        }
    }

    /// Memory for rows in bf16, which tensor cores want: enough for so many of so many inputs.
    pub fn rounded(gpu: &Gpu, rows: usize, inner: usize) -> GpuBuffer {
        gpu.empty(fragments::words_of_rows(rows, inner))
    }

    /// The product with rows. `x` `[rows, inner]`, `out` `[rows, outer]`, `rounded`: [memory](Self::rounded) that is written where
    /// tensor cores multiply.
    pub fn forward(
        &self,
        gpu: &Gpu,
        x: &GpuBuffer,
        rows: usize,
        output: LinearOutput,
        rounded: &GpuBuffer,
        out: &GpuBuffer,
    ) {
        match self.path {
            _ if rows == 0 => {}
            ProductPath::Units => plain::forward(gpu, self, x, rows, output, out),
            _ => fragments::forward(gpu, self, x, rows, output, rounded, out),
        }
    }

    /// Width of an output of this kind.
    fn width(&self, output: LinearOutput) -> usize {
        if output == LinearOutput::Gated { self.outer / 2 } else { self.outer }
    }
}

/// The nearest bf16, ties to even, as its sixteen bits.
#[cube]
fn to_bf16(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    (bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32
}

#[cube]
fn value_at(matrix: &[f32], row: usize, column: usize, inner: usize) -> f32 {
    let mut value = 0.0f32;
    if column < inner {
        value = matrix[row * inner + column];
    }
    value
}
