//! Root-mean-square normalisation of rows, and its gradients.

use burn::backend::{Cube, DType};
use cubecl::prelude::*;

use super::super::reduction::{MOST_CUBES, UNITS, cube_sum, cubes_of_rows};
use super::super::rms_norm::launch;
use super::tensor::{GpuTensor, arg, assert_one_type, empty, empty_like, rows_and_columns, with_type};
use crate::buffer::Contiguous;
use crate::rms_norm::RmsNormKernels;

/// Rows whose part of the gain's gradient is summed by one unit. Part of the result.
const PART_ROWS: usize = 64;

impl RmsNormKernels for Cube {
    fn rms_norm(x: GpuTensor, weight: GpuTensor, epsilon: f64) -> GpuTensor {
        let (x, weight) = (Self::contiguous(x), Self::contiguous(weight));
        let (rows, width) = rows_and_columns(&x);
        let out = empty_like(&x);
        with_type!(x, F => with_type!(weight, W => {
            launch::<F, W>(&x.client, [arg(&x), arg(&weight), arg(&out)], epsilon as f32, width, rows);
        }));
        out
    }

    fn rms_norm_backward(x: GpuTensor, weight: GpuTensor, epsilon: f64, upstream: GpuTensor) -> [GpuTensor; 2] {
        let [x, weight, upstream] = [x, weight, upstream].map(Self::contiguous);
        let (rows, width) = rows_and_columns(&x);
        assert_one_type(&[&x, &upstream]);
        let parts = rows.div_ceil(PART_ROWS);
        let (d_x, d_weight) = (empty_like(&x), empty_like(&weight));
        let inverses = empty(&x, [rows], DType::F32);
        let partial = empty(&x, [parts, width], DType::F32);
        let client = &x.client;
        let columns = width.div_ceil(UNITS) as u32;
        with_type!(x, F => with_type!(weight, W => unsafe {
            backward_rows::launch_unchecked::<F, W>(
                client,
                cubes_of_rows(rows),
                CubeDim::new_1d(UNITS as u32),
                arg(&x),
                arg(&weight),
                arg(&upstream),
                arg(&d_x),
                arg(&inverses),
                epsilon as f32,
                width as u32,
                rows as u32,
            );
        }));
        with_type!(x, F => unsafe {
            sum_rows::launch_unchecked::<F>(
                client,
                CubeCount::Static(columns, parts.clamp(1, MOST_CUBES) as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                arg(&x),
                arg(&upstream),
                arg(&inverses),
                arg(&partial),
                width as u32,
                rows as u32,
                parts as u32,
            );
        });
        with_type!(weight, W => unsafe {
            sum_parts::launch_unchecked::<W>(
                client,
                CubeCount::Static(columns, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                arg(&partial),
                arg(&d_weight),
                width as u32,
                parts as u32,
            );
        });
        [d_x, d_weight]
    }
}

/// The gradient of each row, and the inverse of its root mean square.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward_rows<F: Float, W: Float>(
    x: &[F],
    gain: &[W],
    upstream: &[F],
    d_x: &mut [F],
    inverses: &mut [f32],
    epsilon: f32,
    width: u32,
    rows: u32,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let columns = width as usize;
    let mut row = CUBE_POS_X as usize;
    while row < rows as usize {
        let start = row * columns;
        let mut squares = 0.0f32;
        let mut product = 0.0f32;
        let mut column = unit;
        while column < columns {
            let value = f32::cast_from(x[start + column]);
            squares = fma(value, value, squares);
            let weighted = f32::cast_from(upstream[start + column]) * f32::cast_from(gain[column]);
            product = fma(value, weighted, product);
            column += UNITS;
        }
        let squares = cube_sum(squares, &mut shared, UNITS);
        let product = cube_sum(product, &mut shared, UNITS);
        let inverse = 1.0f32 / (squares / f32::cast_from(width) + epsilon).sqrt();
        let mean = product * inverse * inverse / f32::cast_from(width);
        let mut column = unit;
        while column < columns {
            let value = f32::cast_from(x[start + column]);
            let weighted = f32::cast_from(upstream[start + column]) * f32::cast_from(gain[column]);
            d_x[start + column] = F::cast_from(inverse * (weighted - value * mean));
            column += UNITS;
        }
        if unit == 0 {
            inverses[row] = inverse;
        }
        row += CUBE_COUNT_X as usize;
    }
}

/// The gain's gradient, of [`PART_ROWS`] rows at a time.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn sum_rows<F: Float>(
    x: &[F],
    upstream: &[F],
    inverses: &[f32],
    partial: &mut [f32],
    width: u32,
    rows: u32,
    parts: u32,
) {
    let columns = width as usize;
    let column = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    if column < columns {
        let mut part = CUBE_POS_Y as usize;
        while part < parts as usize {
            let end = min((part + 1) * PART_ROWS, rows as usize);
            let mut sum = 0.0f32;
            let mut row = part * PART_ROWS;
            while row < end {
                let at = row * columns + column;
                sum = fma(f32::cast_from(upstream[at]), f32::cast_from(x[at]) * inverses[row], sum);
                row += 1;
            }
            partial[part * columns + column] = sum;
            part += CUBE_COUNT_Y as usize;
        }
    }
}

#[cube(launch_unchecked)]
fn sum_parts<W: Float>(partial: &[f32], d_gain: &mut [W], width: u32, parts: u32) {
    let columns = width as usize;
    let column = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    if column < columns {
        let mut sum = 0.0f32;
        let mut part = 0;
        while part < parts as usize {
            sum += partial[part * columns + column];
            part += 1;
        }
        d_gain[column] = W::cast_from(sum);
    }
}
