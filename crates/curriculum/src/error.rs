//! A curriculum that cannot be built.

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CurriculumError {
    /// A number outside its range, or not finite.
    #[error("curriculum: `{key}` is {value}; expected {expected}")]
    OutOfRange {
        /// The parameter, as the configuration names it.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// Two numbers in the wrong order.
    #[error("curriculum: `{lower}` is {lower_value} and `{upper}` is {upper_value}; expected {lower} < {upper}")]
    Order {
        /// The parameter that should be the smaller.
        lower: &'static str,
        /// Its value.
        lower_value: f64,
        /// The parameter that should be the larger.
        upper: &'static str,
        /// Its value.
        upper_value: f64,
    },
    /// A list without entries.
    #[error("curriculum: `{key}` is empty; expected at least one entry")]
    Empty {
        /// The parameter.
        key: &'static str,
    },
}

/// `value` when it is in `[0, 1]`.
pub(crate) fn unit(key: &'static str, value: f64) -> Result<f64, CurriculumError> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(CurriculumError::OutOfRange { key, value, expected: "a number in [0, 1]" })
    }
}
