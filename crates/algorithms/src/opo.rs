//! OPO (Hao et al. 2025, "On-policy RL with optimal reward baseline", arXiv:2505.23585): a baseline weighted by length.

use serde::{Deserialize, Serialize};

use crate::advantage::compare_within_groups;
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A_i = r_i − Σ_j l_j·r_j / Σ_j l_j` over the group: the baseline of least variance, where a sequence's squared
/// gradient grows with its number of trained tokens `l_j`. The paper trains exactly on-policy, without KL and entropy terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opo {
    /// Range of the probability ratio; exactly on-policy it has no effect.
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Opo {
    fn default() -> Self {
        Self { clip: Clip::symmetric(0.2), aggregation: Aggregation::TokenMean, kl: Kl::NONE, entropy_coefficient: 0.0 }
    }
}

impl Algorithm for Opo {
    fn name(&self) -> &'static str {
        "opo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = compare_within_groups(self.name(), batch, &batch.scores(), |scores, lengths| {
            let tokens: usize = lengths.iter().sum();
            let weighted: f64 = scores.iter().zip(lengths).map(|(score, length)| *length as f64 * score).sum();
            scores.iter().map(|score| score - weighted / tokens.max(1) as f64).collect()
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
    fn long_sequences_weigh_more_in_the_baseline() {
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 0], &[3, 1]).unwrap();
        assert_eq!(Opo::default().advantages(&batch).unwrap().advantages, [0.25, 0.25, 0.25, -0.75]);
    }

    #[test]
    fn a_group_of_one_is_refused_and_equal_rewards_teach_nothing() {
        let alone = RewardBatch::new(&[1.0], &[0], &[3]).unwrap();
        assert!(matches!(Opo::default().advantages(&alone), Err(AlgorithmError::GroupTooSmall { .. })));
        let equal = RewardBatch::new(&[0.1; 3], &[0; 3], &[3, 1, 7]).unwrap();
        assert_eq!(Opo::default().advantages(&equal).unwrap().advantages, [0.0; 11]);
    }
}
