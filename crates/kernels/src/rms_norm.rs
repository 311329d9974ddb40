//! Root-mean-square normalisation of rows.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{contiguous, floats, is_cpu_f32, rows_and_columns, tensor};
use crate::reference;
use crate::vector::{dot, dot3, vectorised};

/// Rows of one task. The weight's gradient is summed task by task, so this is part of the result.
const TASK_ROWS: usize = 128;

/// `weight * x / sqrt(mean(x²) + epsilon)` for every row (Zhang and Sennrich 2019).
///
/// `x` is `[rows, hidden]`, `weight` `[hidden]`; the result has the shape of `x`.
///
/// # Panics
///
/// If `weight` is not as wide as `x`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "rms_norm: `weight` must be as wide as `x`");
    if !is_cpu_f32(&x) {
        return reference::rms_norm(x, weight, epsilon);
    }
    Tensor::from_dispatch(Dispatch::fused_rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait RmsNormOp: Backend {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
}

impl RmsNormOp for Flex {
    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let output = forward(floats(&x), floats(&weight), epsilon as f32);
        tensor(output, x.layout().shape().clone())
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl Backward<Flex, 2> for RmsNormBackward {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight, epsilon) = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let (d_x, d_weight) = backward(floats(&x), floats(&weight), epsilon, floats(&upstream));
        let (rows, hidden) = rows_and_columns(&x);
        let [x_parent, weight_parent] = ops.parents;
        if let Some(parent) = x_parent {
            grads.register::<Flex>(parent.id, tensor(d_x, [rows, hidden]));
        }
        if let Some(parent) = weight_parent {
            grads.register::<Flex>(parent.id, tensor(d_weight, [hidden]));
        }
    }
}

impl<C: CheckpointStrategy> RmsNormOp for Autodiff<Flex, C> {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (contiguous(x), contiguous(weight));
        let output = Flex::fused_rms_norm(x.clone(), weight.clone(), epsilon);
        match RmsNormBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight, epsilon as f32), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    normalise(x, weight, epsilon, &mut output);
    output
}

/// The norm of each row, on all threads.
pub(crate) fn normalise(x: &[f32], weight: &[f32], epsilon: f32, output: &mut [f32]) {
    let hidden = weight.len().max(1);
    output.par_chunks_mut(TASK_ROWS * hidden).zip(x.par_chunks(TASK_ROWS * hidden)).for_each(|(output, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (output, x) in output.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)) {
                    let inverse = inverse_rms(x, epsilon);
                    for ((output, x), weight) in output.iter_mut().zip(x).zip(weight) {
                        *output = x * inverse * weight;
                    }
                }
            },
        )
    });
}

/// The gradients of `x` and of the weight.
fn backward(x: &[f32], weight: &[f32], epsilon: f32, upstream: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let hidden = weight.len().max(1);
    let task = TASK_ROWS * hidden;
    let mut d_x = vec![0.0; x.len()];
    let tasks = d_x.par_chunks_mut(task).zip(x.par_chunks(task)).zip(upstream.par_chunks(task));
    let partial: Vec<Vec<f32>> = tasks
        .map(|((d_x, x), upstream)| {
            let mut d_weight = vec![0.0; hidden];
            vectorised(
                #[inline(always)]
                || {
                    let rows = d_x.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden));
                    for ((d_x, x), upstream) in rows.zip(upstream.chunks_exact(hidden)) {
                        backward_row(x, weight, epsilon, upstream, d_x, &mut d_weight);
                    }
                },
            );
            d_weight
        })
        .collect();
    let mut d_weight = vec![0.0; weight.len()];
    for partial in partial {
        d_weight.iter_mut().zip(partial).for_each(|(total, part)| *total += part);
    }
    (d_x, d_weight)
}

#[inline(always)]
fn backward_row(x: &[f32], weight: &[f32], epsilon: f32, upstream: &[f32], d_x: &mut [f32], d_weight: &mut [f32]) {
    let inverse = inverse_rms(x, epsilon);
    let mean = dot3(x, weight, upstream) * inverse * inverse / x.len() as f32;
    for ((d_x, x), (weight, upstream)) in d_x.iter_mut().zip(x).zip(weight.iter().zip(upstream)) {
        *d_x = inverse * (upstream * weight - x * mean);
    }
    for ((d_weight, x), upstream) in d_weight.iter_mut().zip(x).zip(upstream) {
        *d_weight += upstream * x * inverse;
    }
}
