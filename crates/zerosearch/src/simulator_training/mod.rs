//! A simulator of one's own engine from one's own data: collect, judge, clean, fine-tune, measure.
//!
//! A policy answers questions with the real engine, a judge says of each search whether the answer can be found in what came, and a
//! model learns to write documents of either quality. Or the interactions are in a file already: see
//! [`read_tuning_data`](zerosearch_simulator::read_tuning_data).
//!
//! The folder of a run has `interactions.jsonl` (every labelled interaction, appended as they come), `simulator/` (a model folder with its
//! prompt) and `report.json` ([`SimulatorReport`]). A run that was killed goes on where it was and ends with the same files.

mod collect;
mod config;
mod folder;
mod report;
mod run;

pub use collect::Collection;
pub use config::{CollectConfig, SimulatorTrainingConfig, TuneConfig};
pub use report::{
    Agreement, DocumentsReport, ObedienceReport, PartReport, PerplexityReport, RowsReport, Share, SimulatorReport,
    StagesReport, SurfaceReport, TuningReport,
};
pub use run::{SimulatorTraining, Source};
