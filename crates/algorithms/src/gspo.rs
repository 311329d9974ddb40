//! GSPO (Zheng et al. 2025, "Group Sequence Policy Optimization", arXiv:2507.18071): one ratio for a whole sequence.

use serde::{Deserialize, Serialize};

use crate::grpo::{standardized_within_groups, validate_epsilon};
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// The largest logarithm of a sequence ratio that is exponentiated.
const LARGEST_LOG_RATIO: f64 = 10.0;

/// GRPO's advantages with the ratio `s = (π_θ(y|x) / π_old(y|x))^(1/|y|)`, clipped for the sequence as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gspo {
    /// Added to the group's deviation.
    pub epsilon: f64,
    /// Range of the sequence ratio: much narrower than a token ratio's, 3e-4 below and 4e-4 above in the paper.
    pub clip: Clip,
    /// Aggregation of the token losses; with [`Aggregation::SequenceMean`] it is the paper's objective.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Gspo {
    fn default() -> Self {
        Self {
            epsilon: 1e-6,
            clip: Clip { low: 3e-4, high: 4e-4, dual: None },
            aggregation: Aggregation::SequenceMean,
            kl: Kl::NONE,
            entropy_coefficient: 0.0,
        }
    }
}

impl Algorithm for Gspo {
    fn name(&self) -> &'static str {
        "gspo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let advantages = standardized_within_groups(self.name(), batch, &batch.scores(), self.epsilon)?;
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    /// The token form of the objective (eq. 13): `s_t = sg[s]·π_θ / sg[π_θ]` has the value `s` at
    /// every token, and a gradient that goes through the token alone.
    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        let log_s = inputs.sequence_mean(inputs.log_ratio());
        let log_one = inputs.logprobs.clone() - inputs.logprobs.clone().without_autodiff();
        let ratio = (log_one + log_s).clamp_max(LARGEST_LOG_RATIO).exp();
        self.clip.surrogate(ratio, inputs.advantages())
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
