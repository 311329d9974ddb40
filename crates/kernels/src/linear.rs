//! Products with a projection's weight, alone or with a low-rank adapter.

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

use crate::buffer::{Contiguous, Values, contiguous, floats, is_fused, rows_and_columns, tensor, values};
use crate::host::{self, multiply_by_rows};
use crate::matrix::{Matrix, MatrixMut, multiply_in_parallel, written};
use crate::reference;

/// `x · weightᵀ`: what a projection without a bias does to every row of `x` (`[rows, in]`). `weight` is `[out, in]`,
/// as checkpoints store it; the result is `[rows, out]`. `weight` may be of 16-bit brain floats beside 32-bit ones in
/// `x`; all sums are of 32 bits.
///
/// With `x` in 32 bits each output is summed in the order in which a generator sums it, to the bit, so that a model
/// says the same of a token when it trains as when it decodes: on the CPU as [`crate::host::Packed::multiply`] does, on a GPU as
/// `cube::Linear`. The weight's gradient comes out as the weight lies.
///
/// # Panics
///
/// If `weight` is not as wide as `x`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let outputs = weight.dims()[0];
    linear_among(x, weight, outputs)
}

/// [`linear`] with a part of what a generator holds as one weight of so many `outputs`, such as queries, keys and values: on a GPU
/// the order of sums goes by that.
///
/// # Panics
///
/// If `weight` is not as wide as `x`.
pub fn linear_among(x: Tensor<2>, weight: Tensor<2>, outputs: usize) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[1], "linear: `weight` must be as wide as `x`");
    if !is_fused(&x) {
        return reference::linear(x, weight);
    }
    Tensor::from_dispatch(Dispatch::fused_linear(x.into_dispatch(), weight.into_dispatch(), outputs))
}

/// [`linear_among`] with a weight to which `scale · b · a` is added: a low-rank adapter (Hu et al. 2021, arXiv:2106.09685).
/// `a` is `[rank, in]`, `b` `[out, rank]`.
///
/// The sum is what a generator makes of it that merges the adapter, so that a model with adapters beside its weights
/// says the same, to the bit, as one with the adapters merged. Nothing of the size of `x · aᵀ` is kept for the backward
/// pass, nor is the sum: both are computed again. With `bf16` the sum is rounded to 16-bit brain floats, as one who decodes
/// with such weights rounds it.
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
    outputs: usize,
) -> Tensor<2> {
    let ([_, inner], [outer, _], [rank, _]) = (x.dims(), weight.dims(), a.dims());
    assert!(
        weight.dims() == [outer, inner] && a.dims() == [rank, inner] && b.dims() == [outer, rank],
        "adapted_linear: x of width {inner}, weight {:?}, a {:?} and b {:?} do not fit together",
        weight.dims(),
        a.dims(),
        b.dims()
    );
    if !is_fused(&x) {
        return reference::adapted_linear(x, weight, a, b, scale);
    }
    let (x, weight, a, b) = (x.into_dispatch(), weight.into_dispatch(), a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_adapted_linear(x, weight, a, b, (scale, bf16, outputs)))
}

/// `weight + scale · b · a`: a weight with its adapter in it, as a generator on a GPU takes it.
pub fn merge_adapter(weight: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scale: f32) -> Tensor<2> {
    weight + linear(b, a.transpose()).mul_scalar(scale)
}

/// Scale, whether the sum is rounded, and the outputs among which these are.
type AdapterRule = (f32, bool, usize);

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait LinearOp: Backend {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, outputs: usize) -> FloatTensor<Self>;
    fn fused_adapted_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        rule: AdapterRule,
    ) -> FloatTensor<Self>;
}

/// The products of a device. Tensors are contiguous; gradients of a weight are in 32 bits whatever it is in.
pub(crate) trait LinearKernels: Contiguous {
    /// `x · weightᵀ`, in the type of `x`.
    fn forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, outputs: usize) -> FloatTensor<Self>;

    /// `upstream · weight`, in the type of `upstream`.
    fn input_gradient(upstream: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `upstreamᵀ · x`, multiplied as `weight` is.
    fn weight_gradient(
        upstream: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: &FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `weight + scale · b · a`, rounded to brain floats or in the type of `weight`.
    fn merge(
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
        bf16: bool,
    ) -> FloatTensor<Self>;

    /// `x · scale`.
    fn scaled(x: FloatTensor<Self>, scale: f32) -> FloatTensor<Self> {
        Self::float_mul_scalar(x, scale.into())
    }
}

impl LinearKernels for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, _: usize) -> FlexTensor {
        let ((rows, inner), (outer, _)) = (rows_and_columns(&x), rows_and_columns(&weight));
        let output = written(rows, outer, |out| multiply_by_weight(floats(&x), values(&weight), inner, out));
        tensor(output, [rows, outer])
    }

    fn input_gradient(upstream: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let ((rows, outer), (_, inner)) = (rows_and_columns(&upstream), rows_and_columns(&weight));
        let upstream = floats(&upstream);
        let gradient = written(rows, inner, |gradient| input_gradient(upstream, values(&weight), outer, gradient));
        tensor(gradient, [rows, inner])
    }

    fn weight_gradient(upstream: FlexTensor, x: FlexTensor, _: &FlexTensor) -> FlexTensor {
        let ((rows, outer), (_, inner)) = (rows_and_columns(&upstream), rows_and_columns(&x));
        tensor(weight_gradient(floats(&upstream), floats(&x), [rows, outer, inner]), [outer, inner])
    }

    fn merge(weight: FlexTensor, a: FlexTensor, b: FlexTensor, scale: f32, bf16: bool) -> FlexTensor {
        let mut merged = floats(&weight).to_vec();
        host::merge_adapter(&mut merged, floats(&a), floats(&b), rows_and_columns(&a).1, scale);
        if bf16 {
            merged.par_chunks_mut(1 << 14).for_each(|values| {
                values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
            });
        }
        tensor(merged, weight.layout().shape().clone())
    }
}

