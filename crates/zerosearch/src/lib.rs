//! ZeroSearch: a language model learns to use a search engine by reinforcement learning without calling one.

#![forbid(unsafe_code)]

pub use zerosearch_algorithms as algorithms;
pub use zerosearch_curriculum as curriculum;
pub use zerosearch_data as data;
pub use zerosearch_eval as eval;
pub use zerosearch_generate as generate;
pub use zerosearch_kernels as kernels;
pub use zerosearch_lm as lm;
pub use zerosearch_metrics as metrics;
pub use zerosearch_remote as remote;
pub use zerosearch_reward as reward;
pub use zerosearch_rollout as rollout;
pub use zerosearch_search as search;
pub use zerosearch_simulator as simulator;
pub use zerosearch_text as text;
pub use zerosearch_train as train;
pub use zerosearch_trajectory as trajectory;

pub use burn;
