//! Log-probabilities and entropies of a vocabulary head, without keeping the distributions.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, Tensor};
use rayon::prelude::*;

use crate::buffer::{Values, contiguous, floats, is_fused, rows_and_columns, tensor, values};
use crate::host::Masses;
use crate::linear::{input_gradient, multiply_by_weight, write_weight_gradient};
use crate::matrix::MatrixMut;
use crate::reference;
use crate::vector::{exp, exponential_moments, largest, vectorised};

/// Logits that are kept for the backward pass where there are no more than this (128 MiB).
const KEPT_LOGITS: usize = 1 << 25;
/// Logits that are otherwise computed at a time (64 MiB), within [`BLOCK_ROWS`].
const BLOCK_LOGITS: usize = 1 << 24;
/// The fewest and the most rows whose logits are computed together.
const BLOCK_ROWS: (usize, usize) = (128, 1024);

/// The log-probability of each target and the entropy of each distribution, in nats, where row
/// `r` is distributed as `softmax(head · hidden[r])`.
///
/// `hidden` is `[rows, width]`, `head` `[vocab, width]` as checkpoints store it, `targets`
/// `[rows]`; both results are `[rows]`, and gradients flow through both. `head` may be of 16-bit brain floats beside
/// 32-bit ones in `hidden`.
///
/// On the CPU up to 2^25 logits are kept for the backward pass; more, and all on a GPU, are recomputed there, a block of rows at
/// a time, from one log-sum-exp per row, so that memory does not grow with `rows * vocab`.
///
/// # Panics
///
/// If the shapes do not fit together, or a target is not below `vocab`; on a GPU such a target's log-probability is not a number.
pub fn token_logprobs(hidden: Tensor<2>, head: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<1>) {
    let ([rows, width], [vocab, head_width]) = (hidden.dims(), head.dims());
    assert!(
        width == head_width && targets.dims() == [rows],
        "token_logprobs: hidden [{rows}, {width}] does not fit head [{vocab}, {head_width}] and targets {:?}",
        targets.dims()
    );
    if !is_fused(&hidden) {
        return reference::token_logprobs(hidden, head, targets);
    }
    let both = Dispatch::fused_token_logprobs(hidden.into_dispatch(), head.into_dispatch(), targets.into_dispatch());
    let both = Tensor::<2>::from_dispatch(both);
    // No `reshape`: to it a length of 0 means another than 0.
    (both.clone().narrow(0, 0, 1).squeeze_dim(0), both.narrow(0, 1, 1).squeeze_dim(0))
}

/// One output `[2, rows]`, log-probabilities before entropies: an operation of Burn's graph has
/// one output, and two operations would recompute the logits twice.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait TokenLogprobsOp: Backend {
    fn fused_token_logprobs(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl TokenLogprobsOp for Flex {
    fn fused_token_logprobs(hidden: FlexTensor, head: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let (hidden, head) = (contiguous(hidden), contiguous(head));
        let (rows, vocab) = (rows_and_columns(&hidden).0, rows_and_columns(&head).0);
        let (output, _) = forward(floats(&hidden), values(&head), &target_rows(targets, vocab), None);
        tensor(output, [2, rows])
    }
}

#[derive(Debug, Clone)]
struct Saved {
    hidden: FlexTensor,
    head: FlexTensor,
    targets: Arc<[usize]>,
    log_sums: Arc<[f32]>,
    entropies: Arc<[f32]>,
    /// `[rows, vocab]`, where there are few.
    logits: Option<Arc<Vec<f32>>>,
}

#[derive(Debug)]
struct TokenLogprobsBackward;

impl Backward<Flex, 2> for TokenLogprobsBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut saved = ops.state;
        let logits = saved.logits.take().map(Arc::unwrap_or_clone);
        let upstream = contiguous(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = backward(&saved, logits, floats(&upstream), wanted);
        for ((parent, gradient), input) in ops.parents.into_iter().zip(gradients).zip([saved.hidden, saved.head]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, tensor(gradient, input.layout().shape().clone()));
            }
        }
    }
}

