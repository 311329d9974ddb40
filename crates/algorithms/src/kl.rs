//! Keeping the policy near the reference: `loss = pg + β·kl`.

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
    /// Which estimate of the divergence.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `−d`. Unbiased, may be negative. Its gradient is `∇log π`, zero in expectation: as a loss
    /// term it adds noise and pulls nowhere. Its place is in the reward.
    K1,
    /// `d²/2`. Biased as a value; its gradient `−d·∇log π` is in expectation that of `KL(π_θ ‖ π_ref)`.
    K2,
    /// `e^d − d − 1`. Unbiased and never negative; its gradient `(1 − e^d)·∇log π` is in
    /// expectation that of the *other* divergence, `KL(π_ref ‖ π_θ)`. GRPO's choice.
    K3,
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
        Kl { estimator: KlEstimator::K3, coefficient: 0.001 }
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
            KlEstimator::K3 => {
                let d = d.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO);
                d.clone().exp() - d - 1.0
            }
        }
    }
}
