//! The KL term that keeps the policy near the reference: `loss = pg + β·kl`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::AlgorithmError;
use crate::error::require;

/// The largest `|log π_ref − log π_θ|` that is exponentiated; beyond it f32 would overflow.
const LARGEST_LOG_RATIO: f64 = 20.0;

/// The KL term of a loss. It is *added*: a larger divergence is a larger loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kl {
    /// Which estimate of the divergence; K3 where a file does not say.
    #[serde(default)]
    pub estimator: KlEstimator,
    /// β. At 0 no reference model is needed.
    pub coefficient: f64,
}

/// Estimates of `KL(π_θ ‖ π_ref)` from one sampled token (Schulman 2020, "Approximating KL divergence"),
/// with `d = log π_ref − log π_θ`.
///
/// Two things differ between them: the value, and the gradient that automatic differentiation gives
/// when the term stands in a loss. The sampled tokens are constants there, so the gradient is not
/// that of the expectation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `−d`. Unbiased, may be negative. Its gradient is `∇log π`, zero in expectation: as a loss
    /// term it adds noise and pulls nowhere. Its place is in the reward.
    K1,
    /// `d²/2`. Biased as a value; its gradient `−d·∇log π` is in expectation that of `KL(π_θ ‖ π_ref)`.
    K2,
    /// `e^d − d − 1`. Unbiased and never negative; its gradient `(1 − e^d)·∇log π` is in
    /// expectation that of the *other* divergence, `KL(π_ref ‖ π_θ)`. GRPO's choice.
    #[default]
    K3,
    /// `|d|`, verl's `abs`. Biased upwards and never negative; its gradient `−sign(d)·∇log π` (0 at `d = 0`) pulls every token
    /// towards the reference with the same force, however far it is.
    Abs,
}

/// Keeping the policy near the reference through the reward: each trained token pays `β·(log π_old − log π_ref)`, k1.
///
/// Unlike a loss term of k1, this pulls: the penalty goes through the advantages (Ziegler et al. 2019, arXiv:1909.08593).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlReward {
    /// β, or where it starts when it adapts. At 0 there is no penalty.
    pub coefficient: f64,
    /// Moves β so that the divergence stays near a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveKl>,
}

/// The controller of Ziegler et al. 2019, section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The divergence to hold, in nats a token.
    pub target: f64,
    /// Sequences after which a constant error has changed β by its whole amount.
    pub horizon: f64,
}

impl KlReward {
    /// The penalty of each trained token, to be given to [`RewardBatch::with_token_rewards`](crate::RewardBatch::with_token_rewards).
    pub fn token_rewards(beta: f64, logprobs: &[f32], ref_logprobs: &[f32]) -> Vec<f32> {
        logprobs.iter().zip(ref_logprobs).map(|(log, reference)| (-beta * f64::from(log - reference)) as f32).collect()
    }

    /// β for the next batch, after one of `sequences` whose mean divergence was `kl`:
    /// `β·(1 + clip(kl/target − 1, ±0.2)·sequences/horizon)`, or β as it is.
    pub fn next(&self, beta: f64, kl: f64, sequences: usize) -> f64 {
        match self.adaptive {
            Some(AdaptiveKl { target, horizon }) => {
                beta * (1.0 + (kl / target - 1.0).clamp(-0.2, 0.2) * sequences as f64 / horizon)
            }
            None => beta,
        }
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the parameter, its value and its range.
    pub fn validate(&self) -> Result<(), AlgorithmError> {
        let valid = self.coefficient >= 0.0 && self.coefficient.is_finite();
        require("kl_reward", "coefficient", self.coefficient, valid, "0 or more: the divergence is paid for")?;
        let Some(AdaptiveKl { target, horizon }) = self.adaptive else { return Ok(()) };
        require("kl_reward", "adaptive.target", target, target > 0.0 && target.is_finite(), "above 0")?;
        require("kl_reward", "adaptive.horizon", horizon, horizon > 0.0 && horizon.is_finite(), "above 0")
    }
}

impl Kl {
    /// No KL term.
    pub const NONE: Kl = Kl { estimator: KlEstimator::K3, coefficient: 0.0 };

    pub(crate) fn validate(&self, algorithm: &'static str) -> Result<(), AlgorithmError> {
        let valid = self.coefficient >= 0.0 && self.coefficient.is_finite();
        require(algorithm, "kl.coefficient", self.coefficient, valid, "0 or more: the term is added to the loss")
    }
}

impl Default for Kl {
    fn default() -> Self {
        Kl { estimator: KlEstimator::default(), coefficient: 0.001 }
    }
}

impl KlEstimator {
    /// The estimate for each token, `[tokens]`; only `logprobs` carries a gradient.
    ///
    /// K3 clamps `d` to ±20, where `e^d` is already 5·10⁸, so that a token that the policy has
    /// given up does not turn the loss into infinity.
    pub fn per_token(&self, logprobs: Tensor<1>, ref_logprobs: Tensor<1>) -> Tensor<1> {
        let d = ref_logprobs.without_autodiff() - logprobs;
        match self {
            KlEstimator::K1 => -d,
            KlEstimator::K2 => d.square() * 0.5,
            KlEstimator::Abs => d.abs(),
            KlEstimator::K3 => {
                let d = d.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO);
                d.clone().exp() - d - 1.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_away_from_the_reference_costs_and_coming_back_pays() {
        assert_eq!(KlReward::token_rewards(0.5, &[-1.0, -3.0], &[-2.0, -2.0]), [-0.5, 0.5]);
    }

    #[test]
    fn the_controller_moves_the_coefficient_towards_the_target() {
        let adaptive = KlReward { coefficient: 0.1, adaptive: Some(AdaptiveKl { target: 0.01, horizon: 100.0 }) };
        adaptive.validate().unwrap();
        // Far above and far below the target the error is held at a fifth: 10 of 100 sequences move β by 2 %.
        assert!((adaptive.next(0.1, 1.0, 10) - 0.102).abs() < 1e-12);
        assert!((adaptive.next(0.1, 0.0, 10) - 0.098).abs() < 1e-12);
        assert!((adaptive.next(0.1, 0.01, 10) - 0.1).abs() < 1e-12);
        let fixed = KlReward { coefficient: 0.1, adaptive: None };
        assert_eq!(fixed.next(0.1, 5.0, 10), 0.1);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let bad = |coefficient, target, horizon| {
            let adaptive = Some(AdaptiveKl { target, horizon });
            KlReward { coefficient, adaptive }.validate().unwrap_err().to_string()
        };
        assert!(bad(-0.1, 0.1, 1.0).contains("coefficient"));
        assert!(bad(0.1, 0.0, 1.0).contains("adaptive.target"));
        assert!(bad(0.1, 0.1, f64::NAN).contains("adaptive.horizon"));
    }
}