impl<C: CheckpointStrategy> TokenLogprobsOp for Autodiff<Flex, C> {
    fn fused_token_logprobs(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (head, head_node)) = (hidden.into_parts(), head.into_parts());
        let (hidden, head) = (contiguous(hidden), contiguous(head));
        let (rows, vocab) = (rows_and_columns(&hidden).0, rows_and_columns(&head).0);
        let targets = target_rows(targets, vocab);
        match TokenLogprobsBackward.prepare::<C>([hidden_node, head_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let mut logits = (rows * vocab <= KEPT_LOGITS).then(|| vec![0.0; rows * vocab]);
                let (output, log_sums) = forward(floats(&hidden), values(&head), &targets, logits.as_deref_mut());
                let saved = Saved {
                    hidden,
                    head,
                    targets: targets.into(),
                    log_sums: log_sums.into(),
                    entropies: output[rows..].into(),
                    logits: logits.map(Arc::new),
                };
                prepared.finish(saved, tensor(output, [2, rows]))
            }
            OpsKind::UnTracked(prepared) => {
                let (output, _) = forward(floats(&hidden), values(&head), &targets, None);
                prepared.finish(tensor(output, [2, rows]))
            }
        }
    }
}

/// The targets as row numbers of the head.
fn target_rows(targets: FlexTensor, vocab: usize) -> Vec<usize> {
    let targets = targets.into_data().iter::<i64>().collect::<Vec<_>>();
    let rows = targets.into_iter().map(|target| match usize::try_from(target) {
        Ok(row) if row < vocab => row,
        _ => panic!("token_logprobs: target {target} is not a token of a vocabulary of {vocab}"),
    });
    rows.collect()
}

/// Log-probabilities followed by entropies, and the log-sum-exps; leaves the logits in `kept`.
fn forward(hidden: &[f32], head: Values<'_>, targets: &[usize], kept: Option<&mut [f32]>) -> (Vec<f32>, Vec<f32>) {
    let rows = targets.len();
    let width = hidden.len() / rows.max(1);
    let vocab = head.len() / width.max(1);
    let (mut values, mut log_sums) = (vec![0.0; 2 * rows], vec![0.0; rows]);
    let (logprobs, entropies) = values.split_at_mut(rows);
    let block = if kept.is_some() { rows } else { block_rows(vocab) }.max(1);
    let mut own = Vec::new();
    let logits = kept.unwrap_or_else(|| {
        own.resize(block.min(rows) * vocab, 0.0);
        &mut own
    });
    let outputs = logprobs.chunks_mut(block).zip(entropies.chunks_mut(block)).zip(log_sums.chunks_mut(block));
    for ((outputs, hidden), targets) in outputs.zip(hidden.chunks((block * width).max(1))).zip(targets.chunks(block)) {
        let logits = &mut logits[..targets.len() * vocab];
        logits_of(hidden, head, width, logits);
        let ((logprobs, entropies), log_sums) = outputs;
        let outputs = logprobs.par_iter_mut().zip(entropies).zip(log_sums);
        outputs.zip(logits.par_chunks(vocab.max(1)).zip(targets)).for_each(|(outputs, (logits, target))| {
            let ((logprob, entropy), log_sum) = outputs;
            let (highest, total, weighted) = moments(logits);
            let log_total = total.ln();
            // As a sampled token's is computed.
            *logprob = (f64::from(logits[*target] - highest) - log_total) as f32;
            *entropy = (log_total - weighted / total) as f32;
            *log_sum = (f64::from(highest) + log_total) as f32;
        });
    }
    (values, log_sums)
}

/// Rows whose logits are computed together where they are not kept.
fn block_rows(vocab: usize) -> usize {
    (BLOCK_LOGITS / vocab.max(1)).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1)
}

/// The highest logit, and `sum(e^d)` and `sum(d * e^d)` with `d` the differences from it. Sums of [`Masses::PART`]
/// numbers are added in f64.
fn moments(logits: &[f32]) -> (f32, f64, f64) {
    vectorised(
        #[inline(always)]
        || {
            let highest = largest(logits);
            let (mut total, mut weighted) = (0.0, 0.0);
            for part in logits.chunks(Masses::PART) {
                let (sum, weighted_sum) = exponential_moments(part, highest);
                total += f64::from(sum);
                weighted += f64::from(weighted_sum);
            }
            (highest, total, weighted)
        },
    )
}

