//! One question answered once.

use std::time::Duration;

use zerosearch_data::Question;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_metrics::Author;
use zerosearch_rollout::{Rollout, Task};

use crate::Utterance;

/// A question to be answered once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) question: &'a Question,
    /// Its index in the whole set, so that random draws do not depend on what is answered together.
    pub(crate) index: u64,
    pub(crate) sample: u64,
}

/// Everything before the policy's first turn.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) task: Task,
    pub(crate) transcript: Vec<Utterance>,
    /// Of executed searches, failed ones included.
    pub(crate) queries: Vec<String>,
    pub(crate) search_failures: usize,
}

/// A method's answer to a question, and its course.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) answer: Option<String>,
    pub(crate) transcript: Vec<Utterance>,
    /// Of executed searches, failed ones included.
    pub(crate) queries: Vec<String>,
    pub(crate) search_failures: usize,
    pub(crate) condensations: usize,
    /// Tokens read: prompts and observations, each once.
    pub(crate) tokens_in: usize,
    /// Tokens sampled.
    pub(crate) tokens_out: usize,
    /// Turns and readings of the model.
    pub(crate) calls: usize,
    /// From the start of its first sequence to its answer.
    pub(crate) latency: Duration,
}

impl Attempt {
    /// The outcome of an episode.
    pub(crate) fn of(opening: Opening, rollout: &Rollout, latency: Duration, format: &EpisodeFormat) -> Self {
        let Opening { mut transcript, mut queries, search_failures, .. } = opening;
        for turn in &rollout.turns {
            transcript.push(Utterance { author: Author::Policy, text: turn.text.clone() });
            transcript.extend(turn.observation.clone().map(|text| Utterance { author: Author::Observation, text }));
        }
        queries.extend(rollout.calls().map(|call| call.input.clone()));
        let tokens_out = rollout.trajectory.mask().trained();
        Self {
            // The same rule as in training, and in policy tokens only: the prompt shows an example answer.
            answer: rollout.answer(format).map(str::to_owned),
            transcript,
            queries,
            search_failures: search_failures + rollout.search_failures(),
            condensations: 0,
            tokens_in: rollout.trajectory.len() - tokens_out,
            tokens_out,
            calls: rollout.turns.len(),
            latency,
        }
    }
}
