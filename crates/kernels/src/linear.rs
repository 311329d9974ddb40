//! Products with a projection's weight.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{contiguous, floats, is_cpu_f32, rows_and_columns, tensor};
use crate::host::multiply_by_rows;
use crate::matrix::{Matrix, MatrixMut, multiply};
use crate::reference;

/// Columns of the input's gradient, or rows of the weight's, of one task.
const TASK: usize = 96;

/// `x · weightᵀ`: what a projection without a bias does to every row of `x` (`[rows, in]`). `weight` is `[out, in]`,
/// as checkpoints store it; the result is `[rows, out]`.
///
/// On the CPU each output is summed in the order of [`crate::host::Packed::multiply`], to the bit, so that a model
/// says the same of a token when it trains as when it decodes; and the weight's gradient comes out as the weight lies.
///
/// # Panics
///
/// If `weight` is not as wide as `x`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[1], "linear: `weight` must be as wide as `x`");
    if !is_cpu_f32(&x) {
        return reference::linear(x, weight);
    }
    Tensor::from_dispatch(Dispatch::fused_linear(x.into_dispatch(), weight.into_dispatch()))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearOp: Backend {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LinearOp for Flex {
    fn fused_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let ((rows, inner), (outer, _)) = (rows_and_columns(&x), rows_and_columns(&weight));
        let mut output = vec![0.0; rows * outer];
        multiply_by_rows(floats(&x), floats(&weight), inner, MatrixMut::new(&mut output, rows, outer, outer));
        tensor(output, [rows, outer])
    }
}

#[derive(Debug)]
struct LinearBackward;

impl Backward<Flex, 2> for LinearBackward {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight) = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let ((rows, inner), (outer, _)) = (rows_and_columns(&x), rows_and_columns(&weight));
        let upstream = floats(&upstream);
        let [x_parent, weight_parent] = ops.parents;
        if let Some(parent) = x_parent {
            let mut gradient = vec![0.0; rows * inner];
            input_gradient(upstream, floats(&weight), [rows, outer, inner], &mut gradient);
            grads.register::<Flex>(parent.id, tensor(gradient, [rows, inner]));
        }
        if let Some(parent) = weight_parent {
            let mut gradient = vec![0.0; outer * inner];
            add_weight_gradient(upstream, floats(&x), [rows, outer, inner], &mut gradient);
            grads.register::<Flex>(parent.id, tensor(gradient, [outer, inner]));
        }
    }
}

impl<C: CheckpointStrategy> LinearOp for Autodiff<Flex, C> {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (contiguous(x), contiguous(weight));
        let output = Flex::fused_linear(x.clone(), weight.clone());
        match LinearBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// `upstream · weight`, `[rows, inner]`.
pub(crate) fn input_gradient(upstream: &[f32], weight: &[f32], [rows, outer, inner]: [usize; 3], gradient: &mut [f32]) {
    let upstream = Matrix::new(upstream, rows, outer, outer);
    let strips = MatrixMut::new(gradient, rows, inner, inner).strips(TASK);
    strips.into_par_iter().with_max_len(1).enumerate().for_each(|(strip, gradient)| {
        let columns = TASK.min(inner - strip * TASK);
        let weight = Matrix::new(&weight[strip * TASK..], outer, columns, inner);
        multiply(gradient, false, 1.0, upstream, weight);
    });
}

/// Adds `upstreamᵀ · x`, `[outer, inner]`.
pub(crate) fn add_weight_gradient(upstream: &[f32], x: &[f32], [rows, outer, inner]: [usize; 3], gradient: &mut [f32]) {
    let x = Matrix::new(x, rows, inner, inner);
    gradient.par_chunks_mut((TASK * inner).max(1)).with_max_len(1).enumerate().for_each(|(strip, gradient)| {
        let outputs = gradient.len() / inner;
        let upstream = Matrix::new(&upstream[strip * TASK..], rows, outputs, outer).transposed();
        multiply(MatrixMut::new(gradient, outputs, inner, inner), true, 1.0, upstream, x);
    });
}
