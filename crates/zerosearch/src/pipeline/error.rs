//! Errors that end a pipeline.

use std::path::PathBuf;

/// Errors of the whole method: each part's own, and those of the run's folder.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A file of the run's folder cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// The folder holds another run.
    #[error("{path} holds a run already: give `--resume` to go on with it, or another folder")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A configuration key out of its range.
    #[error("`{key}` is {value}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// The given value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// A demonstration that is no episode.
    #[error("demonstration {place}: {message}")]
    Demonstration {
        /// Its number in the file, from 1, and that of the turn.
        place: String,
        /// The problem, and the expectation.
        message: String,
    },
    /// No search of many succeeded, so that nothing can be learnt from them.
    #[error(
        "all of the last {searches} searches failed; nothing is lost, go on with `--resume` once this is mended: {failure}"
    )]
    Searches {
        /// How many there were.
        searches: usize,
        /// The first of their errors.
        failure: String,
    },
    /// A part failed.
    #[error(transparent)]
    Data(#[from] zerosearch_data::DataError),
    /// A part failed.
    #[error(transparent)]
    Eval(#[from] zerosearch_eval::EvalError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] zerosearch_files::FileError),
    /// A part failed.
    #[error(transparent)]
    Lm(#[from] zerosearch_lm::LmError),
    /// A part failed.
    #[error(transparent)]
    Metrics(#[from] zerosearch_metrics::MetricsError),
    /// A part failed.
    #[error(transparent)]
    Reward(#[from] zerosearch_reward::RewardError),
    /// A part failed.
    #[error(transparent)]
    Rollout(#[from] zerosearch_rollout::RolloutError),
    /// A part failed.
    #[error(transparent)]
    Search(#[from] zerosearch_search::SearchError),
    /// A part failed.
    #[error(transparent)]
    Simulator(#[from] zerosearch_simulator::SimulatorError),
    /// A part failed.
    #[error(transparent)]
    Text(#[from] zerosearch_text::TextError),
    /// A part failed.
    #[error(transparent)]
    Train(#[from] zerosearch_train::TrainError),
}

impl PipelineError {
    /// Refuses the first of these keys whose count is 0.
    pub(crate) fn refuse_zero(counts: &[(&'static str, usize)]) -> Result<(), Self> {
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(Self::Config { key, value: "0".into(), expected: "at least 1" }),
            None => Ok(()),
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, message: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), message: message.to_string() }
    }
}
