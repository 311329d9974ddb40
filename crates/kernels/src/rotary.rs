//! Rotary position embedding in the rotate-half convention of Hugging Face checkpoints.

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
use crate::vector::vectorised;

/// Rows of one task; rows do not depend on each other, so it changes no result.
const TASK_ROWS: usize = 64;

/// Rotates element `i` of the first half of every head with element `i` of the second half, by
/// the angle of the row's position (Su et al. 2021, "RoFormer").
///
/// `x` is `[batch * time, heads * head_dim]`; `cos` and `sin` are `[time, head_dim / 2]` and get
/// no gradient. Row `r` is position `r % time`. The result has the shape of `x`.
///
/// # Panics
///
/// If the shapes do not fit together.
pub fn rotary(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<2> {
    let ([rows, width], [time, half]) = (x.dims(), cos.dims());
    assert!(
        sin.dims() == [time, half] && width == heads * 2 * half && rows.is_multiple_of(time),
        "rotary: x [{rows}, {width}] of {heads} heads does not fit cos [{time}, {half}] and sin {:?}",
        sin.dims()
    );
    if !is_fused(&x) {
        return reference::rotary(x, cos, sin, heads);
    }
    Tensor::from_dispatch(Dispatch::fused_rotary(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()))
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait RotaryOp: Backend {
    fn fused_rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The operation on the tensors of a device. Its gradient is the rotation back.
pub(crate) trait RotaryKernels: Contiguous {
    /// The rotation by `direction` times the angles of the tables.
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self>;
}

impl RotaryKernels for Flex {
    fn rotate(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, direction: f32) -> FlexTensor {
        rotate(x, &contiguous(cos), &contiguous(sin), direction)
    }
}

impl RotaryOp for Flex {
    fn fused_rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        Self::rotate(x, cos, sin, 1.0)
    }
}

#[cfg(feature = "cube")]
impl RotaryOp for Cube {
    fn fused_rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::rotate(x, cos, sin, 1.0)
    }
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: RotaryKernels> Backward<B, 1> for RotaryBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin) = ops.state;
        let upstream = grads.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::rotate(upstream, cos, sin, -1.0));
        }
    }
}

impl<B: RotaryKernels, C: CheckpointStrategy> RotaryOp for Autodiff<B, C> {
    fn fused_rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (cos, sin) = (B::contiguous(cos.into_primitive()), B::contiguous(sin.into_primitive()));
        let output = B::rotate(x, cos.clone(), sin.clone(), 1.0);
        match RotaryBackward.prepare::<C>([x_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((cos, sin), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// The rotation by `direction` times the angles of the tables.
fn rotate(x: FlexTensor, cos: &FlexTensor, sin: &FlexTensor, direction: f32) -> FlexTensor {
    let x = contiguous(x);
    let ((rows, width), (time, half)) = (rows_and_columns(&x), rows_and_columns(cos));
    let (x, cos, sin) = (floats(&x), floats(cos), floats(sin));
    let mut output = vec![0.0; x.len()];
    let tasks = output.par_chunks_mut(TASK_ROWS * width).zip(x.par_chunks(TASK_ROWS * width)).enumerate();
    tasks.for_each(|(task, (output, x))| {
        vectorised(
            #[inline(always)]
            || {
                for (row, (output, x)) in output.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                    let position = (task * TASK_ROWS + row) % time;
                    let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                    for (output, x) in output.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                        let ((a, b), (out_a, out_b)) = (x.split_at(half), output.split_at_mut(half));
                        for (((out, a), b), (cos, sin)) in out_a.iter_mut().zip(a).zip(b).zip(cos.iter().zip(sin)) {
                            *out = a * cos - b * (direction * sin);
                        }
                        for (((out, a), b), (cos, sin)) in out_b.iter_mut().zip(a).zip(b).zip(cos.iter().zip(sin)) {
                            *out = b * cos + a * (direction * sin);
                        }
                    }
                }
            },
        )
    });
    tensor(output, [rows, width])
}
