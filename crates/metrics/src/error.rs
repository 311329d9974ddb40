//! Errors of writing figures and reading them back.

use std::path::PathBuf;

use zerosearch_files::FileError;

/// Errors of sinks and reports.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A file or folder that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line that is no row of metrics. Only the last line of a killed run may be broken.
    #[error(
        "{}:{line}: {message}; expected an object with a whole number \"step\" and numbers or nulls: delete that line, or start a new file", path.display()
    )]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The problem.
        message: String,
    },
    /// A metric with a name that rows use for something else.
    #[error(
        "a metric cannot be called {name:?}, rows use that key themselves: rename it, for example to \"env/{name}\""
    )]
    ReservedName {
        /// The name.
        name: String,
    },
}
