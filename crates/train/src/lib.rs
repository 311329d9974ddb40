//! The RL loop: rollout, reward, advantage, update, checkpoint.

#![forbid(unsafe_code)]

mod batch;
mod builder;
mod checkpoint;
mod collection;
mod collector;
mod config;
mod critic;
mod error;
mod experience;
mod identity;
mod keys;
mod learner;
mod outputs;
mod replay;
mod replicas;
mod samples;
mod totals;
mod trainer;
mod updater;
mod validation;

pub use builder::TrainerBuilder;
pub use checkpoint::{latest_config, latest_step};
pub use config::{OldLogprobs, TrainConfig};
pub use error::TrainError;
pub use experience::Experience;
pub use keys::KeyChange;
pub use outputs::{read_ledger, write_ledger};
pub use replay::rescore;
pub use samples::{Sample, StepReport, read_samples, samples_path, write_samples};
pub use trainer::Trainer;
pub use validation::Validation;
pub use zerosearch_lm::LrSchedulerType;
