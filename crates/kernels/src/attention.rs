//! Causal grouped-query attention that keeps no scores for the backward pass.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::buffer::{contiguous, floats, is_cpu_f32, is_fused, tensor};
use crate::host::{Attention, KV_BLOCK, KvBlocks, write_key, write_value};
use crate::matrix::{Matrix, MatrixMut, multiply};
use crate::reference;
use crate::vector::{dot, exponentiate, largest, vectorised};

/// Queries that the backward pass handles together; their keys end at the last of them, which skips most masked scores.
const TILE: usize = 64;
/// The widest heads that a GPU's kernels of [`causal_attention`] take.
pub const LARGEST_HEAD: usize = 128;

/// The layout of heads in the columns of [`causal_attention`]'s matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` adjacent query heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

/// Adjacent positions of one sequence among the rows of the matrices given to [`causal_attention`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedSpan {
    /// The rows of the positions before, which further spans may continue as well: a prompt that several sequences
    /// begin with. Empty where the span begins the sequence.
    pub shared: Range<usize>,
    /// The rows of its own positions.
    pub own: Range<usize>,
}

impl PackedSpan {
    /// Positions up to its last one.
    pub(crate) fn length(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// The rows of these positions.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.shared.clone().chain(self.own.clone())
    }
}

impl AttentionShape {
    /// `1 / sqrt(head_dim)`, which multiplies the scores.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Width of the query heads that one key head serves, which are adjacent.
    fn group_width(&self) -> usize {
        self.heads / self.kv_heads * self.head_dim
    }

    fn check(&self, q: [usize; 2], k: [usize; 2], v: [usize; 2], spans: &[PackedSpan]) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.head_dim > 0,
            "causal_attention: {} heads cannot share {} key heads",
            self.heads,
            self.kv_heads
        );
        let mut rows = 0;
        for PackedSpan { shared, own } in spans {
            assert!(
                own.start == rows && own.end >= rows && shared.end <= rows,
                "causal_attention: after {rows} rows the next span cannot be rows {own:?} behind {shared:?}"
            );
            rows = own.end;
        }
        let (wanted, wanted_kv) = ([rows, self.heads * self.head_dim], [rows, self.kv_heads * self.head_dim]);
        assert!(
            q == wanted && k == wanted_kv && v == wanted_kv,
            "causal_attention: expected q {wanted:?} and k, v {wanted_kv:?}, got {q:?}, {k:?}, {v:?}"
        );
    }

    /// The vectors of a key head in these rows of a matrix of keys or values, one below the other.
    fn gather(&self, data: &[f32], kv_head: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let stride = self.kv_heads * self.head_dim;
        rows.flat_map(|row| &data[row * stride + kv_head * self.head_dim..][..self.head_dim]).copied().collect()
    }

    /// The part of every key head and span in a matrix that has `width` columns for a key head, key head after key head.
    fn parts<'a>(&self, data: &'a mut [f32], width: usize, spans: &[PackedSpan]) -> Vec<MatrixMut<'a>> {
        let (columns, rows) = (width * self.kv_heads, data.len() / (width * self.kv_heads));
        let strips = MatrixMut::new(data, rows, columns, columns).strips(width);
        strips.into_iter().flat_map(|strip| strip.cut(spans.iter().map(|span| span.own.len()))).collect()
    }
}

/// `softmax(scale * q · kᵀ, over the positions up to the query's own) · v` for every head, with
/// `scale = 1 / sqrt(head_dim)`.
///
/// `q` is `[rows, heads * head_dim]`, `k` and `v` are `[rows, kv_heads * head_dim]`, as the projections make them; the
/// result has the shape of `q`. The spans' own rows are all rows, in order: sequences of any lengths lie end to end,
/// without padding, and what they have in common at their beginning need be there only once.
///
/// On the CPU each result is what [`crate::host::Attention`] makes of the same keys and values in a cache, to the bit.
/// The backward pass recomputes the scores from `q` and `k` (Dao et al. 2022, "FlashAttention"); scratch memory is one
/// tile of queries by the length of a sequence for each thread. So it is on a GPU, for heads of at most 128 numbers; wider ones have
/// their scores in memory.
///
/// # Panics
///
/// If a matrix does not have the shape that `shape` and `spans` ask for, or the spans do not follow one another.
pub fn causal_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    spans: &Arc<[PackedSpan]>,
    shape: AttentionShape,
) -> Tensor<2> {
    causal_attention_in(q, k, v, spans, shape, false)
}

