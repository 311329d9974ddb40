//! Normalisation, and EM / F1 / contains / format rewards.
//!
//! Three metrics with three names: [`exact_match`] is equality, [`contains`] is containment, [`f1`]
//! counts shared words. All take the best over **all** golden answers.
//!
//! ```
//! use zerosearch_reward::{Episode, F1Reward, RewardFn, contains, exact_match, f1};
//!
//! let turns = [
//!     "<think>I look it up.</think><search>capital of France</search>".to_owned(),
//!     "<think>Found.</think><answer> The city of Paris. </answer>".to_owned(),
//! ];
//!
//! let golden = ["Paris".to_owned(), "Paris, France".to_owned()];
//! assert!(!exact_match("The city of Paris.", &golden));
//! assert!(contains("The city of Paris.", &golden));
//! assert_eq!(f1("The city of Paris.", &golden), 0.5); // 2·1 / (3 + 1)
//!
//! let episode = Episode {
//!     question: "What is the capital of France?",
//!     golden_answers: &golden,
//!     policy_turns: &turns,
//!     observations: &[],
//! };
//! assert_eq!(episode.answer(), Some("The city of Paris."));
//! assert_eq!(F1Reward.reward(&episode), 0.5);
//! ```

#![forbid(unsafe_code)]

mod config;
mod episode;
mod format;
mod metrics;
mod normalize;
mod rewards;
mod word;

pub use config::{RewardConfig, RewardKind, RewardPart};
pub use episode::{Episode, RewardFn};
pub use format::FormatReward;
pub use metrics::{contains, exact_match, f1};
pub use normalize::normalize_answer;
pub use rewards::{ContainsReward, ExactMatchReward, F1Reward, RewardError, Weighted};
