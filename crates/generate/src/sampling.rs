//! How a token is drawn from the model's distribution.

use serde::{Deserialize, Serialize};

use crate::GenerateError;

/// Sampling parameters. The default is the paper's: temperature 1, nothing truncated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens whose mass reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than this share of the most probable one; 0 drops none.
    pub min_p: f32,
    /// No end-of-text token is drawn before a turn has this many tokens.
    pub min_new_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, min_new_tokens: 0 }
    }
}

impl Sampling {
    /// Always the most probable token (the lowest id among equals).
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Nothing truncated, logits divided by `temperature`.
    pub fn temperature(temperature: f32) -> Self {
        Self { temperature, ..Self::default() }
    }

    /// Whether tokens are drawn from the model's own distribution: at temperature 1, untruncated. End-of-text tokens that
    /// `min_new_tokens` keeps out are not counted.
    pub fn is_untouched(&self) -> bool {
        *self == Self { min_new_tokens: self.min_new_tokens, ..Self::default() }
    }

    /// Checks every parameter's range.
    ///
    /// # Errors
    /// Names the parameter, its value and the range.
    pub fn validate(&self) -> Result<(), GenerateError> {
        let check = |name: &'static str, value: f32, ok: bool, expected: &'static str| {
            if ok { Ok(()) } else { Err(GenerateError::Parameter { name, value: value.to_string(), expected }) }
        };
        check(
            "temperature",
            self.temperature,
            self.temperature.is_finite() && self.temperature >= 0.0,
            "a finite number >= 0",
        )?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "a number in (0, 1]")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number in [0, 1]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sampling: Sampling) -> (&'static str, String) {
        match sampling.validate() {
            Err(error @ GenerateError::Parameter { name, .. }) => (name, error.to_string()),
            other => panic!("expected a refused parameter, got {other:?}"),
        }
    }

    #[test]
    fn the_default_and_the_shorthands_are_valid() {
        for sampling in [Sampling::default(), Sampling::greedy(), Sampling::temperature(0.8)] {
            sampling.validate().unwrap();
        }
        let borders =
            Sampling { temperature: 0.0, top_k: usize::MAX, top_p: f32::MIN_POSITIVE, min_p: 1.0, min_new_tokens: 7 };
        borders.validate().unwrap();
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        let valid = Sampling::default();
        for temperature in [-0.1, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(Sampling { temperature, ..valid }).0, "temperature");
        }
        for top_p in [0.0, -1.0, 1.001, f32::NAN] {
            assert_eq!(refused(Sampling { top_p, ..valid }).0, "top_p");
        }
        for min_p in [-0.001, 1.5, f32::NAN] {
            assert_eq!(refused(Sampling { min_p, ..valid }).0, "min_p");
        }
    }

    #[test]
    fn the_error_says_what_was_given_and_what_is_allowed() {
        let (_, message) = refused(Sampling { top_p: 1.5, ..Sampling::default() });
        assert_eq!(message, "top_p is 1.5, expected a number in (0, 1]");
    }
}
