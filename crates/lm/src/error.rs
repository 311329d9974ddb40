//! What can be wrong with a model folder or a call.

use std::path::PathBuf;

/// Errors of loading, saving and training a model.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
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
        /// What it says.
        value: String,
        /// What is supported.
        expected: String,
    },
    /// A tensor that is missing, superfluous, of another shape or not finite.
    #[error("{path}: tensor `{name}` {message}")]
    Tensor {
        /// The weight file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A tokenizer that does not fit the model.
    #[error(
        "{folder}: the tokenizer has {tokenizer} tokens, the model's embedding only {embedding}: they do not belong together"
    )]
    Vocabulary {
        /// The model folder.
        folder: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        embedding: usize,
    },
    /// Text that could not be tokenized or a template that could not be rendered.
    #[error(transparent)]
    Text(#[from] zerosearch_text::TextError),
    /// A batch that cannot be trained on.
    #[error("{0}")]
    Batch(String),
}

impl LmError {
    pub(crate) fn file(path: impl Into<PathBuf>, message: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), message: message.to_string() }
    }
}
