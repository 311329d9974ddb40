//! Rejection-sampling SFT (Yuan et al. 2023, "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
//! arXiv:2308.01825; RAFT, Dong et al. 2023, arXiv:2304.06767): imitation of one's own best rollouts.

use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::{Advantages, Aggregation, Algorithm, AlgorithmError, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss};

/// The negative log-likelihood of the policy's tokens in rollouts whose reward reaches a threshold; the others teach nothing.
///
/// As an advantage that is `n / n_accepted` for accepted rollouts and 0 for the rest, so that the loss is the mean over accepted tokens
/// (or sequences, as `aggregation` says) alone. With `reward = "em"` the accepted rollouts are those with the right answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionSft {
    /// The least reward of an accepted rollout.
    pub threshold: f64,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for RejectionSft {
    fn default() -> Self {
        Self { threshold: 1.0, aggregation: Aggregation::TokenMean, kl: Kl::NONE, entropy_coefficient: 0.0 }
    }
}

impl Algorithm for RejectionSft {
    fn name(&self) -> &'static str {
        "rejection_sft"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let accepted: Vec<bool> = batch.scores().iter().map(|score| *score >= self.threshold).collect();
        // In the unit that the aggregation divides by; a sequence without trained tokens is no sequence there.
        let units = batch.lengths().iter().map(|length| match self.aggregation {
            Aggregation::TokenMean => *length,
            Aggregation::SequenceMean | Aggregation::SequenceSumOverConstant(_) => usize::from(*length > 0),
        });
        let (mut all, mut of_accepted) = (0, 0);
        for (units, is_accepted) in units.zip(&accepted) {
            all += units;
            of_accepted += if *is_accepted { units } else { 0 };
        }
        let scale = all as f64 / of_accepted.max(1) as f64;
        let advantages: Vec<f64> =
            accepted.into_iter().map(|is_accepted| if is_accepted { scale } else { 0.0 }).collect();
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        TokenLoss::unclipped(-inputs.advantages() * inputs.logprobs.clone())
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        require(self.name(), "threshold", self.threshold, self.threshold.is_finite(), "a reward, usually 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(algorithm: &mut RejectionSft, rewards: &[f32], lengths: &[usize], logprobs: &[f32]) -> f64 {
        let groups: Vec<usize> = (0..rewards.len()).collect();
        let advantages =
            algorithm.advantages(&RewardBatch::new(rewards, &groups, lengths).unwrap()).unwrap().advantages;
        let weights = algorithm.aggregation.weights(lengths);
        weights.iter().zip(&advantages).zip(logprobs).map(|((w, a), l)| f64::from(-w * a * l)).sum()
    }

    #[test]
    fn the_loss_is_the_mean_over_accepted_rollouts_alone() {
        let (rewards, lengths, logprobs) = ([1.0, 0.9, 1.0, 1.0], [2, 3, 0, 1], [-1.0, -2.0, -9.0, -9.0, -9.0, -6.0]);
        let mut tokens = RejectionSft::default();
        assert!((loss(&mut tokens, &rewards, &lengths, &logprobs) - 3.0).abs() < 1e-6, "mean of 1, 2 and 6");
        let mut sequences = RejectionSft { aggregation: Aggregation::SequenceMean, ..RejectionSft::default() };
        assert!((loss(&mut sequences, &rewards, &lengths, &logprobs) - 3.75).abs() < 1e-6, "mean of 1.5 and 6");
        let mut lenient = RejectionSft { threshold: 0.5, ..RejectionSft::default() };
        assert!((loss(&mut lenient, &rewards, &lengths, &logprobs) - 6.0).abs() < 1e-6, "mean of all");
        assert_eq!(loss(&mut tokens, &[0.0; 4], &lengths, &logprobs), 0.0, "nothing is accepted, nothing learnt");
    }
}
