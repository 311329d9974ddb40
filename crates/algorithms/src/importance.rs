//! Importance weights for samples that another policy drew than the one whose log-probabilities the loss starts from.

use serde::{Deserialize, Serialize};

use crate::AlgorithmError;
use crate::advantage::spread_over_tokens;
use crate::batch::{same_length, token_ranges};
use crate::error::require;

/// The largest `|log π_old − log π_sampled|` that is exponentiated.
const LARGEST_LOG_RATIO: f64 = 20.0;

/// Weighs each token's policy-gradient loss by `w = π_old / π_sampled`, a constant without gradient.
///
/// `π_old` is the trainer's policy before the update, at temperature 1. `π_sampled` is the distribution that the generator drew the
/// token from: of older weights, of the same ones computed in another way, at another temperature, or truncated. Unbounded, a few weights would drown all others; both remedies bound them, and
/// both bias the gradient towards the samples as they are.
///
/// In a configuration file: `{ mode = "token_truncate", cap = 2.0 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportanceSampling {
    /// Level of the weights (token or sequence), and the treatment of those out of bounds.
    pub mode: ImportanceMode,
    /// The largest weight.
    pub cap: f64,
    /// The least ratio that a mask lets pass, at most 1; 0: any. Truncation has no lower bound.
    pub floor: f64,
}

/// TRL's `vllm_importance_sampling_mode`. A sequence's ratio is the product of its tokens' and stands at each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceMode {
    /// `w = min(ratio, cap)` for each token (TIS; Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    /// Training"): biased, with little variance.
    #[default]
    TokenTruncate,
    /// `w = ratio` inside `[floor, cap]`, else 0: the token contributes nothing (MIS; verl's `rollout_rs`).
    TokenMask,
    /// As [`TokenTruncate`](Self::TokenTruncate) with the sequence's ratio.
    SequenceTruncate,
    /// As [`TokenMask`](Self::TokenMask) with the sequence's ratio: a whole rollout counts or does not.
    SequenceMask,
}

/// A weight for each trained token, and how often a bound took effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceWeights {
    /// One for each trained token, for [`LossInputs::importance`](crate::LossInputs::importance).
    pub weights: Vec<f32>,
    /// Tokens whose ratio was above the cap and was cut to it.
    pub truncated: usize,
    /// Tokens whose ratio was outside the band and whose weight is 0.
    pub masked: usize,
}

impl Default for ImportanceSampling {
    fn default() -> Self {
        Self { mode: ImportanceMode::default(), cap: 2.0, floor: 0.0 }
    }
}

impl ImportanceSampling {
    /// The weights of a batch whose sequences have these trained tokens. `sampled_logprobs` are those under the distribution that was
    /// drawn from: `SampledToken::sampling_logprob` where a generator recorded it. The logarithm of a ratio is clamped to ±20.
    ///
    /// # Errors
    /// When the lists differ in length.
    pub fn weights(
        &self,
        old_logprobs: &[f32],
        sampled_logprobs: &[f32],
        lengths: &[usize],
    ) -> Result<ImportanceWeights, AlgorithmError> {
        let tokens = lengths.iter().sum();
        same_length("old_logprobs", "trained token", old_logprobs.len(), tokens)?;
        same_length("sampled_logprobs", "trained token", sampled_logprobs.len(), tokens)?;
        let pairs = old_logprobs.iter().zip(sampled_logprobs);
        let mut logarithms: Vec<f64> = pairs.map(|(old, sampled)| f64::from(*old) - f64::from(*sampled)).collect();
        if matches!(self.mode, ImportanceMode::SequenceTruncate | ImportanceMode::SequenceMask) {
            let sums: Vec<f64> = token_ranges(lengths).map(|range| logarithms[range].iter().sum()).collect();
            logarithms = spread_over_tokens(&sums, lengths);
        }
        let mut found = ImportanceWeights::default();
        for logarithm in logarithms {
            let ratio = logarithm.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp();
            let weight = match self.mode {
                ImportanceMode::TokenTruncate | ImportanceMode::SequenceTruncate => {
                    found.truncated += usize::from(ratio > self.cap);
                    ratio.min(self.cap)
                }
                ImportanceMode::TokenMask | ImportanceMode::SequenceMask => {
                    let inside = (self.floor..=self.cap).contains(&ratio);
                    found.masked += usize::from(!inside);
                    if inside { ratio } else { 0.0 }
                }
            };
            found.weights.push(weight as f32);
        }
        Ok(found)
    }

