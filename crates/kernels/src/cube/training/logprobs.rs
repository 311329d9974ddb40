//! Log-probabilities and entropies of a vocabulary head, and their gradients, from the logits of a few rows at a time.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType};
use burn::tensor::Slice;
use cubecl::prelude::*;

use super::super::elementwise::cubes;
use super::super::reduction::{UNITS, cube_max, cube_sum, cubes_of_rows};
use super::tensor::{GpuTensor, arg, assert_one_type, empty, rows_and_columns, with_type};
use crate::buffer::Contiguous;
use crate::logprobs::TokenLogprobsOp;

/// Bytes of the logits that are there at a time.
const BLOCK_BYTES: usize = 1 << 27;
/// Tokens over which a product sums at a time.
const VOCABULARY_PART: usize = 1 << 13;

/// Calls a kernel's launcher with the types of logits and targets.
macro_rules! with_types {
    ($logits:expr, $F:ident, $targets:expr, $I:ident => $launch:expr) => {
        match $targets.dtype {
            DType::I64 => {
                type $I = i64;
                with_type!($logits, $F => $launch)
            }
            _ => {
                type $I = i32;
                with_type!($logits, $F => $launch)
            }
        }
    };
}

#[derive(Clone, Debug)]
struct Saved {
    hidden: GpuTensor,
    head: GpuTensor,
    targets: GpuTensor,
    /// Log-probabilities before entropies, `[2, rows]`.
    output: GpuTensor,
    log_sums: GpuTensor,
}

impl TokenLogprobsOp for Cube {
    fn fused_token_logprobs(hidden: GpuTensor, head: GpuTensor, targets: GpuTensor) -> GpuTensor {
        forward(hidden, head, targets).output
    }
}

#[derive(Debug)]
struct TokenLogprobsBackward;

