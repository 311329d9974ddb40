//! The whole method, stage by stage: collect, judge, fine-tune the simulator, train against it, evaluate on the real engine.
//!
//! Every stage leaves its result in the run's folder and is skipped when a resumed run finds it there, so a run that
//! was killed goes on where it was and ends as if it had never stopped.

pub(crate) mod collect;
mod comparison;
mod config;
mod error;
pub(crate) mod evaluation;
pub(crate) mod fine_tuning;
pub(crate) mod folder;
mod report;
mod run;
pub(crate) mod steps;
pub(crate) mod tune;
mod world;

pub use comparison::write_comparison;
pub use config::PipelineConfig;
pub use error::PipelineError;
pub use evaluation::{Outcome, Summary, SummaryScores};
pub use run::{Pipeline, PipelineEnd};
pub use world::{Material, world_material};