impl LinearOp for Flex {
    fn fused_linear(x: FlexTensor, weight: FlexTensor, outputs: usize) -> FlexTensor {
        Self::forward(contiguous(x), contiguous(weight), outputs)
    }

    fn fused_adapted_linear(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        rule: AdapterRule,
    ) -> FlexTensor {
        adapted_forward::<Self>([x, weight, a, b].map(contiguous), rule)
    }
}

#[cfg(feature = "cube")]
impl LinearOp for Cube {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, outputs: usize) -> FloatTensor<Self> {
        Self::forward(Self::contiguous(x), Self::contiguous(weight), outputs)
    }

    fn fused_adapted_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        rule: AdapterRule,
    ) -> FloatTensor<Self> {
        adapted_forward::<Self>([x, weight, a, b].map(Self::contiguous), rule)
    }
}

fn adapted_forward<B: LinearKernels>(
    [x, weight, a, b]: [FloatTensor<B>; 4],
    (scale, bf16, outputs): AdapterRule,
) -> FloatTensor<B> {
    B::forward(x, B::merge(weight, a, b, scale, bf16), outputs)
}

/// [`multiply_by_rows`] with a weight of either type.
pub(crate) fn multiply_by_weight(x: &[f32], weight: Values<'_>, inner: usize, out: MatrixMut<'_>) {
    match weight {
        Values::F32(weight) => multiply_by_rows(x, weight, inner, out),
        Values::Bf16(weight) => multiply_by_rows(x, weight, inner, out),
    }
}

#[derive(Debug)]
struct LinearBackward;

impl<B: LinearKernels> Backward<B, 2> for LinearBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight) = ops.state;
        let upstream = B::contiguous(grads.consume::<B>(&ops.node));
        let [x_parent, weight_parent] = ops.parents;
        if let Some(parent) = weight_parent {
            grads.register::<B>(parent.id, B::weight_gradient(upstream.clone(), x, &weight));
        }
        if let Some(parent) = x_parent {
            grads.register::<B>(parent.id, B::input_gradient(upstream, weight));
        }
    }
}

impl<B: LinearKernels + LinearOp, C: CheckpointStrategy> LinearOp for Autodiff<B, C> {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, outputs: usize) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (B::contiguous(x), B::contiguous(weight));
        let output = B::forward(x.clone(), weight.clone(), outputs);
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
        rule: AdapterRule,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let inputs = [x, weight, a, b].map(B::contiguous);
        let output = adapted_forward::<B>(inputs.clone(), rule);
        let nodes = [x_node, weight_node, a_node, b_node];
        match AdaptedLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((inputs, rule), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Debug)]
struct AdaptedLinearBackward;

impl<B: LinearKernels> Backward<B, 4> for AdaptedLinearBackward {
    /// Input, weight, `a`, `b`, and how they are put together.
    type State = ([FloatTensor<B>; 4], AdapterRule);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([x, weight, a, b], (scale, bf16, outputs)) = ops.state;
        let upstream = B::contiguous(grads.consume::<B>(&ops.node));
        let [x_parent, weight_parent, a_parent, b_parent] = ops.parents;
        if let Some(parent) = a_parent {
            let low = B::input_gradient(upstream.clone(), b.clone());
            let gradient = B::weight_gradient(low, x.clone(), &a);
            grads.register::<B>(parent.id, B::scaled(gradient, scale));
        }
        if let Some(parent) = b_parent {
            let low = B::forward(x.clone(), a.clone(), outputs);
            let gradient = B::weight_gradient(upstream.clone(), low, &b);
            grads.register::<B>(parent.id, B::scaled(gradient, scale));
        }
        if let Some(parent) = weight_parent {
            grads.register::<B>(parent.id, B::weight_gradient(upstream.clone(), x, &weight));
        }
        if let Some(parent) = x_parent {
            let merged = B::merge(weight, a, b, scale, bf16);
            grads.register::<B>(parent.id, B::input_gradient(upstream, merged));
        }
    }
}

/// `upstream · weight`, `[rows, inner]`, of a weight with so many `outer` rows.
pub(crate) fn input_gradient(upstream: &[f32], weight: Values<'_>, outer: usize, gradient: MatrixMut<'_>) {
    let (rows, inner) = (gradient.rows(), gradient.columns());
    let upstream = Matrix::new(upstream, rows, outer, outer);
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
    written(outer, inner, |gradient| write_weight_gradient(upstream, x, rows, false, gradient))
}

/// As [`weight_gradient`], added to what `gradient` holds if `accumulate`.
pub(crate) fn write_weight_gradient(
    upstream: &[f32],
    x: &[f32],
    rows: usize,
    accumulate: bool,
    gradient: MatrixMut<'_>,
) {
    let (outer, inner) = (gradient.rows(), gradient.columns());
    let upstream = Matrix::new(upstream, rows, outer, outer).transposed();
    multiply_in_parallel(gradient, accumulate, upstream, Matrix::new(x, rows, inner, inner));
}
