//! Root mean square normalisation.

use cubecl::client::Client;
use cubecl::prelude::*;

use super::elementwise::cubes;
use super::reduction::{UNITS, cube_sum, cubes_of_rows};
use super::{Gpu, GpuBuffer};

/// Rows up to this width, heads above all, are summed by one unit each, wider ones by the units of a cube. Part of the result.
const NARROW: usize = 128;

/// `x / √(mean(x²) + epsilon) · gain` of every row. `x`, `out` `[rows, gain.len()]`.
pub fn rms_norm(gpu: &Gpu, x: &GpuBuffer, gain: &GpuBuffer, epsilon: f32, rows: usize, out: &GpuBuffer) {
    launch::<f32, f32>(&gpu.client, [x.arg(), gain.arg(), out.arg()], epsilon, gain.len(), rows);
}

/// Normalises rows `x` by a gain into `out`.
pub(super) fn launch<F: Float, W: Float>(
    client: &Client,
    [x, gain, out]: [BufferArg; 3],
    epsilon: f32,
    width: usize,
    rows: usize,
) {
    let (units, shape) = (CubeDim::new_1d(UNITS as u32), (width as u32, rows as u32));
    unsafe {
        if width <= NARROW {
            normalise_narrow::launch_unchecked::<F, W>(
                client,
                cubes(rows),
                units,
                x,
                gain,
                out,
                epsilon,
                shape.0,
                shape.1,
            );
        } else {
            normalise::launch_unchecked::<F, W>(
                client,
                cubes_of_rows(rows),
                units,
                x,
                gain,
                out,
                epsilon,
                shape.0,
                shape.1,
            );
        }
    }
}

/// The inverse of a row's root mean square, summed by one unit.
#[cube]
pub(super) fn inverse_of_narrow<F: Float>(x: &[F], start: usize, width: u32, epsilon: f32) -> f32 {
    let mut squares = 0.0f32;
    let mut column = 0usize;
    while column < width as usize {
        let value = f32::cast_from(x[start + column]);
        squares = fma(value, value, squares);
        column += 1;
    }
    1.0f32 / (squares / f32::cast_from(width) + epsilon).sqrt()
}

#[cube(launch_unchecked)]
fn normalise_narrow<F: Float, W: Float>(x: &[F], gain: &[W], out: &mut [F], epsilon: f32, width: u32, rows: u32) {
    let columns = width as usize;
    let mut row = ABSOLUTE_POS;
    while row < rows as usize {
        let start = row * columns;
        let inverse = inverse_of_narrow::<F>(x, start, width, epsilon);
        let mut column = 0usize;
        while column < columns {
            let value = f32::cast_from(x[start + column]) * inverse * f32::cast_from(gain[column]);
            out[start + column] = F::cast_from(value);
            column += 1;
        }
        row += CUBE_COUNT * CUBE_DIM as usize;
    }
}

#[cube(launch_unchecked)]
fn normalise<F: Float, W: Float>(x: &[F], gain: &[W], out: &mut [F], epsilon: f32, width: u32, rows: u32) {
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
