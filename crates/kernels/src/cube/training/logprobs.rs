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
use super::super::reduction::{MOST_CUBES, cube_max, cube_sum, cubes_of_rows};
use super::super::sampling::{STATISTICS, TILE, UNITS, greatest_of_row, sum_of_four, total_of_row};
use super::linear::path_of;
use super::product::{Destination, Factor, Sums, product};
use super::tensor::{GpuTensor, arg, empty, rows_and_columns};
use crate::buffer::Contiguous;
use crate::logprobs::TokenLogprobsOp;

/// Bytes of the logits that are there at a time.
const BLOCK_BYTES: usize = 1 << 27;

/// Calls a kernel's launcher with the type of the targets.
macro_rules! with_targets {
    ($targets:expr, $I:ident => $launch:expr) => {
        match $targets.dtype {
            DType::I64 => {
                type $I = i64;
                $launch
            }
            _ => {
                type $I = i32;
                $launch
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
fn blocks(rows: usize, vocab: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (BLOCK_BYTES / (vocab * size_of::<f32>()).max(1)).max(1);
    (0..rows).step_by(size).map(move |first| first..rows.min(first + size))
}

// Burn's own operations, which a concrete backend has through a trait that is not exported.

/// Some rows of a matrix.
fn rows_of<B: Backend>(x: &FloatTensor<B>, rows: Range<usize>, width: usize) -> FloatTensor<B> {
    B::float_slice(x.clone(), &[Slice::from(rows), Slice::from(0..width)])
}

fn stacked<B: Backend>(parts: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    B::float_cat(parts, 0)
}

/// Logits in f32, `hidden · headᵀ`, as a generator computes them.
fn logits_of(hidden: &GpuTensor, head: &GpuTensor) -> GpuTensor {
    let sums = Sums::Generator { outputs: rows_and_columns(head).0 };
    product(path_of(head), Factor::plain(hidden), Factor::plain(head), sums, Destination::New(DType::F32))
}

fn forward(hidden: GpuTensor, head: GpuTensor, targets: GpuTensor) -> Saved {
    let (hidden, head) = (Cube::contiguous(hidden), Cube::contiguous(head));
    let targets = if targets.is_contiguous() { targets } else { targets.copy() };
    let ((rows, width), (vocab, _)) = (rows_and_columns(&hidden), rows_and_columns(&head));
    let (output, log_sums) = (empty(&hidden, [2, rows], DType::F32), empty(&hidden, [rows], DType::F32));
    let tiles = vocab.div_ceil(TILE);
    let units = CubeDim::new_1d(UNITS as u32);
    for block in blocks(rows, vocab) {
        let logits = logits_of(&Cube::contiguous(rows_of::<Cube>(&hidden, block.clone(), width)), &head);
        let statistics = empty(&hidden, [block.len(), tiles, STATISTICS], DType::F32);
        with_targets!(targets, I => unsafe {
            measure::launch_unchecked(
                &logits.client,
                CubeCount::Static(tiles as u32, block.len().clamp(1, MOST_CUBES) as u32, 1),
                units,
                arg(&logits),
                arg(&statistics),
                block.len() as u32,
                vocab as u32,
            );
            moments::launch_unchecked::<I>(
                &logits.client,
                cubes_of_rows(block.len()),
                units,
                arg(&logits),
                arg(&statistics),
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
    let path = path_of(head);
    let (mut d_hidden, mut d_head): (_, Option<GpuTensor>) = (Vec::new(), None);
    for block in blocks(rows, vocab) {
        let of_block = Cube::contiguous(rows_of::<Cube>(hidden, block.clone(), width));
        let logits = logits_of(&of_block, head);
        let count = block.len() * vocab;
        with_targets!(targets, I => unsafe {
            logits_backward::launch_unchecked::<I>(
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
            let new = Destination::New(hidden.dtype);
            d_hidden.push(product(path, Factor::plain(&logits), Factor::transposed(head), Sums::Any, new));
        }
        if wanted[1] {
            let destination = d_head.as_ref().map_or(Destination::New(DType::F32), Destination::Onto);
            let (logits, of_block) = (Factor::transposed(&logits), Factor::transposed(&of_block));
            d_head = Some(product(path, logits, of_block, Sums::Any, destination));
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

/// Of every tile of a block's logits the greatest and two sums of exponentials below it, the second one weighted with the logits.
#[cube(launch_unchecked)]
fn measure(logits: &[f32], statistics: &mut [u32], rows: u32, vocab: u32) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let vocabulary = vocab as usize;
    let (tile, unit) = (CUBE_POS_X as usize, UNIT_POS as usize);
    let first = tile * TILE + unit * 4;
    let mut row = CUBE_POS_Y as usize;
    while row < rows as usize {
        let start = row * vocabulary;
        let mut most = f32::new(-3.0e38);
        #[unroll]
        for i in 0..4usize {
            if first + i < vocabulary {
                most = max(most, logits[start + first + i]);
            }
        }
        let greatest = cube_max(most, &mut shared, UNITS);
        let mut weighted = 0.0f32;
        #[unroll]
        for i in 0..4usize {
            if first + i < vocabulary {
                let below = logits[start + first + i] - greatest;
                weighted = fma(below, below.exp(), weighted);
            }
        }
        let sum = sum_of_four(logits, start, first, vocabulary, greatest);
        let total = cube_sum(sum, &mut shared, UNITS);
        let weighted = cube_sum(weighted, &mut shared, UNITS);
        if unit == 0 {
            let at = (row * CUBE_COUNT_X as usize + tile) * STATISTICS;
            statistics[at] = u32::reinterpret(greatest);
            statistics[at + 1] = u32::reinterpret(total);
            statistics[at + 2] = u32::reinterpret(weighted);
        }
        row += CUBE_COUNT_Y as usize;
    }
}

/// The log-probability and the entropy of each row of a block, and the logarithm of its sum of exponentials. A target outside the
/// vocabulary has no number.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn moments<I: Int>(
    logits: &[f32],
    statistics: &[u32],
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
    let vocabulary = vocab as usize;
    let tiles = vocabulary.div_ceil(TILE);
    let mut row = CUBE_POS_X as usize;
    while row < count as usize {
        let greatest = greatest_of_row(statistics, row, tiles, &mut shared);
        let total = total_of_row(statistics, row, tiles, greatest, &mut shared);
        let mut sum = 0.0f32;
        let mut tile = unit;
        while tile < tiles {
            let at = (row * tiles + tile) * STATISTICS;
            let below = f32::reinterpret(statistics[at]) - greatest;
            let weighted = fma(below, f32::reinterpret(statistics[at + 1]), f32::reinterpret(statistics[at + 2]));
            sum = fma(below.exp(), weighted, sum);
            tile += UNITS;
        }
        let weighted = cube_sum(sum, &mut shared, UNITS);
        if unit == 0 {
            let place = first as usize + row;
            let target = u32::cast_from(targets[place]) as usize;
            let mut logprob = f32::reinterpret(0x7fc00000u32);
            if target < vocabulary {
                logprob = logits[row * vocabulary + target] - greatest - total.ln();
            }
            output[place] = logprob;
            output[rows as usize + place] = total.ln() - weighted / total;
            log_sums[place] = greatest + total.ln();
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
fn logits_backward<I: Int>(
    logits: &mut [f32],
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
        let logprob = logits[index] - log_sums[place];
        let mut gradient = -f32::exp(logprob) * (d_logprob + d_entropy * (logprob + entropy));
        if u32::cast_from(targets[place]) as usize == index % columns {
            gradient += d_logprob;
        }
        logits[index] = gradient;
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
