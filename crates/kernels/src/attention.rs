//! Causal grouped-query attention that keeps no scores for the backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{contiguous, floats, is_cpu_f32, tensor};
use crate::host::{Attention, KV_BLOCK, KvBlocks, write_key, write_value};
use crate::matrix::{Matrix, MatrixMut, multiply};
use crate::reference;
use crate::vector::{dot, exponentiate, largest, vectorised};

/// Queries that the backward pass handles together; their keys end at the last of them, which skips most masked scores.
const TILE: usize = 64;

/// What the rows and columns of the matrices given to [`causal_attention`] mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Positions of each sequence.
    pub time: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` adjacent query heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// `1 / sqrt(head_dim)`, which multiplies the scores.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn check(&self, q: [usize; 2], k: [usize; 2], v: [usize; 2]) {
        let rows = self.batch * self.time;
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.head_dim > 0,
            "causal_attention: {} heads cannot share {} key heads",
            self.heads,
            self.kv_heads
        );
        let (wanted, wanted_kv) = ([rows, self.heads * self.head_dim], [rows, self.kv_heads * self.head_dim]);
        assert!(
            q == wanted && k == wanted_kv && v == wanted_kv,
            "causal_attention: expected q {wanted:?} and k, v {wanted_kv:?}, got {q:?}, {k:?}, {v:?}"
        );
    }

    /// Where the block of sequence `batch` and head `head` starts in a matrix of `heads` heads.
    fn start(&self, batch: usize, head: usize, heads: usize) -> usize {
        (batch * self.time * heads + head) * self.head_dim
    }

    /// The first `keys` rows of key head `head` of sequence `batch`.
    fn keys<'a>(&self, data: &'a [f32], batch: usize, head: usize, keys: usize) -> Matrix<'a> {
        let start = self.start(batch, head, self.kv_heads);
        Matrix::new(&data[start..], keys, self.head_dim, self.kv_heads * self.head_dim)
    }

    /// Rows `from..to` of query head `head` of sequence `batch`.
    fn queries<'a>(&self, data: &'a [f32], batch: usize, head: usize, from: usize, to: usize) -> Matrix<'a> {
        let stride = self.heads * self.head_dim;
        let start = self.start(batch, head, self.heads) + from * stride;
        Matrix::new(&data[start..], to - from, self.head_dim, stride)
    }
}

/// `softmax(scale * q · kᵀ, over the positions up to the query's own) · v` for every head, with
/// `scale = 1 / sqrt(head_dim)`.
///
/// `q` is `[batch * time, heads * head_dim]`, `k` and `v` are
/// `[batch * time, kv_heads * head_dim]`, as the projections make them; the result has the shape
/// of `q`. Sequences padded on the right need no mask: no position sees a later one.
///
/// On the CPU each result is what [`crate::host::Attention`] makes of the same keys and values in a cache, to the bit.
/// The backward pass recomputes the scores from `q` and `k` (Dao et al. 2022, "FlashAttention"); scratch memory is one
/// tile of queries by `time`.
///
/// # Panics
///
/// If a matrix does not have the shape that `shape` asks for.
pub fn causal_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape) -> Tensor<2> {
    shape.check(q.dims(), k.dims(), v.dims());
    if !is_cpu_f32(&q) {
        return reference::causal_attention(q, k, v, shape);
    }
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_attention(q, k, v, shape))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait AttentionOp: Backend {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;
}

impl AttentionOp for Flex {
    fn fused_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, shape: AttentionShape) -> FlexTensor {
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let output = forward(floats(&q), floats(&k), floats(&v), shape);
        tensor(output, q.layout().shape().clone())
    }
}

#[derive(Debug, Clone)]
struct Saved {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    shape: AttentionShape,
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Saved { q, k, v, shape } = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let gradients = backward(floats(&q), floats(&k), floats(&v), floats(&upstream), shape);
        for ((parent, gradient), input) in ops.parents.into_iter().zip(gradients).zip([q, k, v]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, tensor(gradient, input.layout().shape().clone()));
            }
        }
    }
}

