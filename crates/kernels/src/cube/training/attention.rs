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

use super::super::CacheShape;
use super::super::attention::{PackedRows, TILE, attend_packed, tiles_at_a_time};
use super::super::elementwise::{UNITS, cubes};
use super::super::linear::ProductPath;
use super::attention_kernels::{attend, attend_backward, differences, keys_backward};
use super::attention_tensor_cores;
use super::spans::{Table, keys, queries};
use super::tensor::{GpuTensor, arg, assert_one_type, buffer, empty, empty_like, gpu_of, rows_and_columns, with_type};
use crate::attention::{AttentionOp, AttentionRule};
use crate::buffer::Contiguous;
use crate::{AttentionShape, PackedSpan};

/// Queries of a tile.
pub(super) const QUERIES: usize = TILE;
/// Keys of a tile.
pub(super) const KEYS: usize = 16;
/// Units that share a query or a key.
pub(super) const LANES: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) q: GpuTensor,
    pub(super) k: GpuTensor,
    pub(super) v: GpuTensor,
    output: GpuTensor,
    /// The logarithm of each query's sum of exponentials, `[rows, heads]`.
    pub(super) log_sums: GpuTensor,
    pub(super) spans: Arc<[PackedSpan]>,
    pub(super) shape: AttentionShape,
    /// Whether gradients may be computed in bf16.
    bf16: bool,
}