/// [`causal_attention`], whose backward pass may with `bf16` round what it multiplies on a GPU to 16-bit brain floats, as products
/// with weights in them do. It always does so for matrices of that type.
///
/// # Panics
///
/// As [`causal_attention`].
pub fn causal_attention_in(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    spans: &Arc<[PackedSpan]>,
    shape: AttentionShape,
    bf16: bool,
) -> Tensor<2> {
    shape.check(q.dims(), k.dims(), v.dims(), spans);
    // A GPU's kernels keep some rows of every matrix in the fast memory of a cube.
    let has_kernels = is_cpu_f32(&q) || (is_fused(&q) && shape.head_dim <= LARGEST_HEAD);
    if !has_kernels {
        return reference::causal_attention(q, k, v, spans, shape);
    }
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_attention(q, k, v, Arc::clone(spans), (shape, bf16)))
}

/// The heads, and whether the backward pass may round what it multiplies.
pub(crate) type AttentionRule = (AttentionShape, bool);

#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait AttentionOp: Backend {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spans: Arc<[PackedSpan]>,
        rule: AttentionRule,
    ) -> FloatTensor<Self>;
}

impl AttentionOp for Flex {
    fn fused_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        spans: Arc<[PackedSpan]>,
        (shape, _): AttentionRule,
    ) -> FlexTensor {
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let output = forward(floats(&q), floats(&k), floats(&v), &spans, shape);
        tensor(output, q.layout().shape().clone())
    }
}

#[derive(Debug, Clone)]
struct Saved {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    spans: Arc<[PackedSpan]>,
    shape: AttentionShape,
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Saved { q, k, v, spans, shape } = ops.state;
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let gradients = backward(floats(&q), floats(&k), floats(&v), floats(&upstream), &spans, shape);
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
        spans: Arc<[PackedSpan]>,
        (shape, _): AttentionRule,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let output = forward(floats(&q), floats(&k), floats(&v), &spans, shape);
        let output = tensor(output, q.layout().shape().clone());
        match AttentionBackward.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { q, k, v, spans, shape }, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// The output of every head, computed as decoding does it.
fn forward(q: &[f32], k: &[f32], v: &[f32], spans: &[PackedSpan], shape: AttentionShape) -> Vec<f32> {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let stride = head_dim.next_multiple_of(KV_BLOCK);
    let mut output = vec![0.0; q.len()];
    let outputs = shape.parts(&mut output, shape.group_width(), spans);
    outputs.into_par_iter().with_max_len(1).enumerate().for_each_init(
        Attention::default,
        |attention, (part, output)| {
            let (kv_head, span) = (part / spans.len(), &spans[part % spans.len()]);
            let mut cache = vec![vec![0.0; KV_BLOCK * (head_dim + stride)]; span.length().div_ceil(KV_BLOCK)];
            for (position, row) in span.rows().enumerate() {
                let columns = (row * kv_heads + kv_head) * head_dim..(row * kv_heads + kv_head + 1) * head_dim;
                let (keys, values) = cache[position / KV_BLOCK].split_at_mut(KV_BLOCK * head_dim);
                write_key(keys, position % KV_BLOCK, &k[columns.clone()]);
                write_value(values, stride, position % KV_BLOCK, &v[columns]);
            }
            let blocks: Vec<&[f32]> = cache.iter().map(|block| &block[..]).collect();
            let cache = KvBlocks { blocks: &blocks, keys: 0, values: KV_BLOCK * head_dim, value_stride: stride };
            let width = shape.group_width();
            let queries = span.own.clone().map(|row| &q[row * heads * head_dim + kv_head * width..][..width]);
            let mut rows = queries.zip(output.into_rows());
            for first in (span.shared.len()..span.length()).step_by(KV_BLOCK) {
                attention.run(head_dim, first, rows.by_ref().take(KV_BLOCK), cache);
            }
        },
    );
    output
}

/// The gradients of `q`, `k` and `v`.
///
/// One task owns one span's rows of one key head, and walks its query heads in order. What a span adds to the
/// gradients of shared rows is added afterwards, span by span, so that no sum depends on the number of threads.
fn backward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    upstream: &[f32],
    spans: &[PackedSpan],
    shape: AttentionShape,
) -> [Vec<f32>; 3] {
    let AttentionShape { kv_heads, head_dim, .. } = shape;
    let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let d_q_parts = shape.parts(&mut d_q, shape.group_width(), spans);
    let d_k_parts = shape.parts(&mut d_k, head_dim, spans);
    let d_v_parts = shape.parts(&mut d_v, head_dim, spans);
    let parts = d_q_parts.into_par_iter().zip(d_k_parts).zip(d_v_parts).with_max_len(1).enumerate();
    let shared: Vec<[Vec<f32>; 2]> = parts
        .map_init(Scratch::default, |scratch, (part, ((d_q, d_k), d_v))| {
            let (kv_head, span) = (part / spans.len(), &spans[part % spans.len()]);
            let [keys, values] = [k, v].map(|data| shape.gather(data, kv_head, span.rows()));
            let task = SpanBackward { q, keys, values, upstream, span, kv_head, shape };
            let gradients = task.run(d_q, scratch);
            let mut outputs = [d_k, d_v].into_iter();
            gradients.map(|mut gradient| {
                let own = gradient.split_off(span.shared.len() * head_dim);
                let rows = outputs.next().into_iter().flat_map(MatrixMut::into_rows);
                rows.zip(own.chunks_exact(head_dim)).for_each(|(row, own)| row.copy_from_slice(own));
                gradient
            })
        })
        .collect();
    for (part, gradients) in shared.iter().enumerate() {
        let (kv_head, span) = (part / spans.len(), &spans[part % spans.len()]);
        for (total, gradient) in [&mut d_k, &mut d_v].into_iter().zip(gradients) {
            for (row, gradient) in span.shared.clone().zip(gradient.chunks_exact(head_dim)) {
                let total = &mut total[(row * kv_heads + kv_head) * head_dim..][..head_dim];
                total.iter_mut().zip(gradient).for_each(|(total, part)| *total += part);
            }
        }
    }
    [d_q, d_k, d_v]
}

