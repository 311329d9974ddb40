//! Rewards of a batch's sequences.

use std::collections::BTreeMap;

use crate::AlgorithmError;

/// The rewards of one batch of rollouts, and what an estimator needs beside them.
///
/// There is one entry per *sequence* (rollout) and, for values and token rewards, one per *trained
/// token*: the tokens that the policy sampled, sequence after sequence, prompt and observations
/// left out. An estimator therefore cannot discount, whiten or bootstrap over a document.
#[derive(Clone, Copy, Debug)]
pub struct RewardBatch<'a> {
    rewards: &'a [f32],
    groups: &'a [usize],
    lengths: &'a [usize],
    values: Option<&'a [f32]>,
    token_rewards: Option<&'a [f32]>,
    baselines: Option<&'a [f32]>,
}

impl<'a> RewardBatch<'a> {
    /// A batch of `rewards.len()` sequences.
    ///
    /// `groups[i]` names the question that sequence `i` answers: all samples of a question share
    /// it. `lengths[i]` is the number of trained tokens of sequence `i`; it may be 0.
    ///
    /// # Errors
    /// When the lists differ in length, a reward is not finite, or there is no trained token at all.
    pub fn new(rewards: &'a [f32], groups: &'a [usize], lengths: &'a [usize]) -> Result<Self, AlgorithmError> {
        same_length("groups", "sequence", groups.len(), rewards.len())?;
        same_length("lengths", "sequence", lengths.len(), rewards.len())?;
        finite("rewards", rewards)?;
        if lengths.iter().all(|length| *length == 0) {
            return Err(AlgorithmError::NoTrainedTokens);
        }
        Ok(Self { rewards, groups, lengths, values: None, token_rewards: None, baselines: None })
    }

    /// Adds the critic's value of every trained token's state, as predicted when the batch was collected.
    ///
    /// # Errors
    /// When there is not one finite value for each trained token.
    pub fn with_values(self, values: &'a [f32]) -> Result<Self, AlgorithmError> {
        same_length("values", "trained token", values.len(), self.tokens())?;
        finite("values", values)?;
        Ok(Self { values: Some(values), ..self })
    }

    /// Adds a reward for each trained token, on top of the sequence's own: `−β·KL`, for example.
    ///
    /// # Errors
    /// When there is not one finite reward for each trained token.
    pub fn with_token_rewards(self, token_rewards: &'a [f32]) -> Result<Self, AlgorithmError> {
        same_length("token_rewards", "trained token", token_rewards.len(), self.tokens())?;
        finite("token_rewards", token_rewards)?;
        Ok(Self { token_rewards: Some(token_rewards), ..self })
    }

    /// Adds for each sequence the reward that it is compared with: that of its question's greedy rollout.
    ///
    /// # Errors
    /// When there is not one finite baseline for each sequence.
    pub fn with_baselines(self, baselines: &'a [f32]) -> Result<Self, AlgorithmError> {
        same_length("baselines", "sequence", baselines.len(), self.sequences())?;
        finite("baselines", baselines)?;
        Ok(Self { baselines: Some(baselines), ..self })
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.rewards.len()
    }

