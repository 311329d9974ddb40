//! Sums of squares of many tensors, copied to the host together.

use burn::backend::{Cube, DType};
use burn::tensor::Tensor;
use cubecl::prelude::*;

use super::super::reduction::{UNITS, cube_sum};
use super::tensor::{GpuTensor, arg, elements, empty, with_type};
use crate::buffer::Contiguous;

/// Elements of a cube, as far as there are no more than [`MOST_PARTS`] cubes.
const PART: usize = 1 << 14;
/// The most parts of a tensor.
const MOST_PARTS: usize = 256;

/// The sum of the squares of tensors on one GPU.
pub(crate) fn square_sum(tensors: Vec<GpuTensor>) -> f64 {
    let Some(first) = tensors.first() else { return 0.0 };
    let parts: Vec<usize> = tensors.iter().map(|x| elements(x).div_ceil(PART).clamp(1, MOST_PARTS)).collect();
    let sums = empty(first, [parts.iter().sum::<usize>()], DType::F32);
    let mut place = 0;
    for (x, parts) in tensors.iter().zip(parts) {
        // The order of the elements does not matter where all of the memory is theirs.
        let x = if x.is_contiguous_buffer() { x.clone() } else { Cube::contiguous(x.clone()) };
        let count = elements(&x);
        with_type!(x, F => unsafe {
            square_parts::launch_unchecked::<F>(
                &x.client,
                CubeCount::Static(parts as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                arg(&x),
                arg(&sums),
                count as u32,
                place as u32,
            );
        });
        place += parts;
    }
    let sums = Tensor::<1>::from_primitive::<Cube>(sums);
    sums.into_data().iter::<f64>().sum()
}

#[cube(launch_unchecked)]
fn square_parts<F: Float>(x: &[F], sums: &mut [f32], elements: u32, place: u32) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut sum = 0.0f32;
    let mut index = ABSOLUTE_POS;
    while index < elements as usize {
        let value = f32::cast_from(x[index]);
        sum = fma(value, value, sum);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
    let total = cube_sum(sum, &mut shared, UNITS);
    if UNIT_POS == 0 {
        sums[place as usize + CUBE_POS_X as usize] = total;
    }
}
