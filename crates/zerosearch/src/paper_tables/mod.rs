//! The tables of the paper in miniature: experiments over several seeds, their results as files, and a page that is written from them.
//!
//! A [`Table`] has rows, each of which is an [`Experiment`] by its name. An experiment with a seed is a [`Cell`]: one run and one JSON
//! file. Tables that have a row in common have its cells in common. A [`Runner`] makes the cells that [`Results`] lack, and [`page()`] sets
//! them beside the figures of the paper.
//!
//! ```
//! use zerosearch::paper_tables::{Experiment, TABLES};
//! use zerosearch::pipeline::PipelineConfig;
//!
//! let config = PipelineConfig::default();
//! for table in &TABLES {
//!     for name in table.experiments() {
//!         let experiment = Experiment::named(name, &config)?;
//!         assert_eq!(experiment.hash(), Experiment::named(name, &config)?.hash());
//!     }
//! }
//! # Ok::<(), zerosearch::pipeline::PipelineError>(())
//! ```

mod base;
mod cell;
mod experiment;
mod page;
mod remarks;
mod runner;
mod seeds;
mod tables;

pub use cell::{Cell, CellConfig, CellScores, Results};
pub use experiment::{Experiment, Training, TrainingEngine};
pub use page::page;
pub use remarks::{Remark, Remarks};
pub use runner::{Defect, Runner};
pub use tables::{Claim, Row, TABLES, Table};
