//! Probabilities that follow the training step alone.

use crate::error::unit;
use crate::{Curriculum, CurriculumError, Progress};

/// The curriculum of the paper (ZeroSearch, eq. 5):
/// `p_i = p_s + (b^(i/m) − 1) / (b − 1) · (p_e − p_s)`.
///
/// `b > 1` rises late, `b < 1` early, `b = 1` is the straight line. `i ≥ m` gives `p_e`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    start: f64,
    end: f64,
    ln_base: f64,
}

impl Exponential {
    /// From `start` (`p_s`) to `end` (`p_e`) with base `base` (`b`).
    ///
    /// # Errors
    /// A probability outside `[0, 1]`, or a base that is not finite and above 0.
    pub fn new(start: f64, end: f64, base: f64) -> Result<Self, CurriculumError> {
        if !(base > 0.0 && base.is_finite()) {
            return Err(CurriculumError::OutOfRange { key: "base", value: base, expected: "a finite number above 0" });
        }
        // Near 1, b − 1 is exact and ln_1p keeps every digit of it; ln(b) would do as well further away.
        let ln_base = if (base - 1.0).abs() < 0.5 { (base - 1.0).ln_1p() } else { base.ln() };
        Ok(Self { start: unit("start", start)?, end: unit("end", end)?, ln_base })
    }

    /// `(b^x − 1) / (b − 1)` without cancellation near `b = 1` and without overflow for a large `b`.
    fn shape(&self, x: f64) -> f64 {
        let l = self.ln_base;
        if l == 0.0 {
            x
        } else if l < 0.0 {
            (l * x).exp_m1() / l.exp_m1()
        } else {
            (l * (x - 1.0)).exp() * (-l * x).exp_m1() / (-l).exp_m1()
        }
    }
}

impl Curriculum for Exponential {
    fn noise_probability(&self, progress: Progress) -> f64 {
        interpolate(self.start, self.end, self.shape(progress.fraction()))
    }
}

/// The same probability throughout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant(f64);

impl Constant {
    /// Always `probability`.
    ///
    /// # Errors
    /// A probability outside `[0, 1]`.
    pub fn new(probability: f64) -> Result<Self, CurriculumError> {
        unit("probability", probability).map(Self)
    }
}

impl Curriculum for Constant {
    fn noise_probability(&self, _progress: Progress) -> f64 {
        self.0
    }
}

/// A straight line from the first step to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    start: f64,
    end: f64,
}

impl Linear {
    /// From `start` to `end`.
    ///
    /// # Errors
    /// A probability outside `[0, 1]`.
    pub fn new(start: f64, end: f64) -> Result<Self, CurriculumError> {
        Ok(Self { start: unit("start", start)?, end: unit("end", end)? })
    }
}

impl Curriculum for Linear {
    fn noise_probability(&self, progress: Progress) -> f64 {
        interpolate(self.start, self.end, progress.fraction())
    }
}

/// Jumps: a list of `(share of training done, probability from there on)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    steps: Vec<(f64, f64)>,
}

impl Step {
    /// The probability of the last entry whose share is reached.
    ///
    /// # Errors
    /// No entries, a first share other than 0, shares that do not ascend, a number outside `[0, 1]`.
    pub fn new(steps: Vec<(f64, f64)>) -> Result<Self, CurriculumError> {
        let first = steps.first().ok_or(CurriculumError::Empty { key: "steps" })?;
        if first.0 != 0.0 {
            let expected = "0 as the share of the first entry";
            return Err(CurriculumError::OutOfRange { key: "steps", value: first.0, expected });
        }
        for (share, probability) in &steps {
            unit("steps", *share)?;
            unit("steps", *probability)?;
        }
        if let Some(pair) = steps.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(CurriculumError::Order {
                lower: "share of an entry of steps",
                lower_value: pair[0].0,
                upper: "share of the next",
                upper_value: pair[1].0,
            });
        }
        Ok(Self { steps })
    }
}

impl Curriculum for Step {
    fn noise_probability(&self, progress: Progress) -> f64 {
        let done = progress.fraction();
        self.steps.iter().take_while(|(share, _)| *share <= done).last().map_or(0.0, |(_, probability)| *probability)
    }
}

/// `start` at 0, `end` at 1 (both exactly), never outside the two.
pub(crate) fn interpolate(start: f64, end: f64, x: f64) -> f64 {
    if x >= 1.0 { end } else { (start + x * (end - start)).clamp(start.min(end), start.max(end)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_near_base_one_keeps_its_digits() {
        // (b^x − 1)/(b − 1) = x · (1 + (x − 1)·ε/2 + O(ε²)) with ε = b − 1.
        for epsilon in [1e-4, 1e-8, 1e-12, -1e-12, -1e-8, -1e-4, f64::EPSILON] {
            let base = 1.0 + epsilon;
            let exact = base - 1.0;
            let curriculum = Exponential::new(0.0, 1.0, base).unwrap();
            let x = 0.3;
            let series = x * (1.0 + (x - 1.0) * exact / 2.0 + (x - 1.0) * (x - 2.0) * exact * exact / 6.0);
            assert!((curriculum.shape(x) / series - 1.0).abs() < 1e-11, "base {base}");
        }
    }

    #[test]
    fn extreme_bases_stay_finite_and_ordered() {
        for base in [f64::MIN_POSITIVE, 1e-300, 1e300, f64::MAX] {
            let curriculum = Exponential::new(0.0, 1.0, base).unwrap();
            let values: Vec<_> = (0..=10).map(|i| curriculum.noise_probability(Progress::at(i, 10))).collect();
            assert!(values.iter().all(|p| (0.0..=1.0).contains(p)), "base {base}: {values:?}");
            assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "base {base}: {values:?}");
            assert_eq!((values[0], values[10]), (0.0, 1.0));
        }
    }
}
