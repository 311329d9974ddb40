//! A curriculum as it stands in a configuration file.

use serde::{Deserialize, Serialize};

use crate::{Adaptive, Constant, Curriculum, CurriculumError, Exponential, Linear, PerTurn, Reversed, Step};

/// A curriculum as it stands in a configuration file: `kind` names it, unknown keys are refused.
///
/// The default is the paper's: exponential, 0 → 0.5, base 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CurriculumConfig {
    /// [`Exponential`].
    Exponential {
        /// `p_s`, the probability of noise at the first step; 0.
        #[serde(default = "default_start")]
        start: f64,
        /// `p_e`, the probability of noise at the last step; 0.5.
        #[serde(default = "default_end")]
        end: f64,
        /// `b`; 4.
        #[serde(default = "default_base")]
        base: f64,
    },
    /// [`Constant`].
    Constant {
        /// The probability of noise.
        probability: f64,
    },
    /// [`Linear`].
    Linear {
        /// The probability of noise at the first step; 0.
        #[serde(default = "default_start")]
        start: f64,
        /// The probability of noise at the last step; 0.5.
        #[serde(default = "default_end")]
        end: f64,
    },
    /// [`Step`].
    Step {
        /// Pairs of (share of training done, probability from there on).
        steps: Vec<(f64, f64)>,
    },
    /// [`Reversed`].
    Reversed {
        /// The curriculum that is run backwards.
        of: Box<CurriculumConfig>,
    },
    /// [`PerTurn`].
    PerTurn {
        /// One curriculum for each turn.
        turns: Vec<CurriculumConfig>,
    },
    /// [`Adaptive`].
    Adaptive {
        /// Lower edge of the band of success rates.
        low: f64,
        /// Upper edge of the band of success rates.
        high: f64,
        /// The least probability of noise; 0.
        #[serde(default = "default_start")]
        min: f64,
        /// The greatest probability of noise; 0.5.
        #[serde(default = "default_end")]
        max: f64,
    },
}

impl CurriculumConfig {
    /// The curriculum that it describes.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn build(&self) -> Result<Box<dyn Curriculum>, CurriculumError> {
        Ok(match self {
            Self::Exponential { start, end, base } => Box::new(Exponential::new(*start, *end, *base)?),
            Self::Constant { probability } => Box::new(Constant::new(*probability)?),
            Self::Linear { start, end } => Box::new(Linear::new(*start, *end)?),
            Self::Step { steps } => Box::new(Step::new(steps.clone())?),
            Self::Reversed { of } => Box::new(Reversed(of.build()?)),
            Self::PerTurn { turns } => {
                Box::new(PerTurn::new(turns.iter().map(Self::build).collect::<Result<Vec<_>, _>>()?)?)
            }
            Self::Adaptive { low, high, min, max } => Box::new(Adaptive::new(*low, *high, *min, *max)?),
        })
    }
}

impl Default for CurriculumConfig {
    fn default() -> Self {
        Self::Exponential { start: default_start(), end: default_end(), base: default_base() }
    }
}

fn default_start() -> f64 {
    0.0
}

fn default_end() -> f64 {
    0.5
}

fn default_base() -> f64 {
    4.0
}
