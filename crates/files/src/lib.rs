//! Files that are whole or not there: places prepared before the work, atomic writes, rows appended whole and read up to where
//! they were cut, and text with its byte-order mark taken off.
//!
//! ```
//! use zerosearch_files::{read_text, write_atomic};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("summary.json");
//! write_atomic(&path, b"{\"steps\": 40}")?;
//! assert_eq!(read_text(&path)?, "{\"steps\": 40}");
//!
//! let error = write_atomic(folder.path().join("absent/summary.json"), b"{}").unwrap_err().to_string();
//! assert!(error.contains("absent/summary.json") && error.contains("the folder exists"), "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod append;
mod atomic;
mod error;
mod non_numbers;
mod prepare;
mod rows;
mod text;

pub use append::append;
pub use atomic::{StagedFile, write_atomic};
pub use error::FileError;
pub use non_numbers::replace_non_numbers;
pub use prepare::{is_stream, prepare_file, prepare_folder};
pub use rows::{RowError, parse_rows};
pub use text::{decode_text, is_utf_16, read_text, without_mark};
