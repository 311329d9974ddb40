//! REINFORCE++ (Hu 2025, arXiv:2501.03262): advantages normalised over the whole batch, no critic.

use serde::{Deserialize, Serialize};

use crate::advantage::{compare_within_groups, discounted_returns, mean, spread_over_tokens, whiten};
use crate::error::require;
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// Returns (or rewards less their group's mean), whitened over all trained tokens of the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePp {
    /// Subtract the mean of the sequence's group before whitening ("REINFORCE++-baseline").
    pub group_baseline: bool,
    /// Discount for each trained token, without group baseline.
    pub gamma: f64,
    /// Range of the probability ratio.
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss. The paper puts k1 into the reward instead, without group baseline:
    /// see [`RewardBatch::with_token_rewards`].
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for ReinforcePp {
    fn default() -> Self {
        Self {
            group_baseline: false,
            gamma: 1.0,
            clip: Clip::symmetric(0.2),
            aggregation: Aggregation::TokenMean,
            kl: Kl::default(),
            entropy_coefficient: 0.001,
        }
    }
}

impl Algorithm for ReinforcePp {
    fn name(&self) -> &'static str {
        "reinforce_pp"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let returns = discounted_returns(&batch.token_level_rewards(), batch.lengths(), self.gamma);
        let mut advantages = if self.group_baseline {
            let centred = compare_within_groups(self.name(), batch, &batch.scores(), |scores, _| {
                let mean = mean(scores);
                scores.iter().map(|score| score - mean).collect()
            })?;
            spread_over_tokens(&centred, batch.lengths())
        } else {
            returns.clone()
        };
        // Over tokens, not sequences: long answers count for what they weigh in the loss.
        whiten(&mut advantages);
        Ok(Advantages::from_tokens(batch, &advantages, &returns))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.clip.surrogate(inputs.ratio(), inputs.advantages())
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn min_group_size(&self) -> usize {
        if self.group_baseline { 2 } else { 1 }
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        require(self.name(), "gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), "0 to 1")?;
        self.clip.validate(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_is_over_tokens() {
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 1], &[3, 1]).unwrap();
        let out = ReinforcePp::default().advantages(&batch).unwrap();
        // Tokens 1, 1, 1, 0: mean 0.75, sample deviation 0.5.
        assert_eq!(out.advantages, [0.5, 0.5, 0.5, -1.5]);
    }
}
