//! GRPO (Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300): a group's mean and deviation instead of a critic.

use serde::{Deserialize, Serialize};

use crate::advantage::{compare_within_groups, deviation, mean};
use crate::error::require;
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A_i = (r_i − mean) / (std + epsilon)` within the group of samples of one question.
///
/// The deviation is the sample deviation, divided by n − 1, as in TRL and verl. The paper averages
/// over a sequence's tokens first ([`Aggregation::SequenceMean`], the default); ZeroSearch's
/// released runs use [`Aggregation::TokenMean`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpo {
    /// Added to the deviation, so that two nearly equal rewards do not become a large advantage.
    pub epsilon: f64,
    /// Range of the probability ratio.
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Grpo {
    fn default() -> Self {
        Self {
            epsilon: 1e-6,
            clip: Clip::symmetric(0.2),
            aggregation: Aggregation::SequenceMean,
            kl: Kl::default(),
            entropy_coefficient: 0.001,
        }
    }
}

impl Algorithm for Grpo {
    fn name(&self) -> &'static str {
        "grpo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = standardized_within_groups(self.name(), batch, &batch.scores(), self.epsilon)?;
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

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        validate_epsilon(self.name(), self.epsilon)?;
        self.clip.validate(self.name())
    }
}

/// GRPO's advantages, one per sequence; DAPO, GSPO and CISPO start from them too.
///
/// # Errors
/// When a group has fewer than two sequences.
pub(crate) fn standardized_within_groups(
    algorithm: &'static str,
    batch: &RewardBatch<'_>,
    scores: &[f64],
    epsilon: f64,
) -> Result<Vec<f64>, AlgorithmError> {
    compare_within_groups(algorithm, batch, scores, |scores, _| {
        let (mean, deviation) = (mean(scores), deviation(scores));
        scores.iter().map(|score| (score - mean) / (deviation + epsilon)).collect()
    })
}

pub(crate) fn validate_epsilon(algorithm: &'static str, epsilon: f64) -> Result<(), AlgorithmError> {
    require(algorithm, "epsilon", epsilon, epsilon >= 0.0 && epsilon.is_finite(), "0 or more, usually 1e-6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_standard_scores_within_the_group() {
        let batch = RewardBatch::new(&[1.0, 0.0, 1.0, 0.0], &[0, 0, 1, 1], &[1, 2, 1, 1]).unwrap();
        let mut algorithm = Grpo { epsilon: 0.0, ..Default::default() };
        let score = 0.5_f32.sqrt();
        let advantages = algorithm.advantages(&batch).unwrap().advantages;
        for (found, expected) in advantages.iter().zip([score, -score, -score, score, -score]) {
            assert!((found - expected).abs() < 1e-6, "{advantages:?}");
        }
    }

    #[test]
    fn group_ids_unique_per_row_are_refused() {
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 1], &[1, 1]).unwrap();
        let error = Grpo::default().advantages(&batch).unwrap_err();
        assert!(error.to_string().contains("group 0 has 1 sequence(s)"), "{error}");
        assert!(error.to_string().contains("same group id"), "{error}");
    }
}