impl<C: CheckpointStrategy> AttentionOp for Autodiff<Flex, C> {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let output = forward(floats(&q), floats(&k), floats(&v), shape);
        let output = tensor(output, q.layout().shape().clone());
        match AttentionBackward.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { q, k, v, shape }, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// The output of every head, computed as decoding does it.
fn forward(q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape) -> Vec<f32> {
    let AttentionShape { time, heads, kv_heads, head_dim, .. } = shape;
    let group = heads / kv_heads;
    let stride = head_dim.next_multiple_of(KV_BLOCK);
    let mut output = vec![0.0; q.len()];
    // The query heads of one key head are adjacent, so they are one wide block.
    let outputs = MatrixMut::blocks(&mut output, time, group * head_dim, heads * head_dim);
    outputs.into_par_iter().enumerate().for_each_init(Attention::default, |attention, (block, output)| {
        let (batch, kv_head) = (block / kv_heads, block % kv_heads);
        let (k, v) = (&k[shape.start(batch, kv_head, kv_heads)..], &v[shape.start(batch, kv_head, kv_heads)..]);
        let mut cache = vec![vec![0.0; KV_BLOCK * (head_dim + stride)]; time.div_ceil(KV_BLOCK)];
        for position in 0..time {
            let columns = position * kv_heads * head_dim..position * kv_heads * head_dim + head_dim;
            let (keys, values) = cache[position / KV_BLOCK].split_at_mut(KV_BLOCK * head_dim);
            write_key(keys, position % KV_BLOCK, &k[columns.clone()]);
            write_value(values, stride, position % KV_BLOCK, &v[columns]);
        }
        let blocks: Vec<&[f32]> = cache.iter().map(|block| &block[..]).collect();
        let cache = KvBlocks { blocks: &blocks, keys: 0, values: KV_BLOCK * head_dim, value_stride: stride };
        let q = &q[shape.start(batch, kv_head * group, heads)..];
        let queries = (0..time).map(|position| &q[position * heads * head_dim..][..group * head_dim]);
        let mut rows = queries.zip(output.into_rows());
        for first in (0..time).step_by(KV_BLOCK) {
            attention.run(head_dim, first, rows.by_ref().take(KV_BLOCK), cache);
        }
    });
    output
}

/// The gradients of `q`, `k` and `v`.
///
/// One task owns one key head and walks its query heads in order, so that the sums over them have
/// one order.
fn backward(q: &[f32], k: &[f32], v: &[f32], upstream: &[f32], shape: AttentionShape) -> [Vec<f32>; 3] {
    let AttentionShape { time, heads, kv_heads, head_dim, .. } = shape;
    let group = heads / kv_heads;
    let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    // The query heads of one key head are adjacent, so they are one wide block.
    let d_q_blocks = MatrixMut::blocks(&mut d_q, time, group * head_dim, heads * head_dim);
    let d_k_blocks = MatrixMut::blocks(&mut d_k, time, head_dim, kv_heads * head_dim);
    let d_v_blocks = MatrixMut::blocks(&mut d_v, time, head_dim, kv_heads * head_dim);
    let blocks = d_q_blocks.into_par_iter().zip(d_k_blocks).zip(d_v_blocks);
    blocks.enumerate().for_each_init(
        || (vec![0.0; TILE * time], vec![0.0; TILE * time]),
        |(weights, d_scores), (block, ((mut d_q, mut d_k), mut d_v))| {
            let (batch, kv_head) = (block / kv_heads, block % kv_heads);
            for member in 0..group {
                let head = kv_head * group + member;
                for from in (0..time).step_by(TILE) {
                    let to = time.min(from + TILE);
                    let size = to - from;
                    let (weights, d_scores) = (&mut weights[..size * to], &mut d_scores[..size * to]);
                    let queries = shape.queries(q, batch, head, from, to);
                    let d_output = shape.queries(upstream, batch, head, from, to);
                    let (keys, values) = (shape.keys(k, batch, kv_head, to), shape.keys(v, batch, kv_head, to));
                    let scale = shape.scale();
                    multiply(MatrixMut::new(weights, size, to, to), false, scale, queries, keys.transposed());
                    multiply(MatrixMut::new(d_scores, size, to, to), false, 1.0, d_output, values.transposed());
                    vectorised(
                        #[inline(always)]
                        || {
                            let rows = weights.chunks_exact_mut(to).zip(d_scores.chunks_exact_mut(to));
                            for (row, (weights, d_scores)) in rows.enumerate() {
                                let seen = from + row + 1;
                                softmax_backward(&mut weights[..seen], &mut d_scores[..seen]);
                                weights[seen..].fill(0.0);
                                d_scores[seen..].fill(0.0);
                            }
                        },
                    );
                    let weights = Matrix::new(weights, size, to, to);
                    let d_scores = Matrix::new(d_scores, size, to, to);
                    let columns = member * head_dim..(member + 1) * head_dim;
                    multiply(d_q.part(from..to).strip(columns), false, scale, d_scores, keys);
                    multiply(d_k.part(0..to), true, scale, d_scores.transposed(), queries);
                    multiply(d_v.part(0..to), true, 1.0, weights.transposed(), d_output);
                }
            }
        },
    );
    [d_q, d_k, d_v]
}

/// Turns one row of scores into its softmax, and the gradient of the softmax into that of the
/// scores.
#[inline(always)]
fn softmax_backward(weights: &mut [f32], gradient: &mut [f32]) {
    let inverse = 1.0 / exponentiate(weights, largest(weights));
    weights.iter_mut().for_each(|weight| *weight *= inverse);
    let mean = dot(weights, gradient);
    for (gradient, weight) in gradient.iter_mut().zip(weights.iter()) {
        *gradient = weight * (*gradient - mean);
    }
}
