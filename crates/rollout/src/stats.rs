//! Rollouts summed up in the names that users of other RL codes know.

use zerosearch_search::Quality;

use crate::{Rollout, RolloutEnd};

/// Means over the rollouts of one step or one evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutStats {
    /// Number of rollouts. With 0 all the rest is 0 and means nothing.
    pub rollouts: usize,
    /// Policy turns per rollout.
    pub number_of_actions: f64,
    /// Share of rollouts that ended with an answer.
    pub finish_ratio: f64,
    /// Share of a rollout's turns that called a tool or gave an answer, averaged over
    /// rollouts; a rollout without turns counts as 0.
    pub ratio_of_valid_action: f64,
    /// Calls per rollout that the tool answered; search is the usual one.
    pub number_of_valid_search: f64,
    /// Calls in all rollouts that the tool could not answer.
    pub search_failures: usize,
    /// Share of the executed searches for which noisy documents were drawn.
    pub noisy_ratio: f64,
    /// Share of rollouts that filled the model's context.
    pub context_ratio: f64,
    /// Document tokens in all rollouts that did not fit into an observation.
    pub cut_tokens: usize,
    /// Sampled tokens per rollout: those that are trained on.
    pub policy_tokens: f64,
    /// Prompt tokens.
    pub prompt_length: Spread,
    /// Tokens after the prompt, observations included.
    pub response_length: Spread,
}

/// Mean and extremes of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The largest value.
    pub max: f64,
    /// The smallest value.
    pub min: f64,
}

impl RolloutStats {
    /// Sums up.
    pub fn of<'r>(rollouts: impl IntoIterator<Item = &'r Rollout>) -> Self {
        let rollouts: Vec<&Rollout> = rollouts.into_iter().collect();
        let mean = |value: &dyn Fn(&Rollout) -> f64| ratio(rollouts.iter().copied().map(value).sum(), rollouts.len());
        let sum = |value: &dyn Fn(&Rollout) -> usize| rollouts.iter().copied().map(value).sum::<usize>();
        let ended = |end: RolloutEnd| mean(&|rollout| f64::from(u8::from(rollout.end == end)));
        let noisy = |rollout: &Rollout| rollout.calls().filter(|call| call.quality == Some(Quality::Noisy)).count();
        Self {
            rollouts: rollouts.len(),
            number_of_actions: mean(&|rollout| rollout.turns.len() as f64),
            finish_ratio: ended(RolloutEnd::Answered),
            ratio_of_valid_action: mean(&|rollout| ratio(rollout.valid_actions() as f64, rollout.turns.len())),
            number_of_valid_search: mean(&|rollout| (rollout.searches() - rollout.search_failures()) as f64),
            search_failures: sum(&Rollout::search_failures),
            noisy_ratio: ratio(sum(&noisy) as f64, sum(&Rollout::searches)),
            context_ratio: ended(RolloutEnd::Context),
            cut_tokens: sum(&|rollout| rollout.turns.iter().map(|turn| turn.cut_tokens).sum()),
            policy_tokens: mean(&|rollout| rollout.trajectory.mask().trained() as f64),
            prompt_length: Spread::of(rollouts.iter().map(|rollout| rollout.trajectory.prompt_len())),
            response_length: Spread::of(
                rollouts.iter().map(|rollout| rollout.trajectory.len() - rollout.trajectory.prompt_len()),
            ),
        }
    }

    /// Every figure under its metric's name; nothing when there are no rollouts.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        if self.rollouts == 0 {
            return Vec::new();
        }
        vec![
            ("env/number_of_actions", self.number_of_actions),
            ("env/finish_ratio", self.finish_ratio),
            ("env/ratio_of_valid_action", self.ratio_of_valid_action),
            ("env/number_of_valid_search", self.number_of_valid_search),
            ("env/search_failures", self.search_failures as f64),
            ("env/noisy_ratio", self.noisy_ratio),
            ("env/context_ratio", self.context_ratio),
            ("env/cut_tokens", self.cut_tokens as f64),
            ("env/policy_tokens", self.policy_tokens),
            ("prompt_length/mean", self.prompt_length.mean),
            ("prompt_length/max", self.prompt_length.max),
            ("prompt_length/min", self.prompt_length.min),
            ("response_length/mean", self.response_length.mean),
            ("response_length/max", self.response_length.max),
            ("response_length/min", self.response_length.min),
        ]
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = usize>) -> Self {
        let values: Vec<usize> = values.collect();
        Self {
            mean: ratio(values.iter().sum::<usize>() as f64, values.len()),
            max: values.iter().max().copied().unwrap_or_default() as f64,
            min: values.iter().min().copied().unwrap_or_default() as f64,
        }
    }
}

fn ratio(sum: f64, n: usize) -> f64 {
    if n == 0 { 0.0 } else { sum / n as f64 }
}
