//! What a reward sees, and what it is.

use zerosearch_grammar::EpisodeFormat;

/// A finished episode as text, by author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode<'a> {
    /// The question that was asked.
    pub question: &'a str,
    /// Every answer that counts as right.
    pub golden_answers: &'a [String],
    /// The decoded text of each policy segment, in order. The prompt is no part of it.
    pub policy_turns: &'a [String],
    /// The decoded text of each observation, in order.
    pub observations: &'a [String],
    /// The tags that the policy was to write.
    pub format: &'a EpisodeFormat,
}

impl<'a> Episode<'a> {
    /// The answer that the policy gave, see [`EpisodeFormat::extract_answer`].
    pub fn answer(&self) -> Option<&'a str> {
        self.format.extract_answer(self.policy_turns)
    }
}

/// A score of an episode. Pure and total: every episode has one finite reward, always the same.
pub trait RewardFn: Send + Sync {
    /// The name under which the reward is logged.
    fn name(&self) -> &str;

    /// The reward of `episode`.
    fn reward(&self, episode: &Episode<'_>) -> f32;
}

macro_rules! through_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<R: RewardFn + ?Sized> RewardFn for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn reward(&self, episode: &Episode<'_>) -> f32 {
                (**self).reward(episode)
            }
        }
    )+};
}

through_a_pointer!(&R, Box<R>, std::sync::Arc<R>);
