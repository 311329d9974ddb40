//! Dr. GRPO (Liu et al. 2025, "Understanding R1-Zero-like training", arXiv:2503.20783): GRPO without its two biases.

use serde::{Deserialize, Serialize};

use crate::advantage::{compare_within_groups, mean};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A_i = r_i − mean` within the group, and token losses divided by a constant.
///
/// No division by the deviation, which favours questions that are nearly always or nearly never
/// answered; no division by the answer's length, which favours long wrong answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrGrpo {
    /// Range of the probability ratio.
    pub clip: Clip,
    /// Aggregation of the token losses. Default: the sum over 2500, five turns of 500 tokens.
    pub aggregation: Aggregation,
    /// The KL term of the loss; the paper uses none.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for DrGrpo {
    fn default() -> Self {
        Self {
            clip: Clip::symmetric(0.2),
            aggregation: Aggregation::SequenceSumOverConstant(2500),
            kl: Kl::NONE,
            entropy_coefficient: 0.0,
        }
    }
}

impl Algorithm for DrGrpo {
    fn name(&self) -> &'static str {
        "dr_grpo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = compare_within_groups(self.name(), batch, &batch.scores(), |scores, _| {
            let mean = mean(scores);
            scores.iter().map(|score| score - mean).collect()
        })?;
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
        self.clip.validate(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_keep_their_scale() {
        let batch = RewardBatch::new(&[1.0, 0.0, 0.0, 0.0], &[0; 4], &[1; 4]).unwrap();
        assert_eq!(DrGrpo::default().advantages(&batch).unwrap().advantages, [0.75, -0.25, -0.25, -0.25]);
    }
}
