//! `silu(gate) * up`, the gate of a Llama-shaped MLP.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{contiguous, floats, is_cpu_f32, tensor};
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
    if !is_cpu_f32(&gate) {
        return reference::swiglu(gate, up);
    }
    Tensor::from_dispatch(Dispatch::fused_swiglu(gate.into_dispatch(), up.into_dispatch()))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait SwigluOp: Backend {
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SwigluOp for Flex {
    fn fused_swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let shape = gate.layout().shape().clone();
        let (gate, up) = (contiguous(gate), contiguous(up));
        tensor(forward(floats(&gate), floats(&up)), shape)
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 2> for SwigluBackward {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (gate, up) = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let (d_gate, d_up) = backward(floats(&gate), floats(&up), floats(&upstream));
        for (parent, gradient) in ops.parents.into_iter().zip([d_gate, d_up]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, tensor(gradient, gate.layout().shape().clone()));
            }
        }
    }
}

impl<C: CheckpointStrategy> SwigluOp for Autodiff<Flex, C> {
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let (gate, up) = (contiguous(gate), contiguous(up));
        let output = Flex::fused_swiglu(gate.clone(), up.clone());
        match SwigluBackward.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((gate, up), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
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
