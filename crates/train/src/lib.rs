//! The RL loop: rollout, reward, advantage, update, checkpoint.

#![forbid(unsafe_code)]

mod copying;
mod demonstration;
mod pretraining;

pub use copying::{Copying, measure_copying};
pub use demonstration::{Habits, Part, demonstrate, encode_demonstration};
pub use pretraining::{Mixture, Pretraining, PretrainingError, index, sources, world};