impl Backward<Cube, 2> for TokenLogprobsBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = Cube::contiguous(grads.consume::<Cube>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = backward(&ops.state, &upstream, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Cube>(parent.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> TokenLogprobsOp for Autodiff<Cube, C> {
    fn fused_token_logprobs(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (head, head_node)) = (hidden.into_parts(), head.into_parts());
        let saved = forward(hidden, head, targets);
        let output = saved.output.clone();
        match TokenLogprobsBackward.prepare::<C>([hidden_node, head_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(saved, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// Rows whose logits are there at the same time, in order.
fn blocks(rows: usize, vocab: usize, dtype: DType) -> impl Iterator<Item = Range<usize>> {
    let size = (BLOCK_BYTES / (vocab * dtype.size()).max(1)).max(1);
    (0..rows).step_by(size).map(move |first| first..rows.min(first + size))
}

// Burn's own operations, which a concrete backend has through a trait that is not exported.

/// A part of a matrix.
fn part_of<B: Backend>(x: &FloatTensor<B>, rows: Range<usize>, columns: Range<usize>) -> FloatTensor<B> {
    B::float_slice(x.clone(), &[Slice::from(rows), Slice::from(columns)])
}

fn product<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(a, b)
}

fn sum_of<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(a, b)
}

fn stacked<B: Backend>(parts: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    B::float_cat(parts, 0)
}

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_transpose(x)
}

/// `hidden · headᵀ`.
fn logits_of(hidden: GpuTensor, head: &GpuTensor) -> GpuTensor {
    Cube::contiguous(product::<Cube>(hidden, transposed::<Cube>(head.clone())))
}

fn forward(hidden: GpuTensor, head: GpuTensor, targets: GpuTensor) -> Saved {
    let (hidden, head) = (Cube::contiguous(hidden), Cube::contiguous(head));
    let targets = if targets.is_contiguous() { targets } else { targets.copy() };
    assert_one_type(&[&hidden, &head]);
    let ((rows, width), (vocab, _)) = (rows_and_columns(&hidden), rows_and_columns(&head));
    let (output, log_sums) = (empty(&hidden, [2, rows], DType::F32), empty(&hidden, [rows], DType::F32));
    for block in blocks(rows, vocab, hidden.dtype) {
        let of_block = part_of::<Cube>(&hidden, block.clone(), 0..width);
        let logits = logits_of(of_block, &head);
        with_types!(logits, F, targets, I => unsafe {
            moments::launch_unchecked::<F, I>(
                &logits.client,
                cubes_of_rows(block.len()),
                CubeDim::new_1d(UNITS as u32),
                arg(&logits),
                arg(&targets),
                arg(&output),
                arg(&log_sums),
                block.start as u32,
                block.len() as u32,
                rows as u32,
                vocab as u32,
            );
        });
    }
    Saved { hidden, head, targets, output, log_sums }
}

/// The gradients of `hidden` and `head`, where they are wanted.
fn backward(saved: &Saved, upstream: &GpuTensor, wanted: [bool; 2]) -> [Option<GpuTensor>; 2] {
    let Saved { hidden, head, targets, output, log_sums } = saved;
    let ((rows, width), (vocab, _)) = (rows_and_columns(hidden), rows_and_columns(head));
    let (mut d_hidden, mut d_head) = (Vec::new(), None);
    for block in blocks(rows, vocab, hidden.dtype) {
        let of_block = part_of::<Cube>(hidden, block.clone(), 0..width);
        let logits = logits_of(of_block.clone(), head);
        let count = block.len() * vocab;
        with_types!(logits, F, targets, I => unsafe {
            logits_backward::launch_unchecked::<F, I>(
                &logits.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                arg(&logits),
                arg(targets),
                arg(output),
                arg(log_sums),
                arg(upstream),
                block.start as u32,
                count as u32,
                rows as u32,
                vocab as u32,
            );
        });
        if wanted[0] {
            d_hidden.push(hidden_gradient(&logits, head));
        }
        if wanted[1] {
            let of_block = product::<Cube>(transposed::<Cube>(logits), of_block);
            d_head = Some(match d_head {
                Some(sum) => sum_of::<Cube>(sum, of_block),
                None => of_block,
            });
        }
    }
    let d_hidden = match d_hidden.len() {
        _ if !wanted[0] => None,
        0 => Some(hidden.clone()),
        1 => d_hidden.pop(),
        _ => Some(stacked::<Cube>(d_hidden)),
    };
    [d_hidden, d_head.filter(|_| wanted[1])]
}

/// `d_logits · head`, the sums of parts of the vocabulary added up: Burn's product loses digits over a whole vocabulary (1e-4 of a
/// value with 150,000 tokens through wgpu, where this loses 3e-6).
fn hidden_gradient(d_logits: &GpuTensor, head: &GpuTensor) -> GpuTensor {
    let ((rows, vocab), (_, width)) = (rows_and_columns(d_logits), rows_and_columns(head));
    let of_part = |first: usize| {
        let tokens = first..vocab.min(first + VOCABULARY_PART);
        let d_logits = part_of::<Cube>(d_logits, 0..rows, tokens.clone());
        product::<Cube>(d_logits, part_of::<Cube>(head, tokens, 0..width))
    };
    let rest = (VOCABULARY_PART..vocab).step_by(VOCABULARY_PART);
    rest.fold(of_part(0), |sum, first| sum_of::<Cube>(sum, of_part(first)))
}

/// The log-probability and the entropy of each row of a block, and the logarithm of its sum of exponentials. A target outside the
/// vocabulary has no number.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn moments<F: Float, I: Int>(
    logits: &[F],
    targets: &[I],
    output: &mut [f32],
    log_sums: &mut [f32],
    first: u32,
    count: u32,
    rows: u32,
    vocab: u32,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let columns = vocab as usize;
    let mut row = CUBE_POS_X as usize;
    while row < count as usize {
        let start = row * columns;
        let mut highest = f32::cast_from(logits[start]);
        let mut column = unit;
        while column < columns {
            highest = max(highest, f32::cast_from(logits[start + column]));
            column += UNITS;
        }
        let highest = cube_max(highest, &mut shared, UNITS);
        let mut total = 0.0f32;
        let mut weighted = 0.0f32;
        let mut column = unit;
        while column < columns {
            let below = f32::cast_from(logits[start + column]) - highest;
            let mass = f32::exp(below);
            total += mass;
            weighted = fma(below, mass, weighted);
            column += UNITS;
        }
        let total = cube_sum(total, &mut shared, UNITS);
        let weighted = cube_sum(weighted, &mut shared, UNITS);
        if unit == 0 {
            let place = first as usize + row;
            let target = u32::cast_from(targets[place]) as usize;
            let log_total = f32::ln(total);
            let mut logprob = f32::reinterpret(0x7fc00000u32);
            if target < columns {
                logprob = f32::cast_from(logits[start + target]) - highest - log_total;
            }
            output[place] = logprob;
            output[rows as usize + place] = log_total - weighted / total;
            log_sums[place] = highest + log_total;
        }
        row += CUBE_COUNT_X as usize;
    }
}

/// Replaces the logits of a block by the gradients that reach them.
///
/// With `p = e^l` and `l` the log-probabilities, the target's log-probability has the gradient `[target] - p` and the entropy
/// `-p * (l + entropy)`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn logits_backward<F: Float, I: Int>(
    logits: &mut [F],
    targets: &[I],
    output: &[f32],
    log_sums: &[f32],
    upstream: &[f32],
    first: u32,
    count: u32,
    rows: u32,
    vocab: u32,
) {
    let columns = vocab as usize;
    let mut index = ABSOLUTE_POS;
    while index < count as usize {
        let place = first as usize + index / columns;
        let entropy = output[rows as usize + place];
        let d_logprob = upstream[place];
        let d_entropy = upstream[rows as usize + place];
        let logprob = f32::cast_from(logits[index]) - log_sums[place];
        let mut gradient = -f32::exp(logprob) * (d_logprob + d_entropy * (logprob + entropy));
        if u32::cast_from(targets[place]) as usize == index % columns {
            gradient += d_logprob;
        }
        logits[index] = F::cast_from(gradient);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
