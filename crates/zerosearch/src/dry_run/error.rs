//! Errors of a dry run.

use std::path::PathBuf;

use zerosearch_files::FileError;
use zerosearch_lm::LmError;
use zerosearch_reward::RewardError;
use zerosearch_server::ServerError;
use zerosearch_train::TrainError;

use super::report::size;
use crate::config::EngineError;

/// A run that would fail, or that cannot be estimated.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// Keys that are missing or contradict each other.
    #[error("{0}")]
    Tables(String),
    /// A number out of its range.
    #[error("`{key}` is {value}, expected {expected}")]
    Key {
        /// The key, with its table.
        key: &'static str,
        /// The given value.
        value: f64,
        /// The allowed values.
        expected: &'static str,
    },
    /// An address that no request can be sent to.
    #[error("`{table}` has the address {url:?}, expected for example \"http://10.0.0.5:8000\"")]
    Address {
        /// Where it stands.
        table: &'static str,
        /// The address.
        url: String,
    },
    /// A model folder without a `config.json`, here and beside the configuration file.
    #[error(
        "{}: no config.json, and none in {}: name a folder of the same sizes with [dry_run] sizes = {{ {name:?} = \"FOLDER\" }}",
        folder.display(), beside.display()
    )]
    Sizes {
        /// The model folder.
        folder: PathBuf,
        /// The place beside the configuration file.
        beside: PathBuf,
        /// The folder, as it is written.
        name: String,
    },
    /// A file or folder of rates that holds none.
    #[error("{}: {message}", path.display())]
    Rates {
        /// The file or folder.
        path: PathBuf,
        /// The problem and its remedy.
        message: String,
    },
    /// More memory than there is.
    #[error("the run needs {} {during}, and {available}: most of it {largest}. {remedy}", size(*needed_bytes))]
    Memory {
        /// The need at its peak.
        needed_bytes: u64,
        /// The memory of the device, as a statement.
        available: String,
        /// The time of the peak.
        during: &'static str,
        /// The largest parts with their sizes.
        largest: String,
        /// Keys that would lower it.
        remedy: String,
    },
    /// A value of `[train]`.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The reward.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The table `[server]`.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A model's `config.json`.
    #[error(transparent)]
    Model(#[from] LmError),
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}
