//! Weights of a generator that an optimizer writes beside its own.

use cubecl::prelude::*;

use super::{Linear, Place, plain, to_bf16, word_of};
use crate::cube::GpuBuffer;

/// The place, in a generator's memory, of what a trained matrix or vector is to the generator. A step of
/// [`adamw`](crate::adamw) writes it with the weight itself.
#[derive(Clone, Debug)]
pub struct WeightCopy {
    memory: GpuBuffer,
    place: Place,
    inner: usize,
    /// Words of an output.
    words: usize,
    layout: Layout,
}

/// The order of a generator's weight in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cube) enum Layout {
    /// One number after another, in f32.
    Vector,
    /// As the units of any device multiply, in f32.
    Units,
    /// As the units of any device multiply, in bf16.
    UnitsBf16,
    /// As tensor cores multiply.
    Fragments,
}

impl Linear {
    /// The places of matrices with so many rows, which lie in it as [`fill`](Self::fill) lays them out.
    pub fn copies(&self, rows: &[usize]) -> Vec<WeightCopy> {
        let (words, layout) = self.layout();
        let copy = |place| WeightCopy { memory: self.packed.clone(), place, inner: self.inner, words, layout };
        self.places(rows).map(copy).collect()
    }
}

impl WeightCopy {
    /// The numbers of a buffer from `first` on, so many of them.
    pub fn of_vector(memory: &GpuBuffer, first: usize, length: usize) -> Self {
        assert!(first + length <= memory.len(), "WeightCopy: no {length} numbers at {first}");
        let place = Place { rows: 1, group: 1, stride: 0, start: first };
        Self { memory: memory.clone(), place, inner: length, words: 0, layout: Layout::Vector }
    }

    /// Elements of the weight.
    pub fn elements(&self) -> usize {
        self.place.rows * self.inner
    }

    /// Rows and columns of the weight.
    pub(in crate::cube) fn shape(&self) -> [usize; 2] {
        [self.place.rows, self.inner]
    }

    /// As an argument of a kernel that writes it.
    pub(in crate::cube) fn arg(&self) -> BufferArg {
        self.memory.arg()
    }

    /// Group, stride and start of its rows, and the words of an output, as [`write_pair`] takes them.
    pub(in crate::cube) fn lines(&self) -> [u32; 4] {
        [self.place.group, self.place.stride, self.place.start, self.words].map(|value| value as u32)
    }

    pub(in crate::cube) fn layout(&self) -> Layout {
        self.layout
    }
}

/// Writes two adjacent numbers of a row, the second only where there is one.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn write_pair(
    copy: &mut [u32],
    low: f32,
    high: f32,
    row: usize,
    input: usize,
    inner: usize,
    group: usize,
    stride: usize,
    start: usize,
    words: usize,
    #[comptime] layout: Layout,
) {
    if comptime!(layout == Layout::Vector) {
        copy[start + input] = u32::reinterpret(low);
        if input + 1 < inner {
            copy[start + input + 1] = u32::reinterpret(high);
        }
    } else {
        let output = start + row / group * stride + row % group;
        if comptime!(layout == Layout::Units) {
            copy[plain::word_at(output, input, words)] = u32::reinterpret(low);
            if input + 1 < inner {
                copy[plain::word_at(output, input + 1, words)] = u32::reinterpret(high);
            }
        } else {
            let pair = to_bf16(low) | (to_bf16(high) << 16u32);
            if comptime!(layout == Layout::UnitsBf16) {
                copy[plain::word_at(output, input / 2, words)] = pair;
            } else {
                copy[word_of(output, input, words / 8)] = pair;
            }
        }
    }
}
