//! The learning rate of a step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// What becomes of a learning rate after its warm-up, by transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedulerType {
    /// It stays.
    #[default]
    ConstantWithWarmup,
    /// It falls in a straight line that would reach 0 one step after the last.
    Linear,
    /// It falls along half a cosine that would reach 0 one step after the last.
    Cosine,
}

impl LrSchedulerType {
    /// The rate at a step counted from 0: a linear rise over `warmup_ratio · steps` steps, then `get_linear_schedule_with_warmup`
    /// or `get_cosine_schedule_with_warmup` of transformers.
    ///
    /// Their rise begins with a rate of 0, at which a step would be lost; this one begins one step further on.
    pub(crate) fn rate(self, peak: f64, warmup_ratio: f64, step: u64, steps: u64) -> f64 {
        let warmup = warmup_ratio * steps as f64;
        let rise = if warmup < 1.0 { 1.0 } else { ((step + 1) as f64 / warmup).min(1.0) };
        // transformers rounds the number of warm-up steps up.
        let (begin, end) = (warmup.ceil(), steps as f64);
        let progress = ((step as f64 - begin) / (end - begin).max(1.0)).clamp(0.0, 1.0);
        let fall = match self {
            Self::ConstantWithWarmup => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        };
        peak * rise * fall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: LrSchedulerType, ratio: f64, steps: u64) -> Vec<f64> {
        (0..steps).map(|step| kind.rate(1.0, ratio, step, steps)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-8, "{found} and {expected}");
        }
    }

    /// Worked by hand from transformers' formulas: two steps of warm-up, then `(10 − s)/8` and `½·(1 + cos(π·(s − 2)/8))`.
    #[test]
    fn the_decays_are_those_of_transformers() {
        let linear = [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125];
        assert_close(&rates(LrSchedulerType::Linear, 0.2, 10), &linear);
        let cosine = [
            0.5,
            1.0,
            1.0,
            0.961_939_766,
            0.853_553_391,
            0.691_341_716,
            0.5,
            0.308_658_284,
            0.146_446_609,
            0.038_060_234,
        ];
        assert_close(&rates(LrSchedulerType::Cosine, 0.2, 10), &cosine);
        assert_close(&rates(LrSchedulerType::ConstantWithWarmup, 0.2, 10), &[&[0.5][..], &[1.0; 9]].concat());
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_peak() {
        assert_close(&rates(LrSchedulerType::Linear, 0.0, 4), &[1.0, 0.75, 0.5, 0.25]);
        assert_close(&rates(LrSchedulerType::Cosine, 0.0, 4), &[1.0, 0.853_553_391, 0.5, 0.146_446_609]);
        assert_close(&rates(LrSchedulerType::ConstantWithWarmup, 0.0, 4), &[1.0; 4]);
    }

    #[test]
    fn a_fraction_of_a_warm_up_step_is_rounded_up_and_the_peak_is_never_passed() {
        // 2.5 steps of warm-up: the third reaches the peak, the decay begins with the fourth.
        let expected = [0.4, 0.8, 1.0, 1.0, 6.0 / 7.0, 5.0 / 7.0, 4.0 / 7.0, 3.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
        assert_close(&rates(LrSchedulerType::Linear, 0.25, 10), &expected);
        for kind in [LrSchedulerType::Linear, LrSchedulerType::Cosine, LrSchedulerType::ConstantWithWarmup] {
            // A warm-up over the whole run leaves nothing to decay.
            assert_close(&rates(kind, 1.0, 4), &[0.25, 0.5, 0.75, 1.0]);
            assert!(rates(kind, 0.07, 100).iter().all(|rate| (0.0..=1.0).contains(rate)));
        }
    }
}
