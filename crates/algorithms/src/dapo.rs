//! DAPO (Yu et al. 2025, arXiv:2503.14476): GRPO with clip-higher, token mean, dynamic sampling and over-long shaping.

use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::grpo::{standardized_within_groups, validate_epsilon};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// GRPO's advantages; an upper clip that leaves unlikely tokens room to grow, and no KL term.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dapo {
    /// Added to the group's deviation.
    pub epsilon: f64,
    /// Range of the probability ratio; the paper's is 0.2 below and 0.28 above.
    pub clip: Clip,
    /// Take a little reward from sequences that come near the length limit. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<Overlong>,
    /// Ask for other questions in place of groups whose rewards are all equal.
    pub dynamic_sampling: bool,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss; the paper uses none.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

/// Soft over-long punishment (eq. 13): from 0 at `limit − buffer` trained tokens linearly to `−penalty` at `limit` and beyond.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlong {
    /// The most trained tokens that a sequence may have.
    pub limit: usize,
    /// Over how many tokens before the limit the punishment grows, 1 to `limit`.
    pub buffer: usize,
    /// The punishment at the limit, 0 or more.
    pub penalty: f64,
}

impl Overlong {
    /// Over-long penalty of a sequence of `length` trained tokens, added to its reward; at most 0.
    pub fn shaping(&self, length: usize) -> f64 {
        let into_buffer = length.saturating_sub(self.limit.saturating_sub(self.buffer));
        -self.penalty * (into_buffer as f64 / self.buffer.max(1) as f64).min(1.0)
    }
}

impl Default for Dapo {
    fn default() -> Self {
        Self {
            epsilon: 1e-6,
            clip: Clip { low: 0.2, high: 0.28, dual: None },
            overlong: None,
            dynamic_sampling: true,
            aggregation: Aggregation::TokenMean,
            kl: Kl::NONE,
            entropy_coefficient: 0.0,
        }
    }
}

impl Algorithm for Dapo {
    fn name(&self) -> &'static str {
        "dapo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let mut scores = batch.scores();
        if let Some(overlong) = self.overlong {
            for (score, length) in scores.iter_mut().zip(batch.lengths()) {
                *score += overlong.shaping(*length);
            }
        }
        let advantages = standardized_within_groups(self.name(), batch, &scores, self.epsilon)?;
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.clip.surrogate(inputs.ratio(), inputs.advantages())
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn min_group_size(&self) -> usize {
        2
    }

    fn dynamic_sampling(&self) -> bool {
        self.dynamic_sampling
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        validate_epsilon(self.name(), self.epsilon)?;
        if let Some(Overlong { limit, buffer, penalty }) = self.overlong {
            let valid = (1..=limit).contains(&buffer);
            require(self.name(), "overlong.buffer", buffer as f64, valid, "1 to `overlong.limit`")?;
            let valid = penalty >= 0.0 && penalty.is_finite();
            require(self.name(), "overlong.penalty", penalty, valid, "0 or more: it is subtracted")?;
        }
        self.clip.validate(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_punishment_grows_over_the_buffer() {
        let overlong = Overlong { limit: 100, buffer: 20, penalty: 1.0 };
        assert_eq!([0, 80, 85, 100, 140].map(|length| overlong.shaping(length)), [-0.0, -0.0, -0.25, -1.0, -1.0]);
    }

    #[test]
    fn an_over_long_answer_loses_to_a_short_one_with_the_same_reward() {
        let mut algorithm =
            Dapo { overlong: Some(Overlong { limit: 4, buffer: 2, penalty: 0.5 }), ..Default::default() };
        let batch = RewardBatch::new(&[1.0, 1.0], &[0, 0], &[2, 4]).unwrap();
        let out = algorithm.advantages(&batch).unwrap();
        assert!(out.advantages[0] > 0.0 && out.advantages[2] < 0.0, "{out:?}");
        assert_eq!(out.constant_groups, 1, "shaping does not hide that the answers were equally good");
    }
}
