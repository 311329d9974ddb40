//! Errors of model folders and calls.

use std::path::PathBuf;

/// Errors of loading, saving and training a model.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file or folder that cannot be read or written, or whose parts do not belong together.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] zerosearch_files::FileError),
    /// A configuration key with a value that we do not compute.
    #[error("{path}: `{key}` is {value}, expected {expected}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The supported values.
        expected: String,
    },
    /// A tensor that is missing, superfluous, of another shape or not finite.
    #[error("{path}: tensor `{name}` {message}")]
    Tensor {
        /// The weight file or folder; `weights` where they are in memory.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The problem.
        message: String,
    },
    /// Text that could not be tokenized or a template that could not be rendered.
    #[error(transparent)]
    Text(#[from] zerosearch_text::TextError),
    /// A generator that cannot take new weights.
    #[error(transparent)]
    Generate(#[from] zerosearch_generate::GenerateError),
    /// A batch that cannot be trained on.
    #[error("{0}")]
    Batch(String),
}

impl LmError {
    pub(crate) fn file(path: impl Into<PathBuf>, message: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), message: message.to_string() }
    }

    /// A tensor of weights in memory.
    pub(crate) fn tensor(name: &str, message: impl Into<String>) -> Self {
        Self::Tensor { path: "weights".into(), name: name.into(), message: message.into() }
    }
}
