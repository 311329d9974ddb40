//! Rows of an embedding, and rows of a step.

use cubecl::prelude::*;

use super::linear::{Layout, Linear, word_at, word_of};
use super::{Gpu, GpuBuffer};

const UNITS: usize = 64;

/// The rows of a weight that are the embeddings of tokens. `tokens` `[rows]`, `out` `[rows, inner]`.
pub fn embed(gpu: &Gpu, table: &Linear, tokens: &GpuBuffer, rows: usize, out: &GpuBuffer) {
    let (words, layout) = table.layout();
    unsafe {
        gather::launch_unchecked(
            &gpu.client,
            CubeCount::Static(rows as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            table.packed().arg(),
            tokens.arg(),
            out.arg(),
            table.inner() as u32,
            words as u32,
            layout,
        );
    }
}

#[cube(launch_unchecked)]
fn gather(table: &[u32], tokens: &[u32], out: &mut [f32], inner: u32, words: u32, #[comptime] layout: Layout) {
    let bf16 = comptime!(layout != Layout::Units);
    let inner = inner as usize;
    let words = words as usize;
    let row = CUBE_POS_X as usize;
    let token = tokens[row] as usize;
    let mut column = UNIT_POS as usize;
    while column < inner {
        let word = if comptime!(bf16) { column / 2 } else { column.clone() };
        let at = if comptime!(layout == Layout::Fragments) {
            word_of(token, column, words / 8)
        } else {
            word_at(token, word, words)
        };
        let bits = table[at];
        let mut value = bits;
        if comptime!(bf16) {
            value = if column % 2 == 0 { bits << 16u32 } else { bits & 0xffff0000u32 };
        }
        out[row * inner + column] = f32::reinterpret(value);
        column += UNITS;
    }
}

/// Some of the rows of `x` (`[any, width]`). `rows` `[n]`, `out` `[n, width]`.
pub fn select_rows(gpu: &Gpu, x: &GpuBuffer, width: usize, rows: &GpuBuffer, out: &GpuBuffer) {
    unsafe {
        select::launch_unchecked(
            &gpu.client,
            CubeCount::Static(rows.len() as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            x.arg(),
            rows.arg(),
            out.arg(),
            width as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn select(x: &[f32], rows: &[u32], out: &mut [f32], width: u32) {
    let row = CUBE_POS_X as usize;
    let width = width as usize;
    let mut column = UNIT_POS as usize;
    while column < width {
        out[row * width + column] = x[rows[row] as usize * width + column];
        column += UNITS;
    }
}
