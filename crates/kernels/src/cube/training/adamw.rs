//! A step of AdamW, in place where nothing else holds a tensor.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use cubecl::prelude::*;

use super::super::WeightCopy;
use super::super::elementwise::{UNITS, cubes};
use super::super::linear::{Layout, write_pair};
use super::tensor::{GpuTensor, arg, elements, is_gpu};
use crate::AdamWRule;
use crate::buffer::Contiguous;

/// Whether [`adamw`] takes tensors: on a GPU, of 32-bit floats, vectors or matrices.
pub(crate) fn takes<const D: usize>(tensors: [&Tensor<D>; 4]) -> bool {
    D <= 2 && tensors.into_iter().all(|tensor| is_gpu(tensor) && tensor.dtype() == DType::F32)
}

/// The updated weight and its two moments. The updated weight also goes to `copy`.
pub(crate) fn adamw<const D: usize>(
    [weight, gradient, first, second]: [Tensor<D>; 4],
    rule: &AdamWRule,
    copy: Option<&WeightCopy>,
) -> [Tensor<D>; 3] {
    let [weight, gradient, first, second] = [weight, gradient, first, second].map(Tensor::into_dispatch);
    let (weight, first, second) = Dispatch::fused_adamw(weight, gradient, first, second, (*rule, copy.cloned()));
    [weight, first, second].map(Tensor::from_dispatch)
}

/// The numbers of a rule, as the kernels take them.
#[derive(CubeType, CubeLaunch)]
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    epsilon: f32,
    kept: f32,
    rate: f32,
    inverse2: f32,
}

fn factors(rule: &AdamWRule) -> FactorsLaunch {
    let (correct1, correct2) = rule.corrections();
    FactorsLaunch::new(
        rule.beta1 as f32,
        (1.0 - rule.beta1) as f32,
        rule.beta2 as f32,
        (1.0 - rule.beta2) as f32,
        rule.epsilon as f32,
        (1.0 - rule.learning_rate * rule.weight_decay) as f32,
        (rule.learning_rate / correct1) as f32,
        (1.0 / correct2) as f32,
    )
}

#[backend_extension(Cube)]
pub(crate) trait AdamWOp: Backend {
    fn fused_adamw(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rule: (AdamWRule, Option<WeightCopy>),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AdamWOp for Cube {
    fn fused_adamw(
        weight: GpuTensor,
        gradient: GpuTensor,
        first: GpuTensor,
        second: GpuTensor,
        (rule, copy): (AdamWRule, Option<WeightCopy>),
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        let [weight, first, second] = [weight, first, second].map(own);
        let gradient = Self::contiguous(gradient);
        let tensors = [&weight, &gradient, &first, &second].map(arg);
        launch(&weight, tensors, factors(&rule), copy);
        (weight, first, second)
    }
}

/// A tensor whose elements lie side by side and that nothing else holds: the same where it is one, else a copy.
fn own(x: GpuTensor) -> GpuTensor {
    let x = Cube::contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

fn launch(
    weight: &GpuTensor,
    [weights, gradient, first, second]: [BufferArg; 4],
    factors: FactorsLaunch,
    copy: Option<WeightCopy>,
) {
    let (client, units) = (&weight.client, CubeDim::new_1d(UNITS as u32));
    let Some(copy) = copy else {
        let count = elements(weight);
        unsafe {
            step::launch_unchecked(
                client,
                cubes(count),
                units,
                weights,
                gradient,
                first,
                second,
                factors,
                count as u32,
            );
        }
        return;
    };
    let [rows, inner] = copy.shape();
    let [group, stride, start, words] = copy.lines();
    unsafe {
        step_with_copy::launch_unchecked(
            client,
            cubes(rows * inner.div_ceil(2)),
            units,
            weights,
            gradient,
            first,
            second,
            factors,
            copy.arg(),
            rows as u32,
            inner as u32,
            group,
            stride,
            start,
            words,
            copy.layout(),
        );
    }
}

#[cube(launch_unchecked)]
fn step(weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], factors: Factors, elements: u32) {
    let mut at = ABSOLUTE_POS;
    while at < elements as usize {
        updated(weight, gradient, first, second, at, &factors);
        at += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// Two adjacent numbers of a row at a time, which are one word of a copy in bf16.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn step_with_copy(
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
    copy: &mut [u32],
    rows: u32,
    inner: u32,
    group: u32,
    stride: u32,
    start: u32,
    words: u32,
    #[comptime] layout: Layout,
) {
    let inner = inner as usize;
    let pairs = inner.div_ceil(2usize);
    let mut index = ABSOLUTE_POS;
    while index < rows as usize * pairs {
        let row = index / pairs;
        let input = index % pairs * 2;
        let at = row * inner + input;
        let low = updated(weight, gradient, first, second, at, &factors);
        let mut high = 0.0f32;
        if input + 1 < inner {
            high = updated(weight, gradient, first, second, at + 1, &factors);
        }
        let (group, stride) = (group as usize, stride as usize);
        write_pair(copy, low, high, row, input, inner, group, stride, start as usize, words as usize, layout);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// Updates one number and returns it. The compiler is left no choice of what it adds to what, so that the two kernels say the same
/// to the bit.
#[cube]
fn updated(
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    at: usize,
    factors: &Factors,
) -> f32 {
    let slope = gradient[at];
    let mean = fma(factors.beta1, first[at], factors.rest1 * slope);
    let square = fma(factors.beta2, second[at], factors.rest2 * (slope * slope));
    let value =
        fma(weight[at], factors.kept, -(factors.rate * mean / ((square * factors.inverse2).sqrt() + factors.epsilon)));
    first[at] = mean;
    second[at] = square;
    weight[at] = value;
    value
}
