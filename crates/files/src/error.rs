//! A file that cannot be read or written.

use std::path::{Path, PathBuf};

/// A file or folder that cannot be read or written: names it and what to check.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be written.
    #[error("cannot write {}: {source}{}", path.display(), remedy(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// Advice on an error of the operating system; one of our own says all that there is to say.
fn remedy(source: &std::io::Error) -> &'static str {
    if source.get_ref().is_some() {
        return "";
    }
    "; check that the disk is not full, that its file system is not read-only, and that the folder exists and is yours to write"
}

impl FileError {
    /// For `map_err`: names the file that could not be written.
    pub fn write(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Write { path: path.as_ref().to_path_buf(), source }
    }

    /// For `map_err`: names the file that could not be read.
    pub fn read(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Read { path: path.as_ref().to_path_buf(), source }
    }
}
