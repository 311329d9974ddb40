//! Errors of simulators.

use std::path::PathBuf;

use zerosearch_data::DataError;
use zerosearch_files::FileError;
use zerosearch_generate::GenerateError;
use zerosearch_lm::LmError;

/// Errors of labelling, tuning and simulating.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of examples that cannot be read, or a row of it that does not fit.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Interactions that leave nothing to learn from or nothing to measure on.
    #[error("{0}")]
    Split(String),
    /// A line that is no interaction.
    #[error("{}:{line}: {message}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault, and the value expected.
        message: String,
    },
    /// A value of [`Lessons`](crate::Lessons) out of its range.
    #[error("`{key}` is {value}, expected {expected}")]
    Lessons {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// A prompt template that does not render.
    #[error("simulator prompt: {0}")]
    Template(String),
    /// No interactions of one quality, so that nothing can be balanced.
    #[error(
        "{useful} useful and {noisy} noisy interactions: both are needed; collect with more questions or a weaker policy"
    )]
    OneSided {
        /// How many are useful.
        useful: usize,
        /// How many are noisy.
        noisy: usize,
    },
    /// A model that cannot be loaded.
    #[error(transparent)]
    Model(#[from] LmError),
    /// The language model failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
