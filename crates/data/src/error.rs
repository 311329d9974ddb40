//! Errors of data files: each names the file, the line, what was expected and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use zerosearch_files::FileError;

/// Position of a row in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// A line of a text file; blank lines count.
    Line(u64),
    /// A row of a Parquet file, or an object of a JSON list.
    Row(u64),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Line(number) => write!(f, "line {number}"),
            Position::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// A data file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no such file.
    #[error("{path}: no such file; check the path, it is taken relative to the current directory")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("{path}: cannot be read: {source}; check its permissions and that it is a file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{path}: cannot be written: {source}; check free space and permissions of its directory")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// The name says nothing about the format.
    #[error("{path}: unknown file type, expected a name that ends in {expected}")]
    Extension {
        /// The file.
        path: PathBuf,
        /// The endings that are known.
        expected: &'static str,
    },
    /// A line holds bytes that are not UTF-8.
    #[error("{path}, {position}: not UTF-8; convert the file to UTF-8 (`iconv -t UTF-8`)")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line.
        position: Position,
    },
    /// The file is UTF-16.
    #[error("{path}: UTF-16, expected UTF-8; convert the file (`iconv -f UTF-16 -t UTF-8`)")]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a JSON object.
    #[error("{path}, {position}: expected one JSON object per line: {}; correct or delete the line", in_line(.source))]
    Json {
        /// The file.
        path: PathBuf,
        /// The line.
        position: Position,
        /// The parser's message.
        source: serde_json::Error,
    },
    /// The Parquet file is damaged or uses an encoding that is not supported.
    #[error(
        "{path}: not a readable Parquet file: {source}; write it again, without encryption, or convert it to .jsonl"
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        source: parquet::errors::ParquetError,
    },
    /// A row lacks a value or holds one of the wrong kind.
    #[error("{path}, {position}: {problem}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The row.
        position: Position,
        /// The key, what it should be and what it is.
        problem: RowProblem,
    },
    /// Two rows have the same id.
    #[error("{path}, {position}: id `{id}` was already used at {first}; give each row its own id")]
    DuplicateId {
        /// The file.
        path: PathBuf,
        /// The later row.
        position: Position,
        /// The earlier row.
        first: Position,
        /// The id.
        id: String,
    },
    /// The file has no rows.
    #[error("{path}: holds no rows; was it written completely?")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl DataError {
    /// An input error on `path`, told apart by whether the file is there at all.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => DataError::Missing { path: path.into() },
            _ => DataError::Read { path: path.into(), source },
        }
    }

    /// An output error on `path`.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        DataError::Write { path: path.into(), source }
    }
}

impl From<FileError> for DataError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read { path, source } => Self::read(&path, source),
            FileError::Write { path, source } => Self::Write { path, source },
        }
    }
}

/// The parser counts lines from the one it was given, which would contradict the position in the file.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

/// The problem of one row: the key, the expected value and the value found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {found}; expected {expected}; correct or delete the row")]
pub struct RowProblem {
    /// The key, or the keys of which one is needed.
    pub key: &'static str,
    /// The value found, shortened.
    pub found: String,
    /// The expected value.
    pub expected: &'static str,
}

impl RowProblem {
    /// A problem with the value under a key; `None` where it is missing.
    pub fn new(key: &'static str, found: Option<&serde_json::Value>, expected: &'static str) -> Self {
        const SHOWN: usize = 60;
        let found = match found {
            None => "missing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                match text.char_indices().nth(SHOWN) {
                    Some((cut, _)) => format!("{}…", &text[..cut]),
                    None => text,
                }
            }
        };
        Self { key, found, expected }
    }
}
