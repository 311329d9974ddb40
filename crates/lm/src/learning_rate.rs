//! The learning rate of a step: a linear rise, then a decay.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A learning rate's course over a run.
///
/// ```
/// use zerosearch_lm::LearningRate;
///
/// let rate = LearningRate::cosine(1e-3, 2, 10, 0.1);
/// assert_eq!((rate.at(0), rate.at(1), rate.at(2)), (5e-4, 1e-3, 1e-3));
/// assert_eq!(rate.at(10), 1e-4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// How long it rises.
    pub warmup: Warmup,
    /// Steps in all.
    pub total: u64,
    /// How it falls afterwards.
    #[serde(default = "cosine")]
    pub decay: LrSchedulerType,
    /// The share of the peak to which it falls; 1 keeps it constant.
    pub floor: f64,
}

/// The length of a warm-up, during which the rate rises in a straight line from above 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Warmup {
    /// So many steps.
    Steps(u64),
    /// This share of all steps; the peak is reached at the first step after it.
    Ratio(f64),
}

/// The course of a learning rate after its warm-up, by transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedulerType {
    /// It stays.
    #[default]
    ConstantWithWarmup,
    /// It falls in a straight line that would reach its end one step after the last.
    Linear,
    /// It falls along half a cosine that would reach its end one step after the last.
    Cosine,
}

fn cosine() -> LrSchedulerType {
    LrSchedulerType::Cosine
}

impl LearningRate {
    /// Rises for `warmup` steps, then follows a cosine from `peak` to `peak · floor` at the end.
    pub fn cosine(peak: f64, warmup: u64, total: u64, floor: f64) -> Self {
        Self { peak, warmup: Warmup::Steps(warmup), total, decay: LrSchedulerType::Cosine, floor }
    }

    /// The rate at a step counted from 0: `get_linear_schedule_with_warmup` or `get_cosine_schedule_with_warmup` of
    /// transformers.
    ///
    /// Their rise begins with a rate of 0, at which a step would be lost; this one begins one step further on.
    pub fn at(&self, step: u64) -> f64 {
        let total = self.total as f64;
        // The two rises differ in the order of multiplication and division, and so in the last bit of some rates:
        // models that were made with either can be made again.
        let (rise, begin) = match self.warmup {
            Warmup::Steps(steps) if step < steps => return self.peak * (step + 1) as f64 / steps as f64,
            Warmup::Steps(steps) => (1.0, steps as f64),
            Warmup::Ratio(ratio) => {
                let steps = ratio * total;
                let rise = if steps < 1.0 { 1.0 } else { ((step + 1) as f64 / steps).min(1.0) };
                // transformers rounds the number of warm-up steps up.
                (rise, steps.ceil())
            }
        };
        let progress = ((step as f64 - begin) / (total - begin).max(1.0)).clamp(0.0, 1.0);
        let fall = match self.decay {
            LrSchedulerType::ConstantWithWarmup => 1.0,
            LrSchedulerType::Linear => 1.0 - progress,
            LrSchedulerType::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        };
        self.peak * rise * (self.floor + (1.0 - self.floor) * fall)
    }
}

