//! Shared parts of the advantage estimators: group statistics, whitening, one value per trained token.

use crate::batch::token_ranges;
use crate::{AlgorithmError, RewardBatch};

/// How much better than expected each trained token turned out, and what a critic should learn.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One per trained token, sequence after sequence.
    pub advantages: Vec<f32>,
    /// The (discounted) reward to come, one per trained token: the critic's target.
    pub returns: Vec<f32>,
    /// Number of groups in the batch.
    pub groups: usize,
    /// How many of them have equal rewards throughout. A group-relative advantage is zero there.
    pub constant_groups: usize,
}

impl Advantages {
    /// From one advantage per trained token, and the returns.
    pub fn from_tokens(batch: &RewardBatch<'_>, advantages: &[f64], returns: &[f64]) -> Self {
        let informative = batch.informative();
        let groups = batch.groups();
        let constant_groups = groups.values().filter(|rows| !informative[rows[0]]).count();
        Self { advantages: to_f32(advantages), returns: to_f32(returns), groups: groups.len(), constant_groups }
    }

    /// From one advantage per sequence, given to each of its trained tokens. The return of a token is its sequence's score.
    pub fn from_sequences(batch: &RewardBatch<'_>, advantages: &[f64]) -> Self {
        let spread = |values: &[f64]| spread_over_tokens(values, batch.lengths());
        Self::from_tokens(batch, &spread(advantages), &spread(&batch.scores()))
    }
}

/// Compares the sequences of each group with each other.
///
/// `estimate` turns the scores of one group, and its sequences' lengths, into as many advantages. A group whose scores are all
/// equal gets exactly zero without being asked: no rounding error is divided by a tiny deviation.
///
/// # Errors
/// When a group has fewer than two sequences: its only score would be compared with itself.
pub fn compare_within_groups(
    algorithm: &'static str,
    batch: &RewardBatch<'_>,
    scores: &[f64],
    estimate: impl Fn(&[f64], &[usize]) -> Vec<f64>,
) -> Result<Vec<f64>, AlgorithmError> {
    let mut advantages = vec![0.0; scores.len()];
    for (group, rows) in batch.groups() {
        if rows.len() < 2 {
            return Err(AlgorithmError::GroupTooSmall { algorithm, group, size: rows.len(), needed: 2 });
        }
        let group_scores: Vec<f64> = rows.iter().map(|row| scores[*row]).collect();
        if is_constant(&group_scores) {
            continue;
        }
        let lengths: Vec<usize> = rows.iter().map(|row| batch.lengths()[*row]).collect();
        for (row, advantage) in rows.iter().zip(estimate(&group_scores, &lengths)) {
            advantages[*row] = advantage;
        }
    }
    Ok(advantages)
}

/// Shifts and scales to mean 0 and standard deviation 1 (unbiased, n − 1). Constant values become exactly 0.
///
/// Callers pass trained tokens only; there is no mask to get wrong.
pub fn whiten(values: &mut [f64]) {
    if is_constant(values) {
        values.fill(0.0);
        return;
    }
    let (mean, deviation) = (mean(values), deviation(values));
    for value in values {
        *value = (*value - mean) / deviation;
    }
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Sample standard deviation: the sum of squares is divided by n − 1, as TRL and verl do; 0 of fewer than two.
pub fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// Gives every trained token its sequence's value.
pub(crate) fn spread_over_tokens(values: &[f64], lengths: &[usize]) -> Vec<f64> {
    values.iter().zip(lengths).flat_map(|(value, length)| std::iter::repeat_n(*value, *length)).collect()
}

/// The rewards to come from each token to its sequence's end, each later step discounted by `gamma`.
pub(crate) fn discounted_returns(token_rewards: &[f64], lengths: &[usize], gamma: f64) -> Vec<f64> {
    let mut returns = token_rewards.to_vec();
    for range in token_ranges(lengths) {
        let mut to_come = 0.0;
        for value in returns[range].iter_mut().rev() {
            to_come = *value + gamma * to_come;
            *value = to_come;
        }
    }
    returns
}

fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitening_has_mean_zero_and_unit_sample_deviation() {
        let mut values = [1.0, 4.0, -2.0, 0.5];
        whiten(&mut values);
        assert!(mean(&values).abs() < 1e-12);
        assert!((deviation(&values) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn constant_values_whiten_to_exactly_zero() {
        let mut values = [0.1; 7];
        whiten(&mut values);
        assert_eq!(values, [0.0; 7]);
        let mut one = [3.0];
        whiten(&mut one);
        assert_eq!(one, [0.0]);
        whiten(&mut []);
    }

    #[test]
    fn deviation_divides_by_n_minus_one() {
        assert_eq!(deviation(&[1.0, 3.0]), 2.0_f64.sqrt());
    }

    #[test]
    fn returns_do_not_cross_from_one_sequence_into_the_next() {
        assert_eq!(discounted_returns(&[0.0, 1.0, 0.0, 0.0, 8.0], &[2, 3], 0.5), [0.5, 1.0, 2.0, 4.0, 8.0]);
    }
}
