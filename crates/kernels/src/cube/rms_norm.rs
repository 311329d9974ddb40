//! Root mean square normalisation.

use cubecl::prelude::*;

use super::reduction::{UNITS, cube_sum, cubes_of_rows};
use super::{Gpu, GpuBuffer};

/// `x / √(mean(x²) + epsilon) · gain` of every row. `x`, `out` `[rows, gain.len()]`.
pub fn rms_norm(gpu: &Gpu, x: &GpuBuffer, gain: &GpuBuffer, epsilon: f32, rows: usize, out: &GpuBuffer) {
    unsafe {
        normalise::launch_unchecked::<f32, f32>(
            &gpu.client,
            cubes_of_rows(rows),
            CubeDim::new_1d(UNITS as u32),
            x.arg(),
            gain.arg(),
            out.arg(),
            epsilon,
            gain.len() as u32,
            rows as u32,
        );
    }
}

#[cube(launch_unchecked)]
pub(super) fn normalise<F: Float, W: Float>(x: &[F], gain: &[W], out: &mut [F], epsilon: f32, width: u32, rows: u32) {
    let columns = width as usize;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut row = CUBE_POS_X as usize;
    while row < rows as usize {
        let start = row * columns;
        let mut squares = 0.0f32;
        let mut column = unit;
        while column < columns {
            let value = f32::cast_from(x[start + column]);
            squares = fma(value, value, squares);
            column += UNITS;
        }
        let total = cube_sum(squares, &mut shared, UNITS);
        let inverse = 1.0f32 / (total / f32::cast_from(width) + epsilon).sqrt();
        let mut column = unit;
        while column < columns {
            let value = f32::cast_from(x[start + column]) * inverse * f32::cast_from(gain[column]);
            out[start + column] = F::cast_from(value);
            column += UNITS;
        }
        row += CUBE_COUNT_X as usize;
    }
}
