//! ZeroSearch: a language model learns to use a search engine by reinforcement learning without calling one.
//!
//! The facade: every crate of the workspace under one name, and [`pipeline`], which joins them into the whole method.
//!
//! ```
//! use zerosearch::curriculum::{Curriculum, Exponential, Progress};
//!
//! // The share of noisy documents rises from 0 to one half, slowly first.
//! let curriculum = Exponential::new(0.0, 0.5, 4.0)?;
//! assert_eq!(curriculum.noise_probability(Progress::at(0, 200)), 0.0);
//! assert!(curriculum.noise_probability(Progress::at(100, 200)) < 0.25);
//! assert_eq!(curriculum.noise_probability(Progress::at(200, 200)), 0.5);
//! # Ok::<(), zerosearch::curriculum::CurriculumError>(())
//! ```

#![forbid(unsafe_code)]

pub mod cold_start;
pub mod config;
pub mod cost;
pub mod device;
pub mod dry_run;
mod failure;
mod logging;
pub mod paper_tables;
pub mod pipeline;
pub mod prelude;
mod served_policy;
pub mod sim_to_real;
pub mod simulator_training;

pub use burn;
pub use failure::{Failure, Result};
pub use logging::init_logging;
pub use served_policy::ServedPolicy;
pub use zerosearch_algorithms as algorithms;
pub use zerosearch_curriculum as curriculum;
pub use zerosearch_data as data;
pub use zerosearch_eval as eval;
pub use zerosearch_files as files;
pub use zerosearch_generate as generate;
pub use zerosearch_grammar as grammar;
pub use zerosearch_kernels as kernels;
pub use zerosearch_lm as lm;
pub use zerosearch_metrics as metrics;
pub use zerosearch_nursery as nursery;
pub use zerosearch_remote as remote;
pub use zerosearch_reward as reward;
pub use zerosearch_rollout as rollout;
pub use zerosearch_search as search;
pub use zerosearch_server as server;
pub use zerosearch_simulator as simulator;
pub use zerosearch_text as text;
pub use zerosearch_train as train;
pub use zerosearch_trajectory as trajectory;
pub use zerosearch_world as world;

/// The README's example, compiled. A packaged crate has no README above it, and no need of this.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