impl AttentionOp for Cube {
    fn fused_attention(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        spans: Arc<[PackedSpan]>,
        rule: AttentionRule,
    ) -> GpuTensor {
        forward(q, k, v, spans, rule).output
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Cube, 3> for AttentionBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = Cube::contiguous(grads.consume::<Cube>(&ops.node));
        let Saved { q, shape, bf16, .. } = &ops.state;
        let path = path_of_heads(q, *bf16 || q.dtype == DType::BF16, *shape);
        for (parent, gradient) in ops.parents.into_iter().zip(backward(&ops.state, path, &upstream)) {
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
        rule: AttentionRule,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let saved = forward(q, k, v, spans, rule);
        let output = saved.output.clone();
        match AttentionBackward.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(saved, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

fn forward(q: GpuTensor, k: GpuTensor, v: GpuTensor, spans: Arc<[PackedSpan]>, (shape, bf16): AttentionRule) -> Saved {
    let [q, k, v] = [q, k, v].map(Cube::contiguous);
    assert_one_type(&[&q, &k, &v]);
    let (rows, _) = rows_and_columns(&q);
    let (output, log_sums) = (empty_like(&q), empty(&q, [rows, shape.heads], DType::F32));
    let way = match q.dtype {
        DType::F32 if shape.head_dim % 4 == 0 => Way::Generator,
        DType::F32 => Way::Rows(ProductPath::Units),
        _ => Way::Rows(path_of_heads(&q, true, shape)),
    };
    attend_by(way, [&q, &k, &v], &spans, shape, [&output, &log_sums]);
    Saved { q, k, v, output, log_sums, spans, shape, bf16 }
}

/// The kernels of a forward pass.
#[derive(Clone, Copy)]
enum Way {
    /// A generator's, over rows instead of its cache.
    Generator,
    /// Those of packed rows alone.
    Rows(ProductPath),
}

fn attend_by(
    way: Way,
    [q, k, v]: [&GpuTensor; 3],
    spans: &[PackedSpan],
    shape: AttentionShape,
    [output, log_sums]: [&GpuTensor; 2],
) {
    let tile = match way {
        Way::Generator | Way::Rows(ProductPath::Units) => QUERIES,
        Way::Rows(_) => attention_tensor_cores::LINES,
    };
    let queries = queries(spans, tile, q);
    match way {
        _ if queries.lines == 0 => {}
        Way::Generator => as_generated(&queries, [q, k, v], spans, shape, [output, log_sums]),
        Way::Rows(ProductPath::Units) => with_type!(q, F => unsafe {
            attend::launch_unchecked::<F>(
                &q.client,
                CubeCount::Static(queries.lines as u32, shape.heads as u32, 1),
                CubeDim::new_1d((QUERIES * LANES) as u32),
                arg(q),
                arg(k),
                arg(v),
                queries.buffer.arg(),
                arg(output),
                arg(log_sums),
                shape.scale(),
                shape,
            );
        }),
        Way::Rows(path) => attention_tensor_cores::forward(path, [q, k, v], [output, log_sums], &queries, shape),
    }
}

/// The path of products of heads, in bf16 where that is allowed.
fn path_of_heads(q: &GpuTensor, bf16: bool, shape: AttentionShape) -> ProductPath {
    let allowed = bf16 && attention_tensor_cores::takes(shape);
    ProductPath::of(&gpu_of(q), allowed)
}

/// The kernel that a generator attends with, over these rows instead of its cache.
fn as_generated(
    queries: &Table,
    inputs: [&GpuTensor; 3],
    spans: &[PackedSpan],
    shape: AttentionShape,
    outputs: [&GpuTensor; 2],
) {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let shape = CacheShape { heads, kv_heads, head_dim };
    let gpu = gpu_of(inputs[0]);
    let longest = spans.iter().map(PackedSpan::length).max().unwrap_or(0);
    let at_a_time = tiles_at_a_time(shape, longest);
    let (inputs, outputs) = (inputs.map(buffer), outputs.map(buffer));
    for first in (0..queries.lines).step_by(at_a_time) {
        let range = first..queries.lines.min(first + at_a_time);
        let rows = PackedRows { tiles: &queries.buffer, range, longest };
        attend_packed(&gpu, shape, rows, inputs.each_ref(), outputs.each_ref());
    }
}

/// The gradients of `q`, `k` and `v`, `path` of the heads' products.
fn backward(saved: &Saved, path: ProductPath, upstream: &GpuTensor) -> [GpuTensor; 3] {
    let Saved { q, k, v, output, spans, shape, .. } = saved;
    assert_one_type(&[q, upstream]);
    let gradients = [q, k, v].map(empty_like);
    if spans.iter().all(|span| span.own.is_empty()) {
        return gradients;
    }
    let (rows, _) = rows_and_columns(q);
    let of_outputs = &empty(q, [rows, shape.heads], DType::F32);
    with_type!(q, F => unsafe {
        differences::launch_unchecked::<F>(
            &q.client,
            cubes(rows * shape.heads),
            CubeDim::new_1d(UNITS as u32),
            arg(upstream),
            arg(output),
            arg(of_outputs),
            (rows * shape.heads) as u32,
            shape.head_dim as u32,
        );
    });
    match path {
        ProductPath::Units => by_units(saved, [upstream, of_outputs], gradients.each_ref()),
        _ => attention_tensor_cores::backward(path, saved, [upstream, of_outputs], gradients.each_ref()),
    }
    gradients
}

fn by_units(saved: &Saved, [upstream, of_outputs]: [&GpuTensor; 2], [d_q, d_k, d_v]: [&GpuTensor; 3]) {
    let Saved { q, k, v, log_sums, spans, shape, .. } = saved;
    let (shape, queries, [keys, visits]) = (*shape, queries(spans, QUERIES, q), keys(spans, KEYS, q));
    with_type!(q, F => unsafe {
        attend_backward::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(queries.lines as u32, shape.heads as u32, 1),
            CubeDim::new_1d((QUERIES * LANES) as u32),
            arg(q),
            arg(k),
            arg(v),
            queries.buffer.arg(),
            arg(upstream),
            arg(log_sums),
            arg(of_outputs),
            arg(d_q),
            shape.scale(),
            shape,
        );
        keys_backward::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(keys.lines as u32, shape.kv_heads as u32, 1),
            CubeDim::new_1d((KEYS * LANES) as u32),
            arg(q),
            arg(k),
            arg(v),
            keys.buffer.arg(),
            visits.buffer.arg(),
            arg(upstream),
            arg(log_sums),
            arg(of_outputs),
            arg(d_k),
            arg(d_v),
            shape.scale(),
            shape,
        );
    });
}

#[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
mod tests {
    use super::super::testing::{draw, read, tensor, tensor_cores};
    use super::*;

    /// Weights and slopes have eight bits.
    fn assert_near(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let largest = expected.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
            for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                let near = (found - expected).abs() < 6e-3 * largest;
                assert!(near, "{what}, {index}, {place}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn tensor_cores_attend_as_the_units_do_forward_and_backward() {
        let span = |shared, own| PackedSpan { shared, own };
        let packed = [
            vec![span(0..0, 0..1)],
            vec![span(0..0, 0..150), span(0..100, 150..230), span(0..100, 230..231), span(0..0, 231..260)],
            vec![span(0..0, 0..16), span(5..16, 16..33), span(20..22, 33..41)],
        ];
        let paths = tensor_cores();
        for (heads, kv_heads, head_dim) in [(2, 1, 4), (6, 2, 16), (2, 2, 20)] {
            let shape = AttentionShape { heads, kv_heads, head_dim };
            for spans in &packed {
                let rows = spans.iter().map(|span| span.own.len()).sum();
                let of =
                    |seed, heads| tensor(&draw(seed, rows * heads * head_dim, 1.0, true), [rows, heads * head_dim]);
                let spans: Arc<[PackedSpan]> = spans.clone().into();
                let saved = forward(of(1, heads), of(2, kv_heads), of(3, kv_heads), spans.clone(), (shape, true));
                for path in &paths {
                    let found = [empty_like(&saved.output), empty_like(&saved.log_sums)];
                    let inputs = [&saved.q, &saved.k, &saved.v];
                    attend_by(Way::Rows(*path), inputs, &spans, shape, found.each_ref());
                    let expected = [&saved.output, &saved.log_sums].map(read);
                    assert_near(&found.each_ref().map(read), &expected, &format!("{path:?}, {shape:?}, {spans:?}"));
                }
                let upstream = of(4, heads);
                let expected = backward(&saved, ProductPath::Units, &upstream).map(|gradient| read(&gradient));
                for path in &paths {
                    let found = backward(&saved, *path, &upstream).map(|gradient| read(&gradient));
                    assert_near(&found, &expected, &format!("{path:?}, {shape:?}, {spans:?}"));
                }
            }
        }
    }
}
