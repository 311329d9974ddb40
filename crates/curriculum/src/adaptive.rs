//! Noise that rises and falls with the policy's success rate.

use serde::{Deserialize, Serialize};

use crate::error::unit;
use crate::shapes::interpolate;
use crate::{Curriculum, CurriculumError, Progress};

/// Holds the policy's success rate in a band: more noise when it succeeds often, less when it fails.
///
/// Proportional control on [`Progress::success_rate`]: `min` at the lower edge of the band and
/// below it, `max` at the upper edge and above it, a straight line between. The rate settles
/// inside the band whenever some noise between `min` and `max` puts it there. Before any rate is
/// known the documents are as good as allowed (`min`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    low: f64,
    high: f64,
    min: f64,
    max: f64,
}

impl Adaptive {
    /// A band of success rates from `low` to `high`, noise from `min` to `max`.
    ///
    /// # Errors
    /// A number outside `[0, 1]`, `low >= high`, `min >= max`.
    pub fn new(low: f64, high: f64, min: f64, max: f64) -> Result<Self, CurriculumError> {
        let adaptive =
            Self { low: unit("low", low)?, high: unit("high", high)?, min: unit("min", min)?, max: unit("max", max)? };
        for (lower, lower_value, upper, upper_value) in [("low", low, "high", high), ("min", min, "max", max)] {
            if lower_value >= upper_value {
                return Err(CurriculumError::Order { lower, lower_value, upper, upper_value });
            }
        }
        Ok(adaptive)
    }
}

impl Curriculum for Adaptive {
    fn noise_probability(&self, progress: Progress) -> f64 {
        match progress.success_rate {
            Some(rate) if rate > self.low => {
                interpolate(self.min, self.max, (rate - self.low) / (self.high - self.low))
            }
            _ => self.min,
        }
    }
}

/// The exponential moving average of a policy's success, for [`Progress::success_rate`].
///
/// It is the only state that an adaptive curriculum needs: serialise it with the checkpoint.
///
/// ```
/// use zerosearch_curriculum::SuccessRate;
///
/// let mut rate = SuccessRate::new(0.5)?;
/// assert_eq!(rate.value(), None);
/// rate.observe(1.0);
/// rate.observe(0.0);
/// assert_eq!(rate.value(), Some(0.5));
/// # Ok::<(), zerosearch_curriculum::CurriculumError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    decay: f64,
    value: Option<f64>,
}

impl SuccessRate {
    /// Keeps `decay` of the old value at each observation.
    ///
    /// # Errors
    /// A decay outside `[0, 1)`.
    pub fn new(decay: f64) -> Result<Self, CurriculumError> {
        if (0.0..1.0).contains(&decay) {
            Ok(Self { decay, value: None })
        } else {
            Err(CurriculumError::OutOfRange { key: "decay", value: decay, expected: "a number in [0, 1)" })
        }
    }

    /// Takes in the share of successful episodes of one step; the first one is taken as it is.
    ///
    /// Clamped to `[0, 1]`; a NaN (a step without episodes) is left out.
    pub fn observe(&mut self, success_rate: f64) {
        if success_rate.is_nan() {
            return;
        }
        let rate = success_rate.clamp(0.0, 1.0);
        self.value = Some(self.value.map_or(rate, |old| self.decay * old + (1.0 - self.decay) * rate));
    }

    /// The average so far; `None` before the first observation.
    pub fn value(&self) -> Option<f64> {
        self.value
    }
}
