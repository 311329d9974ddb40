//! PPO (Schulman et al. 2017, arXiv:1707.06347) with a critic and GAE (Schulman et al. 2016, arXiv:1506.02438).

use serde::{Deserialize, Serialize};

use crate::advantage::whiten;
use crate::batch::token_ranges;
use crate::error::require;
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
    ValueLoss,
};

/// Generalised advantages from a critic's values, whitened over the batch's trained tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ppo {
    /// Discount for each trained token.
    pub gamma: f64,
    /// GAE's λ: 1 trusts the rewards, 0 the critic.
    pub lambda: f64,
    /// Whether advantages are shifted and scaled to mean 0 and deviation 1.
    pub whiten: bool,
    /// Range of the probability ratio, and the dual clip.
    pub clip: Clip,
    /// How far a value may move from the old one in one batch's updates; 0 switches clipping off.
    pub value_clip: f64,
    /// Aggregation of the token losses, the critic's included.
    pub aggregation: Aggregation,
    /// The KL term of the loss.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
}

impl Default for Ppo {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            lambda: 1.0,
            whiten: true,
            clip: Clip::symmetric(0.2),
            value_clip: 0.5,
            aggregation: Aggregation::TokenMean,
            kl: Kl::default(),
            entropy_coefficient: 0.001,
        }
    }
}

impl Algorithm for Ppo {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let values: Vec<f64> = match batch.values() {
            Some(values) => values.iter().map(|value| f64::from(*value)).collect(),
            None => {
                let remedy = "run the critic on the batch and pass its values with `RewardBatch::with_values`";
                return Err(AlgorithmError::Missing { algorithm: self.name(), what: "values", remedy });
            }
        };
        let rewards = batch.token_level_rewards();
        let mut advantages = Vec::with_capacity(values.len());
        for range in token_ranges(batch.lengths()) {
            advantages.extend(gae(&rewards[range.clone()], &values[range], self.gamma, self.lambda));
        }
        let returns: Vec<f64> = advantages.iter().zip(&values).map(|(advantage, value)| advantage + value).collect();
        if self.whiten {
            whiten(&mut advantages);
        }
        Ok(Advantages::from_tokens(batch, &advantages, &returns))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.clip.surrogate(inputs.ratio(), inputs.advantages())
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn value_loss(&self) -> Option<ValueLoss> {
        let clip = (self.value_clip > 0.0).then_some(self.value_clip);
        Some(ValueLoss { clip, aggregation: self.aggregation })
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        require(self.name(), "gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), "0 to 1")?;
        require(self.name(), "lambda", self.lambda, (0.0..=1.0).contains(&self.lambda), "0 to 1")?;
        let valid = self.value_clip >= 0.0 && self.value_clip.is_finite();
        require(self.name(), "value_clip", self.value_clip, valid, "0 or more; 0 switches clipping off")?;
        self.clip.validate(self.name())
    }
}

/// Generalised advantage estimation over one sequence's trained tokens: `A_t = δ_t + γλ·A_{t+1}` with
/// `δ_t = r_t + γ·V_{t+1} − V_t`, and nothing after the last token.
///
/// The successor of a turn's last token is the next turn's first: what a document says in between
/// is not a step of the policy, is not discounted and has no value. `rewards` and `values` are one
/// per trained token.
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; values.len().min(rewards.len())];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for (t, advantage) in advantages.iter_mut().enumerate().rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        *advantage = delta + gamma * lambda * next_advantage;
        (next_value, next_advantage) = (values[t], *advantage);
    }
    advantages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_one_is_the_return_less_the_value() {
        assert_eq!(gae(&[0.0, 0.0, 2.0], &[0.5, 1.0, 1.5], 1.0, 1.0), [1.5, 1.0, 0.5]);
    }

    #[test]
    fn lambda_zero_is_the_one_step_error() {
        assert_eq!(gae(&[0.0, 0.0, 2.0], &[0.5, 1.0, 1.5], 0.5, 0.0), [0.0, -0.25, 0.5]);
    }

    #[test]
    fn values_are_required() {
        let batch = RewardBatch::new(&[1.0], &[0], &[2]).unwrap();
        let error = Ppo::default().advantages(&batch).unwrap_err();
        assert!(error.to_string().contains("with_values"), "{error}");
    }

    #[test]
    fn returns_are_the_critics_target_whatever_whitening_does() {
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 0], &[2, 1]).unwrap().with_values(&[0.25, 0.5, 0.75]).unwrap();
        assert_eq!(Ppo::default().advantages(&batch).unwrap().returns, [1.0, 1.0, 0.0]);
        let raw = Ppo { whiten: false, ..Default::default() }.advantages(&batch).unwrap();
        assert_eq!(raw.advantages, [0.75, 0.5, -0.75]);
    }
}
