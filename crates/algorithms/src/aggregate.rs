//! Aggregation of token losses: the denominator of their sum.

use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::{AlgorithmError, advantage::spread_over_tokens};

/// How the token losses of a batch become one number, named for what they are divided by.
///
/// In a configuration file: `"token_mean"`, `"sequence_mean"` or `{ sequence_sum_over_constant = 2500 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Every token weighs the same: the sum over all tokens divided by their number (DAPO).
    TokenMean,
    /// Every sequence weighs the same: the mean over its tokens, then over sequences (GRPO).
    SequenceMean,
    /// The sum over a sequence's tokens divided by this constant, then the mean over sequences (Dr. GRPO):
    /// a long answer is not diluted.
    SequenceSumOverConstant(usize),
}

impl Aggregation {
    /// The weight of every trained token, so that the loss of the batch is `Σ weight·token_loss`.
    ///
    /// `lengths` are the trained tokens of each sequence of the *whole* batch. Computed once, the
    /// weights travel with the tokens into micro-batches of any size, and the gradients add up to
    /// the full batch's exactly. A sequence without trained tokens is not counted as a sequence.
    pub fn weights(&self, lengths: &[usize]) -> Vec<f32> {
        let tokens = lengths.iter().sum::<usize>() as f64;
        let sequences = lengths.iter().filter(|length| **length > 0).count() as f64;
        let per_sequence: Vec<f64> = lengths
            .iter()
            .map(|length| match self {
                Aggregation::TokenMean => 1.0 / tokens,
                Aggregation::SequenceMean => 1.0 / (sequences * *length as f64),
                Aggregation::SequenceSumOverConstant(constant) => 1.0 / (sequences * *constant as f64),
            })
            .collect();
        spread_over_tokens(&per_sequence, lengths).into_iter().map(|weight| weight as f32).collect()
    }

    /// The weights of a mini-batch with an optimizer step of its own, cut from a batch into mini-batches of `full` sequences.
    ///
    /// They are [`weights`](Self::weights) of the mini-batch alone, as verl takes them, but for a ragged last one, which
    /// counts for the part of a full one that it holds.
    pub fn mini_batch_weights(&self, lengths: &[usize], full: usize) -> Vec<f32> {
        let held = lengths.iter().filter(|length| **length > 0).count();
        let share = held as f64 / full.max(1) as f64;
        self.weights(lengths).into_iter().map(|weight| (f64::from(weight) * share) as f32).collect()
    }

    /// # Errors
    /// When the constant is 0.
    pub(crate) fn validate(&self, algorithm: &'static str) -> Result<(), AlgorithmError> {
        match self {
            Aggregation::SequenceSumOverConstant(0) => require(
                algorithm,
                "aggregation.sequence_sum_over_constant",
                0.0,
                false,
                "at least 1; the most tokens that an answer may have is a good choice",
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_aggregation_divides_by_what_its_name_says() {
        let lengths = [1, 0, 3];
        assert_eq!(Aggregation::TokenMean.weights(&lengths), [0.25; 4]);
        assert_eq!(Aggregation::SequenceMean.weights(&lengths), [0.5, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0]);
        assert_eq!(Aggregation::SequenceSumOverConstant(10).weights(&lengths), [0.05; 4]);
    }

    #[test]
    fn a_ragged_last_mini_batch_weighs_what_it_holds() {
        // Five sequences in mini-batches of two: the last one holds a single sequence, half a mini-batch.
        assert_eq!(Aggregation::SequenceMean.mini_batch_weights(&[4, 2], 2), [0.125, 0.125, 0.125, 0.125, 0.25, 0.25]);
        assert_eq!(Aggregation::SequenceMean.mini_batch_weights(&[5], 2), [0.1; 5]);
        assert_eq!(Aggregation::TokenMean.mini_batch_weights(&[5], 2), [0.1; 5]);
        assert_eq!(Aggregation::SequenceSumOverConstant(4).mini_batch_weights(&[5], 2), [0.125; 5]);
    }
}