/// `logits = hidden · headᵀ`.
fn logits_of(hidden: &[f32], head: Values<'_>, width: usize, logits: &mut [f32]) {
    let (rows, vocab) = (hidden.len() / width, head.len() / width);
    multiply_by_weight(hidden, head, width, MatrixMut::new(logits, rows, vocab, vocab));
}

/// The gradients of `hidden` and `head`, empty where not wanted.
///
/// A block of rows, which is all of them if the logits were kept, becomes the gradient of its logits, and that is
/// multiplied by `head` and by `hidden`. No sum depends on the number of threads.
fn backward(saved: &Saved, kept: Option<Vec<f32>>, upstream: &[f32], wanted: [bool; 2]) -> [Vec<f32>; 2] {
    let (hidden, head) = (floats(&saved.hidden), values(&saved.head));
    let ((rows, width), vocab) = (rows_and_columns(&saved.hidden), rows_and_columns(&saved.head).0);
    let [mut d_hidden, mut d_head] = [(wanted[0], hidden.len()), (wanted[1], head.len())]
        .map(|(wanted, length)| if wanted { vec![0.0; length] } else { Vec::new() });
    let recompute = kept.is_none();
    let block = if recompute { block_rows(vocab) } else { rows }.max(1);
    let mut logits = kept.unwrap_or_else(|| vec![0.0; block.min(rows) * vocab]);
    for (from, hidden) in (0..rows).step_by(block).zip(hidden.chunks((block * width).max(1))) {
        let size = block.min(rows - from);
        let logits = &mut logits[..size * vocab];
        if recompute {
            logits_of(hidden, head, width, logits);
        }
        logits.par_chunks_mut(vocab.max(1)).enumerate().for_each(|(row, logits)| {
            let row = from + row;
            let gradient = (upstream[row], upstream[rows + row]);
            vectorised(
                #[inline(always)]
                || logits_backward(logits, saved.log_sums[row], saved.entropies[row], gradient),
            );
            logits[saved.targets[row]] += upstream[row];
        });
        if wanted[0] {
            let d_hidden = &mut d_hidden[from * width..][..size * width];
            input_gradient(logits, head, vocab, MatrixMut::new(d_hidden, size, width, width));
        }
        if wanted[1] {
            let d_head = MatrixMut::new(&mut d_head, vocab, width, width);
            write_weight_gradient(logits, hidden, size, from > 0, d_head);
        }
    }
    [d_hidden, d_head]
}

/// Replaces a row of logits by the gradient that reaches them, less the target's own term.
///
/// With `p = e^l` and `l` the log-probabilities, the target's log-probability has the gradient
/// `[target] - p` and the entropy `-p * (l + entropy)`.
#[inline(always)]
fn logits_backward(logits: &mut [f32], log_sum: f32, entropy: f32, (d_logprob, d_entropy): (f32, f32)) {
    for logit in logits {
        let logprob = *logit - log_sum;
        *logit = -exp(logprob) * (d_logprob + d_entropy * (logprob + entropy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recomputed_logits_give_the_gradients_of_kept_ones() {
        let (rows, width, vocab) = (300, 5, 70_000);
        let draw = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let (hidden, head) = (draw(rows * width, 0.7), draw(vocab * width, 1.3));
        let targets: Vec<usize> = (0..rows).map(|row| row * 233).collect();
        let mut logits = vec![0.0; rows * vocab];
        let (values, log_sums) = forward(&hidden, Values::F32(&head), &targets, Some(&mut logits));
        assert_eq!(forward(&hidden, Values::F32(&head), &targets, None), (values.clone(), log_sums.clone()));
        let saved = Saved {
            hidden: tensor(hidden, [rows, width]),
            head: tensor(head, [vocab, width]),
            targets: targets.into(),
            log_sums: log_sums.into(),
            entropies: values[rows..].into(),
            logits: None,
        };
        let upstream = draw(2 * rows, 0.3);
        let kept = backward(&saved, Some(logits), &upstream, [true, true]);
        let recomputed = backward(&saved, None, &upstream, [true, true]);
        for (kept, recomputed) in kept.iter().zip(&recomputed) {
            assert!(kept.iter().zip(recomputed).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        assert_eq!(backward(&saved, None, &upstream, [false, true]), [Vec::new(), recomputed[1].clone()]);
    }
}
