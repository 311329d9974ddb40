//! `silu(gate) * up`, the gate of a Llama-shaped MLP, alone and with the projection behind it.

#[cfg(feature = "cube")]
use burn::backend::Cube;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{Contiguous, contiguous, floats, is_fused, tensor};
use crate::linear::LinearKernels;
use crate::reference;
use crate::vector::{sigmoid, vectorised};

/// Elements in one parallel task; elements do not depend on each other, so it changes no result.
const TASK: usize = 1 << 14;

/// `silu(gate) * up`, element by element (Shazeer 2020, "GLU Variants Improve Transformer").
///
/// `gate` and `up` are `[rows, width]`, and so is the result.
///
/// # Panics
///
/// If the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "swiglu: `gate` and `up` must have one shape");
    if !is_fused(&gate) {
        return reference::swiglu(gate, up);
    }
    Tensor::from_dispatch(Dispatch::fused_swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// [`linear`](crate::linear) of [`swiglu`], with the bits of both. The backward pass computes the gated values, a third of what an MLP
/// would keep, again.
///
/// `gate` and `up` are `[rows, in]`, `weight` `[out, in]`; the result is `[rows, out]`.
///
/// # Panics
///
/// If the shapes do not fit together.
pub fn swiglu_linear(gate: Tensor<2>, up: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    assert!(
        gate.dims() == up.dims() && gate.dims()[1] == weight.dims()[1],
        "swiglu_linear: `gate`, `up` and `weight` must be of one width"
    );
    if !is_fused(&gate) {
        return reference::linear(reference::swiglu(gate, up), weight);
    }
    let (gate, up, weight) = (gate.into_dispatch(), up.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_swiglu_linear(gate, up, weight))
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait SwigluOp: Backend {
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait SwigluLinearOp: Backend {
    fn fused_swiglu_linear(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The gate and its gradients on the tensors of a device.
pub(crate) trait SwigluKernels: Contiguous {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradients of `gate` and of `up`.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl SwigluKernels for Flex {
    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let shape = gate.layout().shape().clone();
        let (gate, up) = (contiguous(gate), contiguous(up));
        tensor(forward(floats(&gate), floats(&up)), shape)
    }

    fn swiglu_backward(gate: FlexTensor, up: FlexTensor, upstream: FlexTensor) -> [FlexTensor; 2] {
        let upstream = contiguous(upstream);
        let (d_gate, d_up) = backward(floats(&gate), floats(&up), floats(&upstream));
        [d_gate, d_up].map(|gradient| tensor(gradient, gate.layout().shape().clone()))
    }
}

impl SwigluOp for Flex {
    fn fused_swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        Self::swiglu(gate, up)
    }
}

#[cfg(feature = "cube")]
impl SwigluOp for Cube {
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::swiglu(gate, up)
    }
}

impl SwigluLinearOp for Flex {
    fn fused_swiglu_linear(gate: FlexTensor, up: FlexTensor, weight: FlexTensor) -> FlexTensor {
        gated_product::<Self>([gate, up, weight])
    }
}

#[cfg(feature = "cube")]
impl SwigluLinearOp for Cube {
    fn fused_swiglu_linear(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        gated_product::<Self>([gate, up, weight])
    }
}

fn gated_product<B: SwigluKernels + LinearKernels>([gate, up, weight]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
    let outputs = weight.shape()[0];
    B::forward(B::swiglu(gate, up), B::contiguous(weight), outputs)
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: SwigluKernels> Backward<B, 2> for SwigluBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (gate, up) = ops.state;
        let upstream = grads.consume::<B>(&ops.node);
        let gradients = B::swiglu_backward(gate, up, upstream);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: SwigluKernels, C: CheckpointStrategy> SwigluOp for Autodiff<B, C> {
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let (gate, up) = (B::contiguous(gate), B::contiguous(up));
        let output = B::swiglu(gate.clone(), up.clone());
        match SwigluBackward.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((gate, up), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

impl<B: SwigluKernels + LinearKernels + SwigluLinearOp, C: CheckpointStrategy> SwigluLinearOp for Autodiff<B, C> {
    fn fused_swiglu_linear(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let (weight, weight_node) = weight.into_parts();
        let inputs = [gate, up, weight].map(B::contiguous);
        let output = gated_product::<B>(inputs.clone());
        match SwigluLinearBackward.prepare::<C>([gate_node, up_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(inputs, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Debug)]
struct SwigluLinearBackward;

impl<B: SwigluKernels + LinearKernels> Backward<B, 3> for SwigluLinearBackward {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate, up, weight] = ops.state;
        let upstream = B::contiguous(grads.consume::<B>(&ops.node));
        let [gate_parent, up_parent, weight_parent] = ops.parents;
        if let Some(parent) = weight_parent {
            let gated = B::swiglu(gate.clone(), up.clone());
            grads.register::<B>(parent.id, B::weight_gradient(upstream.clone(), gated, &weight));
        }
        if gate_parent.is_some() || up_parent.is_some() {
            let gradients = B::swiglu_backward(gate, up, B::input_gradient(upstream, weight));
            for (parent, gradient) in [gate_parent, up_parent].into_iter().zip(gradients) {
                if let Some(parent) = parent {
                    grads.register::<B>(parent.id, gradient);
                }
            }
        }
    }
}

fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; gate.len()];
    output.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK)).for_each(|((output, gate), up)| {
        vectorised(
            #[inline(always)]
            || {
                for ((output, gate), up) in output.iter_mut().zip(gate).zip(up) {
                    *output = gate * sigmoid(*gate) * up;
                }
            },
        )
    });
    output
}

fn backward(gate: &[f32], up: &[f32], upstream: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut d_gate, mut d_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let outputs = d_gate.par_chunks_mut(TASK).zip(d_up.par_chunks_mut(TASK));
    let inputs = gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(upstream.par_chunks(TASK));
    outputs.zip(inputs).for_each(|((d_gate, d_up), ((gate, up), upstream))| {
        vectorised(
            #[inline(always)]
            || {
                let outputs = d_gate.iter_mut().zip(d_up);
                for (((d_gate, d_up), (gate, up)), upstream) in outputs.zip(gate.iter().zip(up)).zip(upstream) {
                    let s = sigmoid(*gate);
                    *d_up = upstream * gate * s;
                    *d_gate = upstream * up * s * (1.0 + gate * (1.0 - s));
                }
            },
        )
    });
    (d_gate, d_up)
}