    /// Refuses bounds that keep nothing or mean nothing.
    ///
    /// # Errors
    /// Names the parameter, its value and its range.
    pub fn validate(&self) -> Result<(), AlgorithmError> {
        let require = |name, value, valid, expected| require("importance_sampling", name, value, valid, expected);
        // Equal policies have a ratio of 1, which no bound may touch.
        require("cap", self.cap, self.cap >= 1.0 && self.cap.is_finite(), "1 or more")?;
        match self.mode {
            ImportanceMode::TokenTruncate | ImportanceMode::SequenceTruncate => {
                require("floor", self.floor, self.floor == 0.0, "0: only a mask has a lower bound")
            }
            ImportanceMode::TokenMask | ImportanceMode::SequenceMask => {
                require("floor", self.floor, (0.0..=1.0).contains(&self.floor), "0 to 1")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios ½, 1, 4 in the first sequence and 3, ¼ in the second; products 2 and ¾.
    const RATIOS: [f32; 5] = [0.5, 1.0, 4.0, 3.0, 0.25];

    fn weights(mode: ImportanceMode, cap: f64, floor: f64) -> ImportanceWeights {
        let sampled = [-1.0, -0.5, -3.0, -2.0, -0.25];
        let old: Vec<f32> = sampled.iter().zip(RATIOS).map(|(log, ratio)| log + ratio.ln()).collect();
        let correction = ImportanceSampling { mode, cap, floor };
        correction.validate().unwrap();
        correction.weights(&old, &sampled, &[3, 2]).unwrap()
    }

    fn assert_weights(found: &ImportanceWeights, expected: [f32; 5], truncated: usize, masked: usize) {
        for (found, expected) in found.weights.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        }
        assert_eq!((found.weights.len(), found.truncated, found.masked), (5, truncated, masked));
    }

    #[test]
    fn truncation_cuts_what_is_above_the_cap() {
        let found = weights(ImportanceMode::TokenTruncate, 2.0, 0.0);
        assert_weights(&found, [0.5, 1.0, 2.0, 2.0, 0.25], 2, 0);
        let found = weights(ImportanceMode::SequenceTruncate, 1.5, 0.0);
        assert_weights(&found, [1.5, 1.5, 1.5, 0.75, 0.75], 3, 0);
    }

    #[test]
    fn a_mask_drops_what_is_outside_the_band() {
        let found = weights(ImportanceMode::TokenMask, 3.5, 0.4);
        assert_weights(&found, [0.5, 1.0, 0.0, 3.0, 0.0], 0, 2);
        let found = weights(ImportanceMode::SequenceMask, 1.5, 0.0);
        assert_weights(&found, [0.0, 0.0, 0.0, 0.75, 0.75], 0, 3);
        let found = weights(ImportanceMode::SequenceMask, 2.5, 0.8);
        assert_weights(&found, [2.0, 2.0, 2.0, 0.0, 0.0], 0, 2);
    }

    #[test]
    fn a_ratio_beyond_every_number_stays_finite() {
        let correction = ImportanceSampling { cap: 1e9, ..Default::default() };
        let found = correction.weights(&[0.0, -900.0], &[-900.0, 0.0], &[2]).unwrap();
        assert!(found.weights.iter().all(|weight| weight.is_finite()), "{found:?}");
    }

    #[test]
    fn another_temperature_or_truncation_is_corrected_to_the_policy_itself() {
        // The policy says ½, ¼, ¼. At temperature ½ its squares are drawn from: ⅔, ⅙, ⅙. Of the two most probable, ⅔, ⅓.
        let policy = [0.5f32, 0.25, 0.25].map(f32::ln);
        let correction = ImportanceSampling::default();
        for (drawn, expected) in [
            ([2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0], [0.75, 1.5, 1.5]),
            ([2.0 / 3.0, 1.0 / 3.0, f32::NAN], [0.75, 0.75, f32::NAN]),
            ([0.5, 0.25, 0.25], [1.0, 1.0, 1.0]),
        ] {
            let tokens = drawn.iter().filter(|probability| !probability.is_nan()).count();
            let drawn: Vec<f32> = drawn[..tokens].iter().map(|probability: &f32| probability.ln()).collect();
            let found = correction.weights(&policy[..tokens], &drawn, &[tokens]).unwrap().weights;
            // Under the distribution that is drawn from, the weights of all tokens of the policy have the mean 1.
            let mean: f32 = found.iter().zip(&drawn).map(|(weight, drawn)| weight * drawn.exp()).sum();
            assert!((mean - policy[..tokens].iter().map(|log| log.exp()).sum::<f32>()).abs() < 1e-6);
            found.iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-6));
        }
    }

    #[test]
    fn impossible_bounds_and_disagreeing_lengths_are_refused_by_name() {
        let refused = |mode, cap, floor| ImportanceSampling { mode, cap, floor }.validate().unwrap_err().to_string();
        assert!(refused(ImportanceMode::TokenTruncate, 0.5, 0.0).contains("`cap` is 0.5"));
        assert!(refused(ImportanceMode::TokenTruncate, f64::NAN, 0.0).contains("`cap` is NaN"));
        assert!(refused(ImportanceMode::SequenceTruncate, 2.0, 0.5).contains("`floor` is 0.5"));
        assert!(refused(ImportanceMode::TokenMask, 2.0, 1.5).contains("`floor` is 1.5"));
        let error = ImportanceSampling::default().weights(&[0.0; 2], &[0.0; 3], &[3]).unwrap_err().to_string();
        assert_eq!(error, "`old_logprobs` has 2 values, expected 3: one for each trained token");
    }
}
