//! Products with a projection's weight, alone or with a low-rank adapter.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{Values, contiguous, floats, is_cpu_f32, rows_and_columns, tensor, values};
use crate::host::{merge_adapter, multiply_by_rows};
use crate::matrix::{Matrix, MatrixMut, multiply_in_parallel};
use crate::reference;

/// `x · weightᵀ`: what a projection without a bias does to every row of `x` (`[rows, in]`). `weight` is `[out, in]`,
/// as checkpoints store it; the result is `[rows, out]`. On the CPU it may be of 16-bit brain floats beside 32-bit ones in
/// `x`; all sums are of 32 bits.
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

/// [`linear`] with a weight to which `scale · b · a` is added: a low-rank adapter (Hu et al. 2021, arXiv:2106.09685).
/// `a` is `[rank, in]`, `b` `[out, rank]`.
///
/// On the CPU the sum is what [`crate::host::merge_adapter`] makes of it, so that a model with adapters beside its weights
/// says the same, to the bit, as one with the adapters merged. Nothing of the size of `x · aᵀ` is kept for the backward
/// pass, nor is the sum: both are computed again. With `bf16` the sum is rounded to 16-bit brain floats, as one who decodes
/// with such weights rounds it; elsewhere it is of the type of `x`.
///
/// # Panics
///
/// If the shapes do not fit together.
pub fn adapted_linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f32,
    bf16: bool,
) -> Tensor<2> {
    let ([_, inner], [outer, _], [rank, _]) = (x.dims(), weight.dims(), a.dims());
    assert!(
        weight.dims() == [outer, inner] && a.dims() == [rank, inner] && b.dims() == [outer, rank],
        "adapted_linear: x of width {inner}, weight {:?}, a {:?} and b {:?} do not fit together",
        weight.dims(),
        a.dims(),
        b.dims()
    );
    if !is_cpu_f32(&x) {
        return reference::adapted_linear(x, weight, a, b, scale);
    }
    let (x, weight, a, b) = (x.into_dispatch(), weight.into_dispatch(), a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_adapted_linear(x, weight, a, b, scale, bf16))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearOp: Backend {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_adapted_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
        bf16: bool,
    ) -> FloatTensor<Self>;
}

impl LinearOp for Flex {
    fn fused_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let ((rows, inner), (outer, _)) = (rows_and_columns(&x), rows_and_columns(&weight));
        tensor(forward(floats(&x), values(&weight), [rows, outer, inner]), [rows, outer])
    }

    fn fused_adapted_linear(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        scale: f32,
        bf16: bool,
    ) -> FlexTensor {
        let [x, weight, a, b] = [x, weight, a, b].map(contiguous);
        let ((rows, inner), (outer, _)) = (rows_and_columns(&x), rows_and_columns(&weight));
        let weight = merged(&weight, &a, &b, scale, bf16);
        tensor(forward(floats(&x), Values::F32(&weight), [rows, outer, inner]), [rows, outer])
    }
}

/// `x · weightᵀ`, `[rows, outer]`.
fn forward(x: &[f32], weight: Values<'_>, [rows, outer, inner]: [usize; 3]) -> Vec<f32> {
    let mut output = vec![0.0; rows * outer];
    multiply_by_weight(x, weight, inner, MatrixMut::new(&mut output, rows, outer, outer));
    output
}

/// [`multiply_by_rows`] with a weight of either type.
pub(crate) fn multiply_by_weight(x: &[f32], weight: Values<'_>, inner: usize, out: MatrixMut<'_>) {
    match weight {
        Values::F32(weight) => multiply_by_rows(x, weight, inner, out),
        Values::Bf16(weight) => multiply_by_rows(x, weight, inner, out),
    }
}

