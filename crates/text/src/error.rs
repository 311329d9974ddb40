//! Errors of tokenizer files and templates.

use std::path::PathBuf;

use zerosearch_files::FileError;

/// Errors of codecs and templates.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A folder without the file that a codec cannot do without.
    #[error("{folder} has no {file}: expected a Hugging Face model folder with {file}, saved by a fast tokenizer", folder = .folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file that is not there.
        file: &'static str,
    },
    /// A file that cannot be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
    /// A file that is there and does not say what it should.
    #[error("{path}: {message}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem, and what was expected.
        message: String,
    },
    /// A template that does not parse, or that refuses its input.
    #[error("template {name}: {message}")]
    Template {
        /// Which template.
        name: String,
        /// The template engine's message, or the template's own.
        message: String,
    },
    /// A tokenizer that cannot be trained as asked.
    #[error("cannot train the tokenizer: {0}")]
    Training(String),
}
