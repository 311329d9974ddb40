//! What goes into an episode and what comes out of it.

use serde::{Deserialize, Serialize};
use zerosearch_search::Quality;
use zerosearch_text::Action;
use zerosearch_trajectory::{Finish, TokenId, Trajectory};

/// One question to be answered once. A group of samples is several tasks with one
/// `question_index` and different `sample`s; the two numbers name the rollout's random streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The question's index in its data set.
    pub question_index: u64,
    /// The sample's index in its group.
    pub sample: u64,
    /// The question.
    pub question: String,
    /// Every answer that counts as right. Only a simulated engine is told them.
    pub golden_answers: Vec<String>,
    /// The tokens that the policy is prompted with.
    pub prompt: Vec<TokenId>,
}

/// One finished episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The question's index in its data set.
    pub question_index: u64,
    /// The sample's index in its group.
    pub sample: u64,
    /// The question.
    pub question: String,
    /// Every answer that counts as right.
    pub golden_answers: Vec<String>,
    /// The tokens exactly as the model saw and sampled them.
    pub trajectory: Trajectory,
    /// The policy's turns as text, in order.
    pub turns: Vec<TurnRecord>,
    /// Why it ended.
    pub end: RolloutEnd,
}

/// One policy turn and what it was answered, as text: for rewards, reports and reading. Nothing
/// is ever trained on this text; the tokens are in [`Rollout::trajectory`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// What the policy wrote.
    pub text: String,
    /// What it asked for by that.
    pub action: Action,
    /// Why the turn ended.
    pub finish: Finish,
    /// What the engine was asked. Absent when no search was executed.
    pub query: Option<String>,
    /// The quality that a simulated engine was told to write. Absent when the noise is off.
    pub quality: Option<Quality>,
    /// What the engine found, best first, not escaped and not cut.
    pub documents: Vec<String>,
    /// Why the engine could not answer.
    pub search_failure: Option<String>,
    /// What the policy was answered. Absent after the last turn.
    pub observation: Option<String>,
    /// Number of document tokens that did not fit into the observation.
    pub cut_tokens: usize,
}

/// Why an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutEnd {
    /// The policy gave an answer.
    Answered,
    /// The last allowed turn had no answer.
    TurnsExhausted,
    /// The model's context is full. An observation that left no room for a token is not part of
    /// the trajectory, since nothing was sampled after it.
    Context,
    /// The generator cancelled it.
    Cancelled,
    /// The generator gave up waiting.
    TimedOut,
}

impl Rollout {
    /// The policy's turns as text: the place to look for an answer, since no prompt and no
    /// document is in them.
    pub fn policy_turns(&self) -> Vec<String> {
        self.turns.iter().map(|turn| turn.text.clone()).collect()
    }

    /// What the policy was answered, in order.
    pub fn observations(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().filter_map(|turn| turn.observation.as_deref())
    }

    /// The final answer, if there is one.
    pub fn answer(&self) -> Option<&str> {
        self.turns.iter().rev().find_map(|turn| match &turn.action {
            Action::Answer(answer) => Some(answer.as_str()),
            _ => None,
        })
    }

    /// Whether it was cut off: a turn reached its limit of new tokens, the context was full, or the generator gave it up.
    pub fn is_truncated(&self) -> bool {
        let cut_off = matches!(self.end, RolloutEnd::Context | RolloutEnd::Cancelled | RolloutEnd::TimedOut);
        cut_off || self.turns.iter().any(|turn| matches!(turn.finish, Finish::Length | Finish::Context))
    }

    /// Whether a turn neither asked for a search nor gave an answer.
    pub fn is_invalid(&self) -> bool {
        self.valid_actions() < self.turns.len()
    }

    /// Number of searches that were executed, failed ones included.
    pub fn searches(&self) -> usize {
        self.turns.iter().filter(|turn| turn.query.is_some()).count()
    }

    /// Number of executed searches that the engine could not answer.
    pub fn search_failures(&self) -> usize {
        self.turns.iter().filter(|turn| turn.search_failure.is_some()).count()
    }

    /// Number of turns that asked for a search or gave an answer.
    pub fn valid_actions(&self) -> usize {
        self.turns.iter().filter(|turn| !matches!(turn.action, Action::Invalid(_))).count()
    }
}
