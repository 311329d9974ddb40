//! A step of AdamW, in place where nothing else holds a tensor.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes};
use super::tensor::{GpuTensor, arg, elements, is_gpu};
use crate::AdamWRule;
use crate::buffer::Contiguous;

/// Whether [`adamw`] takes tensors: on a GPU, of 32-bit floats, vectors or matrices.
pub(crate) fn takes<const D: usize>(tensors: [&Tensor<D>; 4]) -> bool {
    D <= 2 && tensors.into_iter().all(|tensor| is_gpu(tensor) && tensor.dtype() == DType::F32)
}

/// The updated weight and its two moments.
pub(crate) fn adamw<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    rule: &AdamWRule,
) -> [Tensor<D>; 3] {
    let [weight, gradient, first, second] = [weight, gradient, first, second].map(Tensor::into_dispatch);
    let (weight, first, second) = Dispatch::fused_adamw(weight, gradient, first, second, *rule);
    [weight, first, second].map(Tensor::from_dispatch)
}

#[backend_extension(Cube)]
pub(crate) trait AdamWOp: Backend {
    fn fused_adamw(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rule: AdamWRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AdamWOp for Cube {
    fn fused_adamw(
        weight: GpuTensor,
        gradient: GpuTensor,
        first: GpuTensor,
        second: GpuTensor,
        rule: AdamWRule,
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        let [weight, first, second] = [weight, first, second].map(own);
        let gradient = Self::contiguous(gradient);
        let (correct1, correct2) = rule.corrections();
        let count = elements(&weight);
        unsafe {
            step::launch_unchecked(
                &weight.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                arg(&weight),
                arg(&gradient),
                arg(&first),
                arg(&second),
                rule.beta1 as f32,
                (1.0 - rule.beta1) as f32,
                rule.beta2 as f32,
                (1.0 - rule.beta2) as f32,
                rule.epsilon as f32,
                (1.0 - rule.learning_rate * rule.weight_decay) as f32,
                (rule.learning_rate / correct1) as f32,
                (1.0 / correct2) as f32,
                count as u32,
            );
        }
        (weight, first, second)
    }
}

/// A tensor whose elements lie side by side and that nothing else holds: the same where it is one, else a copy.
fn own(x: GpuTensor) -> GpuTensor {
    let x = Cube::contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn step(
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    epsilon: f32,
    kept: f32,
    rate: f32,
    inverse2: f32,
    elements: u32,
) {
    let mut index = ABSOLUTE_POS;
    while index < elements as usize {
        let slope = gradient[index];
        let mean = beta1 * first[index] + rest1 * slope;
        let square = beta2 * second[index] + rest2 * (slope * slope);
        first[index] = mean;
        second[index] = square;
        weight[index] = weight[index] * kept - rate * mean / ((square * inverse2).sqrt() + epsilon);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
