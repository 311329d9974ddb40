//! The clipped surrogate of PPO, shared by everything that corrects for stale samples.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::AlgorithmError;
use crate::error::require;

/// How far the probability ratio `π_θ / π_old` may move before a token stops pulling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// The ratio is held above `1 − low`.
    pub low: f64,
    /// The ratio is held below `1 + high`.
    pub high: f64,
    /// Dual clip (Ye et al. 2020, arXiv:1912.09729): where the advantage is negative, the loss is held below
    /// `−dual·A`. More than 1, and usually 3; absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dual: Option<f64>,
}

/// A loss for each trained token, not yet summed.
#[derive(Clone, Debug)]
pub struct TokenLoss {
    /// `[tokens]`, differentiable.
    pub loss: Tensor<1>,
    /// `[tokens]`, 1 where clipping took effect and 0 elsewhere, without autodiff.
    pub clipped: Tensor<1>,
}

impl TokenLoss {
    /// A loss that nothing was clipped in.
    pub fn unclipped(loss: Tensor<1>) -> Self {
        let clipped = loss.clone().without_autodiff().zeros_like();
        Self { loss, clipped }
    }
}

impl Clip {
    /// The same range on both sides, without dual clip.
    pub const fn symmetric(range: f64) -> Self {
        Self { low: range, high: range, dual: None }
    }

    /// `max(−A·ρ, −A·clip(ρ, 1 − low, 1 + high))` (Schulman et al. 2017, arXiv:1707.06347, eq. 7).
    ///
    /// At `ρ = 1` the gradient with respect to `log π` is `−A`, REINFORCE's. `ratio` and `advantages` are `[tokens]`.
    pub fn surrogate(&self, ratio: Tensor<1>, advantages: Tensor<1>) -> TokenLoss {
        let pull = -advantages.clone();
        let held = pull.clone() * ratio.clone().clamp(1.0 - self.low, 1.0 + self.high);
        let free = pull.clone() * ratio;
        let clipped = held.clone().without_autodiff().greater(free.clone().without_autodiff()).float();
        let mut loss = free.max_pair(held);
        if let Some(dual) = self.dual {
            let ceiling = pull * dual;
            let above = loss.clone().without_autodiff().greater(ceiling.clone());
            loss = loss.mask_where(above.bool_and(advantages.lower_scalar(0.0)), ceiling);
        }
        TokenLoss { loss, clipped }
    }

    /// Refuses ranges that clip nothing sensible, in the name of `algorithm`.
    ///
    /// # Errors
    /// Names the bound, its value and its range.
    pub fn validate(&self, algorithm: &'static str) -> Result<(), AlgorithmError> {
        require(algorithm, "clip.low", self.low, (0.0..=1.0).contains(&self.low), "0 to 1")?;
        let valid = self.high >= 0.0 && self.high.is_finite();
        require(algorithm, "clip.high", self.high, valid, "0 or more")?;
        let dual = self.dual.unwrap_or(f64::MAX);
        require(algorithm, "clip.dual", dual, dual > 1.0, "more than 1, usually 3")
    }
}
