//! How the shipped base model was raised: scripted episodes, pretraining text, copying, induction heads.
//!
//! ```
//! use zerosearch_lm::ModelConfig;
//! use zerosearch_nursery::init_induction;
//!
//! let mut config = ModelConfig::tiny_llama(1000, 256, 3, 4, 2, 256);
//! config.tie_word_embeddings = false;
//! config.rope_theta = 1e6;
//! let weights = init_induction(&config, 0)?;
//! assert_eq!(weights.get("lm_head.weight").map(|head| head.shape.clone()), Some(vec![1000, 256]));
//! # Ok::<(), zerosearch_lm::LmError>(())
//! ```

#![forbid(unsafe_code)]

mod copying;
mod demonstration;
mod induction;
mod pretraining;

pub use copying::{Copying, measure_copying};
pub use demonstration::{Habits, ScriptedTurn, demonstrate, encode_demonstration};
pub use induction::init_induction;
pub use pretraining::{Mixture, Pretraining, PretrainingError, index, sources, world};
