//! CISPO (MiniMax 2025, "MiniMax-M1", arXiv:2506.13585): the importance weight is clipped, no token is dropped.

use serde::{Deserialize, Serialize};

use crate::grpo::{standardized_within_groups, validate_epsilon};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// GRPO's advantages; the loss of a token is `−sg[clip(ρ, 1 − low, 1 + high)]·A·log π_θ` (eq. 4–5).
///
/// Where PPO's clip silences a token, this keeps its gradient at a bounded weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cispo {
    /// Added to the group's deviation.
    pub epsilon: f64,
    /// Bounds of the importance weight; the paper sets no lower one (`low = 1`).
    pub clip: Clip,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term of the loss; the paper uses none.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Cispo {
    fn default() -> Self {
        Self {
            epsilon: 1e-6,
            clip: Clip { low: 1.0, high: 0.28, dual: None },
            aggregation: Aggregation::TokenMean,
            kl: Kl::NONE,
            entropy_coefficient: 0.0,
        }
    }
}

impl Algorithm for Cispo {
    fn name(&self) -> &'static str {
        "cispo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = standardized_within_groups(self.name(), batch, &batch.scores(), self.epsilon)?;
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        let ratio = inputs.ratio().without_autodiff();
        let weight = ratio.clone().clamp(1.0 - self.clip.low, 1.0 + self.clip.high);
        let clipped = ratio.not_equal(weight.clone()).float();
        TokenLoss { loss: -weight * inputs.advantages() * inputs.logprobs.clone(), clipped }
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
        if let Some(dual) = self.clip.dual {
            crate::error::require(
                self.name(),
                "clip.dual",
                dual,
                false,
                "nothing: a bounded weight needs no dual clip",
            )?;
        }
        self.clip.validate(self.name())
    }
}