    /// Number of trained tokens in all sequences.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Number of trained tokens of each sequence.
    pub fn lengths(&self) -> &'a [usize] {
        self.lengths
    }

    /// The critic's values, one per trained token, when they were given.
    pub fn values(&self) -> Option<&'a [f32]> {
        self.values
    }

    /// The baselines, one per sequence, when they were given.
    pub fn baselines(&self) -> Option<&'a [f32]> {
        self.baselines
    }

    /// Each sequence's whole reward: its own plus the sum of its token rewards.
    pub fn scores(&self) -> Vec<f64> {
        let mut scores: Vec<f64> = self.rewards.iter().map(|reward| f64::from(*reward)).collect();
        if let Some(token_rewards) = self.token_rewards {
            for (score, range) in scores.iter_mut().zip(token_ranges(self.lengths)) {
                *score += token_rewards[range].iter().map(|reward| f64::from(*reward)).sum::<f64>();
            }
        }
        scores
    }

    /// The reward of every trained token: its token reward, and at a sequence's last one the sequence's reward.
    pub fn token_level_rewards(&self) -> Vec<f64> {
        let mut rewards = match self.token_rewards {
            Some(token_rewards) => token_rewards.iter().map(|reward| f64::from(*reward)).collect(),
            None => vec![0.0; self.tokens()],
        };
        for (reward, range) in self.rewards.iter().zip(token_ranges(self.lengths)) {
            if let Some(last) = rewards[range].last_mut() {
                *last += f64::from(*reward);
            }
        }
        rewards
    }

    /// Each group's id and the indices of its sequences, both ascending.
    pub fn groups(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, group) in self.groups.iter().enumerate() {
            groups.entry(*group).or_default().push(row);
        }
        groups
    }

    /// For each sequence, whether its group's rewards differ: where they are all equal, a comparison within the group
    /// teaches nothing. Token rewards are not looked at.
    pub fn informative(&self) -> Vec<bool> {
        let mut informative = vec![false; self.sequences()];
        for rows in self.groups().values() {
            let differs = rows.iter().any(|row| self.rewards[*row] != self.rewards[rows[0]]);
            for row in rows {
                informative[*row] = differs;
            }
        }
        informative
    }
}

/// Token range of each sequence when the sequences are laid end to end.
pub(crate) fn token_ranges(lengths: &[usize]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    lengths.iter().scan(0, |start, length| {
        let range = *start..*start + length;
        *start = range.end;
        Some(range)
    })
}

pub(crate) fn same_length(
    what: &'static str,
    per: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), AlgorithmError> {
    if found == expected { Ok(()) } else { Err(AlgorithmError::LengthMismatch { what, per, expected, found }) }
}

fn finite(what: &'static str, values: &[f32]) -> Result<(), AlgorithmError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(AlgorithmError::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disagreeing_lengths_are_refused_by_name() {
        let error = RewardBatch::new(&[1.0, 0.0], &[0], &[3, 4]).unwrap_err();
        assert_eq!(error.to_string(), "`groups` has 1 values, expected 2: one for each sequence");
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 0], &[3, 4]).unwrap();
        let error = batch.with_values(&[0.0; 6]).unwrap_err();
        assert_eq!(error.to_string(), "`values` has 6 values, expected 7: one for each trained token");
    }

    #[test]
    fn a_batch_needs_a_trained_token_and_finite_rewards() {
        assert_eq!(RewardBatch::new(&[1.0], &[0], &[0]).unwrap_err(), AlgorithmError::NoTrainedTokens);
        assert_eq!(RewardBatch::new(&[], &[], &[]).unwrap_err(), AlgorithmError::NoTrainedTokens);
        let error = RewardBatch::new(&[1.0, f32::NAN], &[0, 0], &[1, 1]).unwrap_err();
        assert!(matches!(error, AlgorithmError::NotFinite { what: "rewards", index: 1, .. }), "{error}");
    }

    #[test]
    fn the_outcome_is_paid_at_the_last_trained_token() {
        let batch = RewardBatch::new(&[1.0, 5.0, 2.0], &[0, 0, 0], &[2, 0, 1]).unwrap();
        assert_eq!(batch.token_level_rewards(), [0.0, 1.0, 2.0]);
        let batch = batch.with_token_rewards(&[-0.5, -0.25, -1.0]).unwrap();
        assert_eq!(batch.token_level_rewards(), [-0.5, 0.75, 1.0]);
        assert_eq!(batch.scores(), [0.25, 5.0, 1.0]);
    }

    #[test]
    fn informative_looks_at_each_group_by_itself() {
        let batch = RewardBatch::new(&[1.0, 0.0, 1.0, 0.0], &[7, 3, 7, 7], &[1; 4]).unwrap();
        assert_eq!(batch.informative(), [true, false, true, true]);
        assert_eq!(batch.groups().into_iter().collect::<Vec<_>>(), [(3, vec![1]), (7, vec![0, 2, 3])]);
    }
}
