//! One rollout on its way through a step: collected, rewarded, kept or left out.

use serde::{Deserialize, Serialize};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::Rollout;

/// A rollout and what it earned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experience {
    /// The rollout.
    pub rollout: Rollout,
    /// Its reward.
    pub reward: f32,
    /// The reward of the greedy rollout of its question, where the algorithm asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f32>,
    /// Whether the update may learn from it. Dynamic sampling leaves out groups whose rewards are all equal.
    pub kept: bool,
}

impl Experience {
    /// A rollout with its reward, kept and without a baseline.
    pub fn new(rollout: Rollout, reward: &dyn RewardFn, format: &EpisodeFormat) -> Self {
        Self { reward: score(&rollout, reward, format), rollout, baseline: None, kept: true }
    }
}

/// The reward of a rollout.
pub(crate) fn score(rollout: &Rollout, reward: &dyn RewardFn, format: &EpisodeFormat) -> f32 {
    let observations: Vec<String> = rollout.observations().map(str::to_string).collect();
    let episode = Episode {
        question: &rollout.question,
        golden_answers: &rollout.golden_answers,
        policy_turns: &rollout.policy_turns(),
        observations: &observations,
    };
    reward.reward_in(format, &episode)
}
