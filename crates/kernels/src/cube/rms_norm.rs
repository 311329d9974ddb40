//! Root mean square normalisation.

use cubecl::prelude::*;

use super::reduction::cube_sum;
use super::{Gpu, GpuBuffer};

const UNITS: usize = 256;

/// `x / √(mean(x²) + epsilon) · gain` of every row. `x`, `out` `[rows, gain.len()]`.
pub fn rms_norm(gpu: &Gpu, x: &GpuBuffer, gain: &GpuBuffer, epsilon: f32, rows: usize, out: &GpuBuffer) {
    unsafe {
        normalise::launch_unchecked(
            &gpu.client,
            CubeCount::Static(rows as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            x.arg(),
            gain.arg(),
            out.arg(),
            epsilon,
            gain.len() as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn normalise(x: &[f32], gain: &[f32], out: &mut [f32], epsilon: f32, width: u32) {
    let width = width as usize;
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_X as usize * width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut squares = 0.0f32;
    let mut column = unit;
    while column < width {
        let value = x[row + column];
        squares = fma(value, value, squares);
        column += UNITS;
    }
    let total = cube_sum(squares, &mut shared, UNITS);
    let inverse = 1.0f32 / (total / f32::cast_from(width as u32) + epsilon).sqrt();
    let mut column = unit;
    while column < width {
        out[row + column] = x[row + column] * inverse * gain[column];
        column += UNITS;
    }
}
