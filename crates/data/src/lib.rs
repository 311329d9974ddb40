//! Questions, answers, corpora and SFT rows from JSONL and Parquet.
//!
//! ```
//! use zerosearch_data::{DataError, Question, fingerprint, read_questions, write_questions};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("questions.jsonl");
//! let mut question = Question::new("q1", "What is the capital of Peru?", vec!["Lima".to_owned()]);
//! question.hops = Some(1);
//! write_questions(&path, &[question.clone()])?;
//! assert_eq!(read_questions(&path)?, [question.clone()]);
//!
//! // A run can be resumed on the same questions only.
//! assert_ne!(fingerprint(&[question.clone()]), fingerprint(&[question.clone(), question]));
//!
//! // Errors name the file, the line, what was expected and what to do.
//! std::fs::write(&path, "{\"id\": \"q1\", \"question\": \"Why?\"}\n")?;
//! let error = read_questions(&path).unwrap_err().to_string();
//! assert!(error.contains("questions.jsonl, line 1: `golden_answers` is missing"), "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod answers;
mod benchmark;
mod corpus;
mod error;
mod fingerprint;
mod json_rows;
mod literal;
mod parquet_rows;
mod parquet_values;
mod question;
mod rows;
mod sft;

pub use benchmark::source_of_path;
pub use corpus::{CorpusRow, read_corpus};
pub use error::{DataError, Position, RowProblem};
pub use fingerprint::{Fingerprint, fingerprint};
pub use question::{Question, read_questions, write_questions};
pub use rows::read_objects;
pub use sft::{SftRow, read_sft, write_sft};