/// A weight with its adapter.
fn merged(weight: &FlexTensor, a: &FlexTensor, b: &FlexTensor, scale: f32, bf16: bool) -> Vec<f32> {
    let mut merged = floats(weight).to_vec();
    merge_adapter(&mut merged, floats(a), floats(b), rows_and_columns(a).1, scale);
    if bf16 {
        merged.par_chunks_mut(1 << 14).for_each(|values| {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        });
    }
    merged
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
            input_gradient(upstream, values(&weight), [rows, outer, inner], &mut gradient);
            grads.register::<Flex>(parent.id, tensor(gradient, [rows, inner]));
        }
        if let Some(parent) = weight_parent {
            let gradient = weight_gradient(upstream, floats(&x), [rows, outer, inner]);
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

    fn fused_adapted_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
        bf16: bool,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let inputs = [x, weight, a, b].map(contiguous);
        let [x, weight, a, b] = inputs.clone();
        let output = Flex::fused_adapted_linear(x, weight, a, b, scale, bf16);
        let nodes = [x_node, weight_node, a_node, b_node];
        match AdaptedLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((inputs, scale, bf16), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Debug)]
struct AdaptedLinearBackward;

impl Backward<Flex, 4> for AdaptedLinearBackward {
    /// Input, weight, `a`, `b`, the scale, and whether the sum is rounded.
    type State = ([FlexTensor; 4], f32, bool);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([x, weight, a, b], scale, bf16) = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let ((rows, inner), (outer, _), (rank, _)) =
            (rows_and_columns(&x), rows_and_columns(&weight), rows_and_columns(&a));
        let upstream = floats(&upstream);
        let [x_parent, weight_parent, a_parent, b_parent] = ops.parents;
        if let Some(parent) = x_parent {
            let mut gradient = vec![0.0; rows * inner];
            let merged = merged(&weight, &a, &b, scale, bf16);
            input_gradient(upstream, Values::F32(&merged), [rows, outer, inner], &mut gradient);
            grads.register::<Flex>(parent.id, tensor(gradient, [rows, inner]));
        }
        if let Some(parent) = weight_parent {
            let gradient = weight_gradient(upstream, floats(&x), [rows, outer, inner]);
            grads.register::<Flex>(parent.id, tensor(gradient, [outer, inner]));
        }
        let scaled = |mut gradient: Vec<f32>| {
            gradient.iter_mut().for_each(|value| *value *= scale);
            gradient
        };
        if let Some(parent) = a_parent {
            let mut low = vec![0.0; rows * rank];
            input_gradient(upstream, values(&b), [rows, outer, rank], &mut low);
            let gradient = weight_gradient(&low, floats(&x), [rows, rank, inner]);
            grads.register::<Flex>(parent.id, tensor(scaled(gradient), [rank, inner]));
        }
        if let Some(parent) = b_parent {
            let low = forward(floats(&x), values(&a), [rows, rank, inner]);
            let gradient = weight_gradient(upstream, &low, [rows, outer, rank]);
            grads.register::<Flex>(parent.id, tensor(scaled(gradient), [outer, rank]));
        }
    }
}

/// `upstream · weight`, `[rows, inner]`.
pub(crate) fn input_gradient(
    upstream: &[f32],
    weight: Values<'_>,
    [rows, outer, inner]: [usize; 3],
    gradient: &mut [f32],
) {
    let upstream = Matrix::new(upstream, rows, outer, outer);
    let gradient = MatrixMut::new(gradient, rows, inner, inner);
    match weight {
        Values::F32(weight) => {
            multiply_in_parallel(gradient, false, upstream, Matrix::new(weight, outer, inner, inner))
        }
        Values::Bf16(weight) => {
            multiply_in_parallel(gradient, false, upstream, Matrix::new(weight, outer, inner, inner))
        }
    }
}

/// `upstreamᵀ · x`, `[outer, inner]`.
pub(crate) fn weight_gradient(upstream: &[f32], x: &[f32], [rows, outer, inner]: [usize; 3]) -> Vec<f32> {
    let mut gradient = vec![0.0; outer * inner];
    add_weight_gradient(upstream, x, [rows, outer, inner], &mut gradient);
    gradient
}

/// Adds `upstreamᵀ · x`, `[outer, inner]`.
pub(crate) fn add_weight_gradient(upstream: &[f32], x: &[f32], [rows, outer, inner]: [usize; 3], gradient: &mut [f32]) {
    let upstream = Matrix::new(upstream, rows, outer, outer).transposed();
    let gradient = MatrixMut::new(gradient, outer, inner, inner);
    multiply_in_parallel(gradient, true, upstream, Matrix::new(x, rows, inner, inner));
}
