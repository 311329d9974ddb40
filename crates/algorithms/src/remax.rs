//! ReMax (Li et al. 2024, arXiv:2310.10505): a sample is compared with the policy's own greedy answer.

use serde::{Deserialize, Serialize};

use crate::advantage::{discounted_returns, spread_over_tokens};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A_t = (reward to come from token t) − r(greedy)`: REINFORCE with one greedy rollout of the question as baseline.
/// It needs no group, and one more rollout for each question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReMax {
    /// Range of the probability ratio; in the first update of a batch the gradient is REINFORCE's.
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for ReMax {
    fn default() -> Self {
        Self {
            clip: Clip::symmetric(0.2),
            aggregation: Aggregation::TokenMean,
            kl: Kl::default(),
            entropy_coefficient: 0.0,
        }
    }
}

impl Algorithm for ReMax {
    fn name(&self) -> &'static str {
        "remax"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let baselines = batch.baselines().ok_or(AlgorithmError::Missing {
            algorithm: self.name(),
            what: "baselines",
            remedy: "roll out each question greedily and give its reward to `RewardBatch::with_baselines`",
        })?;
        let returns = discounted_returns(&batch.token_level_rewards(), batch.lengths(), 1.0);
        let baselines: Vec<f64> = baselines.iter().map(|baseline| f64::from(*baseline)).collect();
        let baselines = spread_over_tokens(&baselines, batch.lengths());
        let advantages: Vec<f64> = returns.iter().zip(baselines).map(|(value, baseline)| value - baseline).collect();
        Ok(Advantages::from_tokens(batch, &advantages, &returns))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.clip.surrogate(inputs.ratio(), inputs.advantages())
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn greedy_baseline(&self) -> bool {
        true
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
    fn a_sample_is_compared_with_the_greedy_one() {
        let batch = RewardBatch::new(&[1.0, 0.25], &[0, 1], &[2, 1]).unwrap();
        assert!(matches!(ReMax::default().advantages(&batch), Err(AlgorithmError::Missing { what: "baselines", .. })));
        let batch = batch.with_baselines(&[0.5, 0.5]).unwrap();
        assert_eq!(ReMax::default().advantages(&batch).unwrap().advantages, [0.5, 0.5, -0.25]);
    }
}
