//! Root-mean-square normalisation of rows.

#[cfg(feature = "cube")]
use burn::backend::Cube;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{Contiguous, contiguous, floats, is_fused, rows_and_columns, tensor};
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
    if !is_fused(&x) {
        return reference::rms_norm(x, weight, epsilon);
    }
    Tensor::from_dispatch(Dispatch::fused_rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon))
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait RmsNormOp: Backend {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
}

/// The operation and its gradients on the tensors of a device.
pub(crate) trait RmsNormKernels: Contiguous {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;

    /// The gradients of `x` and of the weight.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
        upstream: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl RmsNormKernels for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let output = forward(floats(&x), floats(&weight), epsilon as f32);
        tensor(output, x.layout().shape().clone())
    }

    fn rms_norm_backward(x: FlexTensor, weight: FlexTensor, epsilon: f64, upstream: FlexTensor) -> [FlexTensor; 2] {
        let upstream = contiguous(upstream);
        let (d_x, d_weight) = backward(floats(&x), floats(&weight), epsilon as f32, floats(&upstream));
        let (rows, hidden) = rows_and_columns(&x);
        [tensor(d_x, [rows, hidden]), tensor(d_weight, [hidden])]
    }
}

impl RmsNormOp for Flex {
    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        Self::rms_norm(x, weight, epsilon)
    }
}

#[cfg(feature = "cube")]
impl RmsNormOp for Cube {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        Self::rms_norm(x, weight, epsilon)
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: RmsNormKernels> Backward<B, 2> for RmsNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight, epsilon) = ops.state;
        let upstream = grads.consume::<B>(&ops.node);
        let gradients = B::rms_norm_backward(x, weight, epsilon, upstream);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: RmsNormKernels, C: CheckpointStrategy> RmsNormOp for Autodiff<B, C> {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (B::contiguous(x), B::contiguous(weight));
        let output = B::rms_norm(x.clone(), weight.clone(), epsilon);
        match RmsNormBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight, epsilon), output),
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
