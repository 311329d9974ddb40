//! RLOO (Ahmadian et al. 2024, arXiv:2402.14740): each sample is compared with the mean of the others.

use serde::{Deserialize, Serialize};

use crate::advantage::{compare_within_groups, mean};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A_i = r_i − mean of the other rewards of its group = n/(n − 1)·(r_i − mean)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rloo {
    /// Range of the probability ratio; in the first update of a batch the gradient is the paper's REINFORCE gradient.
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Rloo {
    fn default() -> Self {
        Self {
            clip: Clip::symmetric(0.2),
            aggregation: Aggregation::TokenMean,
            kl: Kl::default(),
            entropy_coefficient: 0.001,
        }
    }
}

impl Algorithm for Rloo {
    fn name(&self) -> &'static str {
        "rloo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = compare_within_groups(self.name(), batch, &batch.scores(), |scores, _| {
            let n = scores.len() as f64;
            let mean = mean(scores);
            scores.iter().map(|score| n / (n - 1.0) * (score - mean)).collect()
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
    fn each_sample_is_compared_with_the_others() {
        let batch = RewardBatch::new(&[1.0, 0.0, 0.5], &[4, 4, 4], &[1, 1, 1]).unwrap();
        assert_eq!(Rloo::default().advantages(&batch).unwrap().advantages, [0.75, -0.75, 0.0]);
    }
}