impl LrSchedulerType {
    /// The rate at a step counted from 0, after a rise over `warmup_ratio · steps` steps and with nothing left of it at
    /// the end; see [`LearningRate::at`].
    pub fn rate(self, peak: f64, warmup_ratio: f64, step: u64, steps: u64) -> f64 {
        let warmup = Warmup::Ratio(warmup_ratio);
        LearningRate { peak, warmup, total: steps, decay: self, floor: 0.0 }.at(step)
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

    fn bits(rate: impl Fn(u64) -> f64, steps: [u64; 8], expected: [u64; 8]) {
        assert_eq!(steps.map(|step| rate(step).to_bits()), expected, "{:?}", steps.map(rate));
    }

    /// Written down when the rises of reinforcement learning and of supervised training were two functions.
    #[test]
    fn the_rates_of_earlier_runs_keep_their_bits() {
        bits(
            |step| LrSchedulerType::ConstantWithWarmup.rate(0.00005, 0.05, step, 40),
            [0, 1, 2, 3, 19, 38, 39, 40],
            [
                0x3efa_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
            ],
        );
        bits(
            |step| LrSchedulerType::ConstantWithWarmup.rate(0.0003, 0.07, step, 100),
            [0, 3, 6, 7, 8, 50, 99, 120],
            [
                0x3f06_7830_373c_cbdc,
                0x3f26_7830_373c_cbdc,
                0x3f33_a92a_3055_3260,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
            ],
        );
        bits(
            |step| LrSchedulerType::ConstantWithWarmup.rate(0.000001, 0.285, step, 7),
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                0x3ea0_d1bb_4bc7_b50c,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
            ],
        );
        bits(
            |step| LrSchedulerType::Linear.rate(0.00005, 0.05, step, 40),
            [0, 1, 2, 3, 19, 38, 39, 40],
            [
                0x3efa_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f09_8648_bc80_9240,
                0x3efc_f94b_a58b_06e0,
                0x3ec6_1345_d376_1da5,
                0x3eb6_1345_d376_1d98,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LrSchedulerType::Linear.rate(0.0003, 0.07, step, 100),
            [0, 3, 6, 7, 8, 50, 99, 120],
            [
                0x3f06_7830_373c_cbdc,
                0x3f26_7830_373c_cbdc,
                0x3f33_a92a_3055_3260,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
                0x3f25_5ed4_d05c_9aef,
                0x3ecb_5aaa_0076_8902,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LrSchedulerType::Linear.rate(0.000001, 0.285, step, 7),
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                0x3ea0_d1bb_4bc7_b50c,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eaa_d7f2_9abc_af48,
                0x3ea4_21f5_f40d_8376,
                0x3e9a_d7f2_9abc_af48,
                0x3e8a_d7f2_9abc_af46,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LrSchedulerType::Cosine.rate(0.00005, 0.05, step, 40),
            [0, 1, 2, 3, 19, 38, 39, 40],
            [
                0x3efa_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_36e2_eb1c_432d,
                0x3f0a_2b6d_052d_fb5c,
                0x3efe_8776_4576_a676,
                0x3e96_e1c6_8cb5_4f77,
                0x3e76_ebcb_dc8f_a29d,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LrSchedulerType::Cosine.rate(0.0003, 0.07, step, 100),
            [0, 3, 6, 7, 8, 50, 99, 120],
            [
                0x3f06_7830_373c_cbdc,
                0x3f26_7830_373c_cbdc,
                0x3f33_a92a_3055_3260,
                0x3f33_a92a_3055_3261,
                0x3f33_a92a_3055_3261,
                0x3f26_5683_9488_2314,
                0x3e77_7949_a62b_6ae7,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LrSchedulerType::Cosine.rate(0.000001, 0.285, step, 7),
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                0x3ea0_d1bb_4bc7_b50c,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eb0_c6f7_a0b5_ed8d,
                0x3eae_59ab_385c_61ed,
                0x3ea5_f62f_6801_6b26,
                0x3e97_2f7f_b2d4_dfe8,
                0x3e79_a220_487b_c96c,
                0x0000_0000_0000_0000,
            ],
        );
        bits(
            |step| LearningRate::cosine(0.0001, 3, 40, 0.1).at(step),
            [0, 1, 2, 3, 4, 20, 39, 40],
            [
                0x3f01_79ec_9cbd_821e,
                0x3f11_79ec_9cbd_821e,
                0x3f1a_36e2_eb1c_432d,
                0x3f1a_36e2_eb1c_432d,
                0x3f1a_2c01_d687_1da5,
                0x3f0f_d523_1154_857b,
                0x3ee5_4fbe_2d8c_952e,
                0x3ee4_f8b5_88e3_68f1,
            ],
        );
        bits(
            |step| LearningRate::cosine(0.001, 60, 1500, 0.03).at(step),
            [0, 6, 59, 60, 61, 700, 1499, 2000],
            [
                0x3ef1_79ec_9cbd_821e,
                0x3f1e_955e_124b_a3b4,
                0x3f50_624d_d2f1_a9fc,
                0x3f50_624d_d2f1_a9fc,
                0x3f50_624c_95ad_134e,
                0x3f43_a29d_ca58_6bbd,
                0x3eff_755f_9e7a_c8e6,
                0x3eff_7510_4d55_1d69,
            ],
        );
        bits(
            |step| LearningRate::cosine(0.01, 0, 10, 1.0).at(step),
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
                0x3f84_7ae1_47ae_147b,
            ],
        );
        bits(
            |step| LearningRate::cosine(0.0002, 7, 5, 0.0).at(step),
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                0x3efd_f595_9efb_ba7d,
                0x3f0d_f595_9efb_ba7d,
                0x3f16_7830_373c_cbde,
                0x3f1d_f595_9efb_ba7d,
                0x3f22_b97d_835d_548e,
                0x3f26_7830_373c_cbde,
                0x3f2a_36e2_eb1c_432d,
                0x3f2a_36e2_eb1c_432d,
            ],
        );
    }

    #[test]
    fn a_schedule_of_four_keys_is_a_cosine() {
        let four = r#"{"peak": 0.001, "warmup": 60, "total": 1500, "floor": 0.03}"#;
        let read: LearningRate = serde_json::from_str(four).unwrap();
        assert_eq!(read, LearningRate::cosine(1e-3, 60, 1500, 0.03));
        assert_eq!(serde_json::from_str::<Warmup>("0.05").unwrap(), Warmup::Ratio(0.05));
    }
}
