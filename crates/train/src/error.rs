//! What can end a training run.

use std::path::PathBuf;

use zerosearch_algorithms::AlgorithmError;
use zerosearch_curriculum::CurriculumError;
use zerosearch_files::FileError;
use zerosearch_lm::LmError;
use zerosearch_metrics::MetricsError;
use zerosearch_rollout::RolloutError;
use zerosearch_text::TextError;

/// Errors of the trainer.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A value out of its range.
    #[error("`{key}` is {value}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// No questions to train on.
    #[error("there are no training questions")]
    NoQuestions,
    /// Groups that are too small for the estimator.
    #[error("{algorithm} compares at least {needed} samples of a question, samples_per_question is {found}")]
    GroupSize {
        /// The estimator.
        algorithm: &'static str,
        /// What it needs.
        needed: usize,
        /// What was configured.
        found: usize,
    },
    /// A loss or gradient that is not a number.
    #[error(
        "step {step}: loss {loss}, gradient norm {norm}; this update was not applied. Lower the learning rate or look at the rollouts of this step"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
        /// The gradient's norm.
        norm: f64,
    },
    /// A checkpoint that cannot be written or read, or belongs to another run.
    #[error("{path}: {message}")]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A file of sampled rollouts that cannot be written or read.
    #[error("{path}: {message}")]
    Samples {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A part failed.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// A part failed.
    #[error(transparent)]
    Curriculum(#[from] CurriculumError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// A part failed.
    #[error(transparent)]
    Lm(#[from] LmError),
    /// A part failed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A part failed.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// A part failed.
    #[error(transparent)]
    Text(#[from] TextError),
}
