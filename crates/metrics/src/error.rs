//! What can go wrong when figures are written or read back.

use std::path::{Path, PathBuf};

/// Errors of sinks, reports and atomic writes.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A file or folder could not be written.
    #[error(
        "cannot write {}: {source}; check that the disk is not full, that its file system is not read-only, and that the folder exists and is yours to write", path.display()
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line that is no row of metrics. Only the last line of a killed run may be broken.
    #[error(
        "{}:{line}: {message}; expected an object with a whole number \"step\" and numbers or nulls: delete that line, or start a new file", path.display()
    )]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
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

impl MetricsError {
    /// For `map_err`: names the file that could not be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_path_buf(), source }
    }

    /// For `map_err`: names the file that could not be read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_path_buf(), source }
    }
}
