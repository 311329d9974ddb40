//! The RL loop: rollout, reward, advantage, update, checkpoint.

#![forbid(unsafe_code)]

mod batch;
mod checkpoint;
mod collection;
mod config;
mod copying;
mod critic;
mod demonstration;
mod error;
mod identity;
mod pretraining;
mod replay;
mod replicas;
mod run;
mod samples;
mod totals;
mod trainer;
mod update;
mod validation;

pub use checkpoint::{latest_config, latest_step};
pub use config::{OldLogprobs, TrainConfig};
pub use copying::{Copying, measure_copying};
pub use demonstration::{Habits, Part, demonstrate, encode_demonstration};
pub use error::TrainError;
pub use pretraining::{Mixture, Pretraining, PretrainingError, index, sources, world};
pub use replay::rescore;
pub use run::RunEnd;
pub use samples::{Sample, read_samples, samples_path, write_samples};
pub use trainer::{Parts, StepReport, Trainer};
pub use validation::Validation;
pub use zerosearch_lm::LrSchedulerType;
