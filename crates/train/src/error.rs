//! Errors of a training run.

use std::path::PathBuf;

use zerosearch_algorithms::AlgorithmError;
use zerosearch_curriculum::CurriculumError;
use zerosearch_files::FileError;
use zerosearch_generate::{GenerateError, Sampling};
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
        /// The given value.
        value: String,
        /// The allowed values.
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
        /// The number needed.
        needed: usize,
        /// The configured value.
        found: usize,
    },
    /// Importance weights whose denominator is unknown.
    #[error(
        "`importance_sampling` needs the probability with which each token was drawn, and this generator recorded none for temperature {}, top_p {}, top_k {}, min_p {}: sample at temperature 1 without truncation, sample in this process, or leave `importance_sampling` out",
        sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p
    )]
    NoSamplingLogprobs {
        /// The configured value.
        sampling: Sampling,
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
    /// A file of a run that is damaged, or belongs to another run.
    #[error("{path}: {message}")]
    RunFile {
        /// The file or folder.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// A checkpoint without a place.
    #[error("the trainer was built without a folder for checkpoints: give the builder one by `checkpoints`")]
    NoCheckpoints,
    /// A trainer whose last step failed half-way.
    #[error(
        "an earlier step failed after it had begun to change the weights: go back to the newest checkpoint by `resume`"
    )]
    Broken,
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
    Generate(#[from] GenerateError),
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

impl TrainError {
    pub(crate) fn file(path: impl Into<PathBuf>, message: impl std::fmt::Display) -> Self {
        Self::RunFile { path: path.into(), message: message.to_string() }
    }
}
