//! REINFORCE, GRPO, PPO and their kin: advantages on plain slices, losses on tensors.
//!
//! Everything here speaks of *trained tokens* only, the tokens that the policy sampled. The trainer
//! leaves prompts and observations out before it calls, so no estimator needs a mask.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use zerosearch_algorithms::{AlgorithmConfig, LossInputs, RewardBatch};
//!
//! let mut grpo = "grpo".parse::<AlgorithmConfig>()?.build()?;
//!
//! // Two samples of one question with two and one trained tokens.
//! let lengths = [2, 1];
//! let batch = RewardBatch::new(&[1.0, 0.0], &[0, 0], &lengths)?;
//! let advantages = grpo.advantages(&batch)?;
//! let weights = grpo.terms().aggregation.weights(&lengths);
//!
//! // The trainer's forward pass gives log-probabilities; here they are constants with a gradient.
//! let device = Device::flex().autodiff();
//! let constant = |values: &[f32]| Tensor::<1>::from_floats(values, &device);
//! let logprobs = constant(&[-1.0, -2.0, -0.5]).require_grad();
//! let output = grpo.loss(LossInputs {
//!     logprobs: logprobs.clone(),
//!     old_logprobs: constant(&[-1.0, -2.0, -0.5]),
//!     ref_logprobs: Some(constant(&[-1.0, -2.0, -0.5])),
//!     entropy: Some(constant(&[1.0, 1.0, 1.0])),
//!     advantages: constant(&advantages.advantages),
//!     weights: constant(&weights),
//!     importance: None,
//!     sequence_lengths: lengths.to_vec(),
//! })?;
//!
//! // Descending the gradient makes the better sample likelier and the worse one less likely.
//! let gradient = logprobs.grad(&output.loss.backward()).unwrap().try_into_vec_as::<f32>().unwrap();
//! assert!(gradient[0] < 0.0 && gradient[1] < 0.0 && gradient[2] > 0.0);
//! # Ok::<(), zerosearch_algorithms::AlgorithmError>(())
//! ```

#![forbid(unsafe_code)]

pub mod advantage;
mod aggregate;
mod algorithm;
mod batch;
mod clip;
mod config;
mod error;
mod importance;
mod kl;
mod loss;
mod value;

mod cispo;
mod dapo;
mod dr_grpo;
mod grpo;
mod gspo;
mod opo;
mod ppo;
mod reinforce;
mod reinforce_pp;
mod rejection_sft;
mod remax;
mod rloo;

pub use advantage::Advantages;
pub use aggregate::Aggregation;
pub use algorithm::Algorithm;
pub use batch::RewardBatch;
pub use cispo::Cispo;
pub use clip::{Clip, TokenLoss};
pub use config::AlgorithmConfig;
pub use dapo::{Dapo, Overlong};
pub use dr_grpo::DrGrpo;
pub use error::AlgorithmError;
pub use grpo::Grpo;
pub use gspo::Gspo;
pub use importance::{ImportanceMode, ImportanceSampling, ImportanceWeights};
pub use kl::{AdaptiveKl, Kl, KlEstimator, KlReward};
pub use loss::{LossInputs, LossMetrics, LossOutput, LossSums, LossTerms};
pub use opo::Opo;
pub use ppo::{Ppo, gae};
pub use reinforce::{Baseline, Reinforce};
pub use reinforce_pp::ReinforcePp;
pub use rejection_sft::RejectionSft;
pub use remax::ReMax;
pub use rloo::Rloo;
pub use value::{ValueInputs, ValueLoss, ValueMetrics, ValueOutput, ValueSums};
