//! Input and record of an episode.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerosearch_grammar::{Action, EpisodeFormat};
use zerosearch_search::Quality;
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

impl Task {
    /// The first sample of a question.
    pub fn new(question_index: u64, question: &str, golden_answers: &[String], prompt: Vec<TokenId>) -> Self {
        Self { question_index, sample: 0, question: question.into(), golden_answers: golden_answers.to_vec(), prompt }
    }
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
///
/// In JSON the call's fields stand beside the turn's own, `null` or empty where there was no call:
/// `text, action, finish, query, quality, documents, search_failure, observation, cut_tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnRecord {
    /// The policy's text.
    pub text: String,
    /// The action that the text asks for.
    pub action: Action,
    /// Why the turn ended.
    pub finish: Finish,
    /// The call that was executed. Absent where there was none, and after the last turn.
    pub call: Option<ToolRecord>,
    /// The observation that follows. Absent after the last turn.
    pub observation: Option<String>,
    /// Number of document tokens that did not fit into the observation.
    pub cut_tokens: usize,
}

/// An executed call of the tool that the turn's [`Action`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRecord {
    /// The text of the call.
    pub input: String,
    /// The quality that a simulated engine was told to write. Absent when the noise is off.
    pub quality: Option<Quality>,
    /// The documents that a search found, best first, not escaped and not cut.
    pub documents: Vec<String>,
    /// Why the tool could not answer.
    pub failure: Option<String>,
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

    /// The observations, in order.
    pub fn observations(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().filter_map(|turn| turn.observation.as_deref())
    }

    /// The final answer, if there is one: [`EpisodeFormat::extract_answer`] of the policy's turns.
    pub fn answer(&self, format: &EpisodeFormat) -> Option<&str> {
        self.turns.iter().rev().find_map(|turn| format.extract_answer(std::slice::from_ref(&turn.text)))
    }

    /// Whether it was cut off: a turn reached its limit of new tokens, the context was full, or the generator gave it up.
    pub fn is_truncated(&self) -> bool {
        let cut_off = matches!(self.end, RolloutEnd::Context | RolloutEnd::Cancelled | RolloutEnd::TimedOut);
        cut_off || self.turns.iter().any(|turn| matches!(turn.finish, Finish::Length | Finish::Context))
    }

    /// Whether a turn neither called a tool nor gave an answer.
    pub fn is_invalid(&self) -> bool {
        self.valid_actions() < self.turns.len()
    }

    /// The calls that were executed, in order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolRecord> {
        self.turns.iter().filter_map(|turn| turn.call.as_ref())
    }

    /// Number of searches that were executed, failed ones included; with other tools, of all their calls.
    pub fn searches(&self) -> usize {
        self.calls().count()
    }

    /// Number of executed searches that the engine could not answer; with other tools, of all failed calls.
    pub fn search_failures(&self) -> usize {
        self.calls().filter(|call| call.failure.is_some()).count()
    }

    /// Number of turns that called a tool or gave an answer.
    pub fn valid_actions(&self) -> usize {
        self.turns.iter().filter(|turn| !matches!(turn.action, Action::Invalid(_))).count()
    }
}

/// A turn as it stands in JSON. The keys are older than tools other than search.
#[derive(Serialize, Deserialize)]
struct TurnLine<'a> {
    text: Cow<'a, str>,
    action: Cow<'a, Action>,
    finish: Finish,
    query: Option<Cow<'a, str>>,
    quality: Option<Quality>,
    documents: Cow<'a, [String]>,
    search_failure: Option<Cow<'a, str>>,
    observation: Option<Cow<'a, str>>,
    cut_tokens: usize,
}

impl Serialize for TurnRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let call = self.call.as_ref();
        TurnLine {
            text: Cow::Borrowed(&self.text),
            action: Cow::Borrowed(&self.action),
            finish: self.finish,
            query: call.map(|call| Cow::Borrowed(call.input.as_str())),
            quality: call.and_then(|call| call.quality),
            documents: Cow::Borrowed(call.map_or(&[], |call| &call.documents)),
            search_failure: call.and_then(|call| call.failure.as_deref()).map(Cow::Borrowed),
            observation: self.observation.as_deref().map(Cow::Borrowed),
            cut_tokens: self.cut_tokens,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TurnRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let TurnLine { text, action, finish, query, quality, documents, search_failure, observation, cut_tokens } =
            TurnLine::deserialize(deserializer)?;
        let call = query.map(|input| ToolRecord {
            input: input.into_owned(),
            quality,
            documents: documents.into_owned(),
            failure: search_failure.map(Cow::into_owned),
        });
        let observation = observation.map(Cow::into_owned);
        Ok(Self { text: text.into_owned(), action: action.into_owned(), finish, call, observation, cut_tokens })
    }
}
