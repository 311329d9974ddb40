//! Benchmarks, baselines and reports: EM, F1 and contains with n and a 95 % interval.
//!
//! ```
//! use zerosearch_eval::{Strategy, wilson_interval};
//!
//! let strategy: Strategy = "rag".parse()?;
//! assert!(strategy.needs_engine());
//!
//! // 8 right answers out of 10 say little about the next thousand questions.
//! let [low, high] = wilson_interval(8, 10);
//! assert!((low - 0.490).abs() < 1e-3 && (high - 0.943).abs() < 1e-3);
//! # Ok::<(), zerosearch_eval::EvalError>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod evaluate;
mod prediction;
mod retrieval;
mod scores;
mod strategy;

pub use error::EvalError;
pub use evaluate::{EvalConfig, Evaluation, evaluate};
pub use prediction::{Prediction, Utterance, predictions_path, write_predictions};
pub use scores::{GroupedScores, MacroAverage, Scores, UNKNOWN, wilson_interval};
pub use strategy::Strategy;
