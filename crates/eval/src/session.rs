//! Model and engine, as methods use them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zerosearch_generate::{GenerateError, Generator, Request, SequenceId, Stop, Stream, TokenId, Turn};
use zerosearch_metrics::{Author, ProgressBar};
use zerosearch_rollout::{Condenser, Rollout, RolloutConfig, RolloutError, RolloutPlan, Task};
use zerosearch_search::{Document, Query, SearchEngine};
use zerosearch_text::PromptTemplate;

use crate::attempt::{Asked, Attempt, Opening};
use crate::stopwatch::Stopwatch;
use crate::{EvalError, Prompts, Utterance};

/// Shared settings of all methods: the model, the engine, the bounds of an episode, the seed.
pub(crate) struct Session<'a> {
    pub(crate) generator: &'a mut dyn Generator,
    pub(crate) engine: &'a dyn SearchEngine,
    /// Bounds, format, tokenizer and seed. Its `max_turns` is the budget of every method.
    pub(crate) plan: RolloutPlan<'a>,
    /// The method's first prompt.
    pub(crate) prompt: &'a PromptTemplate,
    pub(crate) prompts: &'a Prompts,
    pub(crate) progress: &'a ProgressBar,
}

/// A prompt to be completed.
pub(crate) struct Prompted {
    pub(crate) asked: Asking,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) stop: Stop,
}

/// Names the random stream of a completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) index: u64,
    pub(crate) sample: u64,
    pub(crate) turn: usize,
}

/// The model's text after a prompt; empty where the prompt left no room.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub(crate) text: String,
    pub(crate) tokens: usize,
    pub(crate) ended: Instant,
}

impl Session<'_> {
    /// The tasks of questions, with the method's prompt.
    pub(crate) fn open(&self, asked: &[Asked<'_>]) -> Result<Vec<Opening>, EvalError> {
        let open = |asked: &Asked<'_>| {
            let Asked { question, index, sample } = *asked;
            let text = self.prompt.render(&question.question)?;
            let prompt = self.plan.codec.encode(&text);
            let task = Task { sample, ..Task::new(index, &question.question, &question.golden_answers, prompt) };
            let transcript = vec![Utterance { author: Author::Prompt, text }];
            Ok(Opening { task, transcript, queries: Vec::new(), search_failures: 0 })
        };
        asked.iter().map(open).collect()
    }

    /// Runs episodes of at most so many turns.
    pub(crate) fn episodes(&mut self, openings: Vec<Opening>, max_turns: usize) -> Result<Vec<Attempt>, EvalError> {
        let tasks = openings.iter().map(|opening| opening.task.clone()).collect();
        let rollouts = self.rollouts(tasks, max_turns, None)?;
        let attempt = |(opening, (rollout, latency)): (Opening, (Rollout, Duration))| {
            Attempt::of(opening, &rollout, latency, &self.plan.format)
        };
        Ok(openings.into_iter().zip(rollouts).map(attempt).collect())
    }

    /// Runs the episodes of tasks, each with the time that it took.
    pub(crate) fn rollouts(
        &mut self,
        tasks: Vec<Task>,
        max_turns: usize,
        condenser: Option<&dyn Condenser>,
    ) -> Result<Vec<(Rollout, Duration)>, EvalError> {
        let plan = RolloutPlan { config: RolloutConfig { max_turns, ..self.plan.config }, ..self.plan.clone() };
        let mut generator = Stopwatch::new(&mut *self.generator, &tasks);
        let (bar, mut finished) = (self.progress, 0);
        let mut progress = |now: zerosearch_rollout::RolloutProgress| {
            bar.advance((now.finished - finished) as u64);
            finished = now.finished;
        };
        let rollouts = match condenser {
            None => plan.run(&mut generator, tasks, &mut progress)?,
            Some(condenser) => plan.run_condensed(&mut generator, tasks, condenser, &mut progress)?.0,
        };
        Ok(rollouts.into_iter().zip(generator.into_times()).collect())
    }

    /// Completes prompts, each in a sequence of its own, within the bounds of a turn; texts stand in their order.
    pub(crate) fn complete(&mut self, prompts: Vec<Prompted>) -> Result<Vec<Completed>, EvalError> {
        let mut live = BTreeMap::new();
        let outcome = self.complete_into(&mut live, prompts);
        for id in live.into_keys() {
            self.generator.release(id);
        }
        Ok(outcome?)
    }

    fn complete_into(
        &mut self,
        live: &mut BTreeMap<SequenceId, usize>,
        prompts: Vec<Prompted>,
    ) -> Result<Vec<Completed>, RolloutError> {
        let config = self.plan.config;
        let limit = if config.concurrency == 0 { usize::MAX } else { config.concurrency };
        let nothing = || Completed { text: String::new(), tokens: 0, ended: Instant::now() };
        let mut completed: Vec<Completed> = prompts.iter().map(|_| nothing()).collect();
        let mut waiting = prompts.into_iter().enumerate();
        loop {
            while live.len() < limit
                && let Some((position, Prompted { asked, tokens, stop })) = waiting.next()
            {
                let Asking { index: question, sample, turn } = asked;
                let (seed, step, number) = (self.plan.seed, self.plan.step, turn as u64);
                let seed = Stream { seed, purpose: "policy", step, question, sample, turn: number }.value();
                let deadline = config.turn_timeout_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
                let turn = Turn { max_new_tokens: config.max_new_tokens, seed, stop, deadline };
                match self.generator.start(Request { prompt: &tokens, sampling: config.sampling, turn }) {
                    Ok(id) => _ = live.insert(id, position),
                    Err(GenerateError::PromptTooLong { .. }) => completed[position] = nothing(),
                    Err(source) => return Err(RolloutError::Task { question_index: question, sample, source }),
                }
            }
            if live.is_empty() {
                return Ok(completed);
            }
            let finished = self.generator.poll()?;
            if finished.is_empty() {
                return Err(RolloutError::Stalled(live.len()));
            }
            for turn in finished {
                let position = live.remove(&turn.id).ok_or(RolloutError::UnknownSequence(turn.id.0))?;
                self.generator.release(turn.id);
                let mut ids: Vec<TokenId> = turn.tokens.iter().map(|token| token.id).collect();
                let tokens = ids.len();
                ids.pop_if(|last| self.plan.codec.eos_ids().contains(last));
                completed[position] = Completed { text: self.plan.codec.decode(&ids), tokens, ended: Instant::now() };
            }
        }
    }

    /// The documents of queries, in their order; `None` where the engine could not answer.
    pub(crate) fn search(&self, queries: &[&str]) -> Vec<Option<Vec<Document>>> {
        let top_k = self.plan.config.top_k;
        let asked: Vec<Query<'_>> = queries.iter().map(|text| Query { text, top_k, context: None }).collect();
        let found = self.engine.search_batch(&asked);
        let matches = found.len() == queries.len();
        let shown = found.into_iter().map(|found| found.ok().filter(|_| matches)).map(|found| {
            found.map(|mut documents| {
                documents.truncate(top_k);
                documents
            })
        });
        shown.chain(std::iter::repeat(None)).take(queries.len()).collect()
    }
}
