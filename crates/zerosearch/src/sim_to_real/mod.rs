//! The gap between a simulated engine and the real one, as a policy meets it.
//!
//! A policy answers the same questions with the real engine and with the simulator at several noise levels; then every query that it put to
//! the real engine is put to the simulator with both keywords. [`GapReport`] has the rewards, the searches and the documents side by side,
//! each with an interval.

mod documents;
mod page;
mod report;
mod run;

pub use report::{DocumentGap, DocumentsReport, EpisodeFigures, GapReport, NoiseLevel};
pub use run::SimToReal;
