//! Rotation of the halves of every head, and back.

use burn::backend::Cube;
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes, rotated};
use super::tensor::{GpuTensor, arg, assert_one_type, empty_like, rows_and_columns, with_type};
use crate::buffer::Contiguous;
use crate::rotary::RotaryKernels;

impl RotaryKernels for Cube {
    fn rotate(x: GpuTensor, cos: GpuTensor, sin: GpuTensor, direction: f32) -> GpuTensor {
        let [x, cos, sin] = [x, cos, sin].map(Self::contiguous);
        let ((rows, width), (time, half)) = (rows_and_columns(&x), rows_and_columns(&cos));
        assert_one_type(&[&cos, &sin]);
        let out = empty_like(&x);
        let pairs = rows * width / 2;
        with_type!(x, F => with_type!(cos, T => unsafe {
            rotate::launch_unchecked::<F, T>(
                &x.client,
                cubes(pairs),
                CubeDim::new_1d(UNITS as u32),
                arg(&x),
                arg(&cos),
                arg(&sin),
                arg(&out),
                direction,
                pairs as u32,
                (width / 2) as u32,
                half as u32,
                time as u32,
            );
        }));
        out
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn rotate<F: Float, T: Float>(
    x: &[F],
    cos: &[T],
    sin: &[T],
    out: &mut [F],
    direction: f32,
    pairs: u32,
    pairs_of_a_row: u32,
    half: u32,
    time: u32,
) {
    let (pairs_of_a_row, half) = (pairs_of_a_row as usize, half as usize);
    let mut pair = ABSOLUTE_POS;
    while pair < pairs as usize {
        let (row, within) = (pair / pairs_of_a_row, pair % pairs_of_a_row);
        let first = row * 2 * pairs_of_a_row + within / half * 2 * half + within % half;
        let angle = row % time as usize * half + within % half;
        let (a, b) = (f32::cast_from(x[first]), f32::cast_from(x[first + half]));
        let (low, high) = rotated(a, b, f32::cast_from(cos[angle]), direction * f32::cast_from(sin[angle]));
        out[first] = F::cast_from(low);
        out[first + half] = F::cast_from(high);
        pair += CUBE_COUNT * CUBE_DIM as usize;
    }
}
