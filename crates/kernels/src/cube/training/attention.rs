//! Causal attention over packed spans, whose scores are never in the device's memory (Dao et al. 2022, "FlashAttention").
//!
//! In f32 the forward pass is a generator's, with its bits ([`attend_packed`]). In bf16 a cube has a few queries of one head and goes
//! through their keys in the order of the sequence, so that no sum depends on what lies beside a sequence; so it does for the gradient of
//! queries, and for those of keys and values it has a few keys and goes through all queries that see them.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Cube, DType};
use cubecl::prelude::*;

use super::super::attention::{PackedRows, TILE, attend_packed, tiles_at_a_time};
use super::super::elementwise::{UNITS, cubes};
use super::super::{CacheShape, Gpu};
use super::attention_kernels::{attend, attend_backward, differences, keys_backward};
use super::spans::Tables;
use super::tensor::{GpuTensor, arg, assert_one_type, buffer, empty, empty_like, rows_and_columns, with_type};
use crate::attention::AttentionOp;
use crate::buffer::Contiguous;
use crate::{AttentionShape, PackedSpan};

/// Queries of a tile.
pub(super) const QUERIES: usize = TILE;
/// Keys of a tile.
pub(super) const KEYS: usize = 16;
/// Units that share a query or a key.
pub(super) const LANES: usize = 8;

#[derive(Clone, Debug)]
struct Saved {
    q: GpuTensor,
    k: GpuTensor,
    v: GpuTensor,
    output: GpuTensor,
    /// The logarithm of each query's sum of exponentials, `[rows, heads]`.
    log_sums: GpuTensor,
    spans: Arc<[PackedSpan]>,
    shape: AttentionShape,
}

impl AttentionOp for Cube {
    fn fused_attention(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        spans: Arc<[PackedSpan]>,
        shape: AttentionShape,
    ) -> GpuTensor {
        forward(q, k, v, spans, shape).output
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Cube, 3> for AttentionBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = Cube::contiguous(grads.consume::<Cube>(&ops.node));
        for (parent, gradient) in ops.parents.into_iter().zip(backward(&ops.state, &upstream)) {
            if let Some(parent) = parent {
                grads.register::<Cube>(parent.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> AttentionOp for Autodiff<Cube, C> {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spans: Arc<[PackedSpan]>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let saved = forward(q, k, v, spans, shape);
        let output = saved.output.clone();
        match AttentionBackward.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(saved, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

fn forward(q: GpuTensor, k: GpuTensor, v: GpuTensor, spans: Arc<[PackedSpan]>, shape: AttentionShape) -> Saved {
    let [q, k, v] = [q, k, v].map(Cube::contiguous);
    assert_one_type(&[&q, &k, &v]);
    let (rows, _) = rows_and_columns(&q);
    let (output, log_sums) = (empty_like(&q), empty(&q, [rows, shape.heads], DType::F32));
    let tables = Tables::of(&spans, &q);
    if q.dtype == DType::F32 && shape.head_dim % 4 == 0 {
        as_generated(&tables, [&q, &k, &v], &spans, shape, &output, &log_sums);
    } else if tables.queries.lines > 0 {
        with_type!(q, F => unsafe {
            attend::launch_unchecked::<F>(
                &q.client,
                CubeCount::Static(tables.queries.lines as u32, shape.heads as u32, 1),
                CubeDim::new_1d((QUERIES * LANES) as u32),
                arg(&q),
                arg(&k),
                arg(&v),
                tables.queries.buffer.arg(),
                arg(&output),
                arg(&log_sums),
                shape.scale(),
                shape,
            );
        });
    }
    Saved { q, k, v, output, log_sums, spans, shape }
}

/// The kernel that a generator attends with, over these rows instead of its cache.
fn as_generated(
    tables: &Tables,
    inputs: [&GpuTensor; 3],
    spans: &[PackedSpan],
    shape: AttentionShape,
    output: &GpuTensor,
    log_sums: &GpuTensor,
) {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let shape = CacheShape { heads, kv_heads, head_dim };
    let gpu = Gpu { client: output.client.clone() };
    let longest = spans.iter().map(PackedSpan::length).max().unwrap_or(0);
    let at_a_time = tiles_at_a_time(shape, longest);
    let (inputs, outputs) = (inputs.map(buffer), [output, log_sums].map(buffer));
    for first in (0..tables.queries.lines).step_by(at_a_time) {
        let range = first..tables.queries.lines.min(first + at_a_time);
        let rows = PackedRows { tiles: &tables.queries.buffer, range, longest };
        attend_packed(&gpu, shape, rows, inputs.each_ref(), outputs.each_ref());
    }
}

/// The gradients of `q`, `k` and `v`.
fn backward(saved: &Saved, upstream: &GpuTensor) -> [GpuTensor; 3] {
    let Saved { q, k, v, output, log_sums, spans, shape } = saved;
    assert_one_type(&[q, upstream]);
    let gradients = [q, k, v].map(empty_like);
    let [d_q, d_k, d_v] = &gradients;
    let tables = Tables::of(spans, q);
    if tables.queries.lines == 0 {
        return gradients;
    }
    let (rows, _) = rows_and_columns(q);
    let of_outputs = empty(q, [rows, shape.heads], DType::F32);
    with_type!(q, F => unsafe {
        differences::launch_unchecked::<F>(
            &q.client,
            cubes(rows * shape.heads),
            CubeDim::new_1d(UNITS as u32),
            arg(upstream),
            arg(output),
            arg(&of_outputs),
            (rows * shape.heads) as u32,
            shape.head_dim as u32,
        );
        attend_backward::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(tables.queries.lines as u32, shape.heads as u32, 1),
            CubeDim::new_1d((QUERIES * LANES) as u32),
            arg(q),
            arg(k),
            arg(v),
            tables.queries.buffer.arg(),
            arg(upstream),
            arg(log_sums),
            arg(&of_outputs),
            arg(d_q),
            shape.scale(),
            *shape,
        );
        keys_backward::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(tables.keys.lines as u32, shape.kv_heads as u32, 1),
            CubeDim::new_1d((KEYS * LANES) as u32),
            arg(q),
            arg(k),
            arg(v),
            tables.keys.buffer.arg(),
            tables.visits.buffer.arg(),
            arg(upstream),
            arg(log_sums),
            arg(&of_outputs),
            arg(d_k),
            arg(d_v),
            shape.scale(),
            *shape,
        );
    });
    gradients
}
