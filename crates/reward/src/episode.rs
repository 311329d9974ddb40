//! The interface of rewards: `Episode` in, a number out.

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
}

impl<'a> Episode<'a> {
    /// The answer that the policy gave in the default format; in another one, [`EpisodeFormat::extract_answer`].
    pub fn answer(&self) -> Option<&'a str> {
        EpisodeFormat::default().extract_answer(self.policy_turns)
    }
}

/// A score of an episode. Pure and total: every episode has one finite reward, always the same.
pub trait RewardFn: Send + Sync {
    /// The name under which the reward is logged.
    fn name(&self) -> &str;

    /// The reward of `episode`, in the default format.
    fn reward(&self, episode: &Episode<'_>) -> f32;

    /// The reward of an episode in the words of `format`, which a trainer asks for. A reward that reads tags defines it; any
    /// other is the same in every format.
    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let _ = format;
        self.reward(episode)
    }
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

            fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
                (**self).reward_in(format, episode)
            }
        }
    )+};
}

through_a_pointer!(&R, Box<R>, std::sync::Arc<R>);
