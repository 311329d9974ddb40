//! Named scalars to console, JSONL, TensorBoard and a self-contained HTML report.
//!
//! ```
//! use zerosearch_metrics::{JsonlSink, Metrics, Sink, read_jsonl};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("metrics.jsonl");
//! let mut sink = JsonlSink::create(&path)?;
//! for step in 1..=4 {
//!     let mut metrics = Metrics::new();
//!     metrics.summary("critic/rewards", &[0.0, 0.5, 1.0]);
//!     sink.log(step, &metrics)?;
//! }
//! drop(sink); // the run was killed; its last checkpoint is of step 2
//!
//! let mut sink = JsonlSink::resume(&path, 3)?;
//! sink.log(3, &Metrics::new())?;
//! let rows = read_jsonl(&path)?;
//! assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
//! assert_eq!(rows[0].metrics.get("critic/rewards/mean"), Some(0.5));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod console;
mod error;
mod jsonl;
mod legible;
mod metrics;
mod progress;
mod report;
mod sink;
mod tensorboard;
mod terminal;

pub use console::ConsoleSink;
pub use error::MetricsError;
pub use jsonl::{JsonlSink, Row, read_jsonl, series};
pub use legible::{Legible, legible, legible_line};
pub use metrics::Metrics;
pub use progress::ProgressBar;
pub use report::{Author, Chart, Line, Report, ReportTrajectory, Table, TrajectorySpan, write_report};
pub use sink::{Sink, Sinks};
pub use tensorboard::{TensorBoardSink, unix_seconds};
pub use terminal::{Transcript, say};
