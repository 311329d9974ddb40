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

mod attempt;
mod compare;
mod error;
mod evaluate;
mod evaluator;
mod figures;
mod journal;
mod methods;
mod prediction;
mod prompts;
mod recall;
mod report;
mod scores;
mod session;
mod stats;
mod stopwatch;
mod strategy;

pub use compare::{Comparison, Difference, McNemar, Paired};
pub use error::EvalError;
pub use evaluate::{EvalConfig, Evaluation, evaluate};
pub use evaluator::{Evaluated, Evaluator};
pub use figures::{Estimate, Figures, GroupedFigures, MacroFigures};
pub use journal::{Journal, Setting};
pub use prediction::{Evidence, Prediction, Utterance, predictions_path, read_predictions, write_predictions};
pub use prompts::Prompts;
pub use report::{Latency, Report, Times};
pub use scores::{GroupedScores, MacroAverage, Scores, UNKNOWN, wilson_interval};
pub use stats::{mcnemar_exact, pass_at_k};
pub use strategy::Strategy;
