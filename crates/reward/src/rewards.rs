//! Rewards of the answer alone, and their weighted sum.

use zerosearch_grammar::EpisodeFormat;

use crate::{Episode, RewardFn, contains, exact_match, f1};

/// [`f1`] of the answer; 0 without one. The reward of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F1Reward;

impl RewardFn for F1Reward {
    fn name(&self) -> &str {
        "f1"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.reward_in(&EpisodeFormat::default(), episode)
    }

    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let answer = format.extract_answer(episode.policy_turns);
        answer.map_or(0.0, |answer| f1(answer, episode.golden_answers) as f32)
    }
}

/// 1 when the answer is an [`exact_match`], else 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactMatchReward;

impl RewardFn for ExactMatchReward {
    fn name(&self) -> &str {
        "em"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.reward_in(&EpisodeFormat::default(), episode)
    }

    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let answer = format.extract_answer(episode.policy_turns);
        one_if(answer.is_some_and(|answer| exact_match(answer, episode.golden_answers)))
    }
}

/// 1 when the answer [`contains`] a golden one, else 0. A policy that is paid for it learns to ramble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainsReward;

impl RewardFn for ContainsReward {
    fn name(&self) -> &str {
        "contains"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.reward_in(&EpisodeFormat::default(), episode)
    }

    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let answer = format.extract_answer(episode.policy_turns);
        one_if(answer.is_some_and(|answer| contains(answer, episode.golden_answers)))
    }
}

/// A weighted sum of rewards.
///
/// ```
/// use zerosearch_reward::{Episode, F1Reward, FormatReward, RewardFn, Weighted};
///
/// let reward = Weighted::new("f1+format", vec![(1.0, Box::new(F1Reward)), (0.2, Box::new(FormatReward))])?;
/// let (golden, turns) = (["Lima".to_owned()], ["<think>I know.</think><answer>Lima</answer>".to_owned()]);
/// let episode = Episode {
///     question: "Peru?",
///     golden_answers: &golden,
///     policy_turns: &turns,
///     observations: &[],
/// };
/// assert_eq!(reward.reward(&episode), 1.2);
/// # Ok::<(), zerosearch_reward::RewardError>(())
/// ```
pub struct Weighted {
    name: String,
    parts: Vec<(f32, Box<dyn RewardFn>)>,
}

impl Weighted {
    /// The sum of `weight · reward` over `parts`, logged as `name`.
    ///
    /// # Errors
    /// No parts, or a weight that is not finite.
    pub fn new(name: impl Into<String>, parts: Vec<(f32, Box<dyn RewardFn>)>) -> Result<Self, RewardError> {
        let name = name.into();
        if parts.is_empty() {
            return Err(RewardError::Empty { name });
        }
        match parts.iter().find(|(weight, _)| !weight.is_finite()) {
            Some((weight, part)) => Err(RewardError::Weight { name, part: part.name().to_owned(), weight: *weight }),
            None => Ok(Self { name, parts }),
        }
    }
}

impl RewardFn for Weighted {
    fn name(&self) -> &str {
        &self.name
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.reward_in(&EpisodeFormat::default(), episode)
    }

    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let reward = |part: &dyn RewardFn| f64::from(part.reward_in(format, episode));
        let sum: f64 = self.parts.iter().map(|(weight, part)| f64::from(*weight) * reward(part)).sum();
        sum.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
    }
}

/// A reward that cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RewardError {
    /// A name that stands for no reward.
    #[error("there is no reward {name:?}; expected f1, em, contains or format")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is nothing to sum.
    #[error("reward `{name}`: has no parts; expected at least one")]
    Empty {
        /// The reward.
        name: String,
    },
    /// A weight is not a number.
    #[error("reward `{name}`: the weight of `{part}` is {weight}; expected a finite number")]
    Weight {
        /// The reward.
        name: String,
        /// The part.
        part: String,
        /// Its weight.
        weight: f32,
    },
}

pub(crate) fn one_if(condition: bool) -> f32 {
    if condition { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_weights_are_refused_by_name() {
        let error = |parts| Weighted::new("sum", parts).map(drop).unwrap_err().to_string();
        assert_eq!(error(vec![]), "reward `sum`: has no parts; expected at least one");
        assert_eq!(
            error(vec![(1.0, Box::new(F1Reward)), (f32::NAN, Box::new(ExactMatchReward))]),
            "reward `sum`: the weight of `em` is NaN; expected a finite number"
        );
    }
}