/// Softmax weights and their gradients, of one tile of queries.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    d_scores: Vec<f32>,
}

/// One span's rows of one key head.
struct SpanBackward<'a> {
    q: &'a [f32],
    /// Of the span's positions, `[length, head_dim]`.
    keys: Vec<f32>,
    values: Vec<f32>,
    upstream: &'a [f32],
    span: &'a PackedSpan,
    kv_head: usize,
    shape: AttentionShape,
}

impl SpanBackward<'_> {
    /// Writes the gradient of the span's queries to `d_q`; returns those of the keys and values.
    fn run(self, mut d_q: MatrixMut<'_>, scratch: &mut Scratch) -> [Vec<f32>; 2] {
        let Self { q, keys: k, values: v, upstream, span, kv_head, shape } = self;
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let (before, stride, scale) = (span.shared.len(), heads * head_dim, shape.scale());
        let (mut d_k, mut d_v) = (vec![0.0; k.len()], vec![0.0; v.len()]);
        for member in 0..heads / kv_heads {
            let head = kv_head * (heads / kv_heads) + member;
            for from in (0..span.own.len()).step_by(TILE) {
                let to = span.own.len().min(from + TILE);
                let (size, seen) = (to - from, before + to);
                let start = (span.own.start + from) * stride + head * head_dim;
                let queries = Matrix::new(&q[start..], size, head_dim, stride);
                let d_output = Matrix::new(&upstream[start..], size, head_dim, stride);
                let [keys, values] = [&k, &v].map(|data| Matrix::new(data, seen, head_dim, head_dim));
                scratch.weights.resize(size * seen, 0.0);
                scratch.d_scores.resize(size * seen, 0.0);
                let (weights, d_scores) = (&mut scratch.weights[..], &mut scratch.d_scores[..]);
                multiply(MatrixMut::new(weights, size, seen, seen), false, scale, queries, keys.transposed());
                multiply(MatrixMut::new(d_scores, size, seen, seen), false, 1.0, d_output, values.transposed());
                vectorised(
                    #[inline(always)]
                    || {
                        let rows = weights.chunks_exact_mut(seen).zip(d_scores.chunks_exact_mut(seen));
                        for (row, (weights, d_scores)) in rows.enumerate() {
                            let seen = before + from + row + 1;
                            softmax_backward(&mut weights[..seen], &mut d_scores[..seen]);
                            weights[seen..].fill(0.0);
                            d_scores[seen..].fill(0.0);
                        }
                    },
                );
                let weights = Matrix::new(weights, size, seen, seen);
                let d_scores = Matrix::new(d_scores, size, seen, seen);
                let columns = member * head_dim..(member + 1) * head_dim;
                multiply(d_q.part(from..to).strip(columns), false, scale, d_scores, keys);
                let [d_k, d_v] = [&mut d_k, &mut d_v].map(|data| MatrixMut::new(data, seen, head_dim, head_dim));
                multiply(d_k, true, scale, d_scores.transposed(), queries);
                multiply(d_v, true, 1.0, weights.transposed(), d_output);
            }
        }
        [d_k, d_v]
    }
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
