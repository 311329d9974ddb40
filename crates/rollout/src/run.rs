//! The event loop: turns that ended are parsed, calls answered, sequences extended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

use zerosearch_generate::{Finished, GenerateError, Generator, Request, SequenceId, Stream, Turn};
use zerosearch_grammar::{Action, EpisodeFormat};
use zerosearch_search::SearchEngine;
use zerosearch_text::{Codec, StopScanner};
use zerosearch_trajectory::TokenId;

use crate::desk::{Closing, Desk, Job, Replies};
use crate::live::LiveRollout;
use crate::{
    Noise, Observation, Observations, Rollout, RolloutConfig, RolloutEnd, RolloutError, RolloutTimes, SearchTool, Task,
    Tool, ToolRecord,
};

/// Everything that a rollout is a function of, except the tasks and the weights.
#[derive(Clone)]
pub struct RolloutPlan<'a> {
    /// The tools that the policy can call, by their tags.
    pub tools: Vec<Arc<dyn Tool + 'a>>,
    /// The policy's tokenizer.
    pub codec: &'a Codec,
    /// The words of an episode. Its tools' tags are those of `tools`, whatever stands in [`EpisodeFormat::tools`].
    pub format: EpisodeFormat,
    /// The bounds of an episode.
    pub config: RolloutConfig,
    /// The run's seed.
    pub seed: u64,
    /// The training step, or 0. With the seed and a task's numbers it names every random draw.
    pub step: u64,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutProgress {
    /// Rollouts that ended.
    pub finished: usize,
    /// Rollouts in all.
    pub total: usize,
    /// Tokens sampled so far.
    pub tokens: usize,
    /// Searches, or calls of other tools, executed so far.
    pub searches: usize,
}

impl<'a> RolloutPlan<'a> {
    /// Episodes with this engine as the only tool, in the format that `config` names, with seed and step 0.
    pub fn search(
        engine: &'a dyn SearchEngine,
        noise: Noise<'a>,
        codec: &'a Codec,
        config: RolloutConfig,
    ) -> RolloutPlan<'a> {
        let tool = SearchTool::new(engine, config.top_k).with_noise(noise);
        Self { tools: vec![Arc::new(tool)], codec, format: config.format.into(), config, seed: 0, step: 0 }
    }

    /// Runs every task to its end. Rollouts stand in the order of the tasks.
    ///
    /// Calls are answered by threads beside decoding: a sequence that searches leaves the batch, the others go on, and it
    /// comes back when its documents are there. A rollout depends on the weights, the seed and step, its task and the tools'
    /// answers, and on nothing else: neither the other tasks and their order, nor the time that an answer takes, nor
    /// [`search_batch`](RolloutConfig::search_batch), [`search_concurrency`](RolloutConfig::search_concurrency) or
    /// [`concurrency`](RolloutConfig::concurrency).
    /// A call that fails or panics, a turn without a valid tag, a full context are recorded in the rollout
    /// and never end the run. `progress` is called whenever the generator has finished turns.
    ///
    /// # Errors
    /// When the configuration is out of range, two tasks have one name or two tools one tag, or the generator fails.
    /// No sequence is left behind in the generator. No call is begun then; those under way are waited for.
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        tasks: Vec<Task>,
        progress: &mut dyn FnMut(RolloutProgress),
    ) -> Result<Vec<Rollout>, RolloutError> {
        Ok(self.run_timed(generator, tasks, progress)?.0)
    }

    /// As [`run`](Self::run), and says where the time went.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_timed(
        &self,
        generator: &mut dyn Generator,
        tasks: Vec<Task>,
        progress: &mut dyn FnMut(RolloutProgress),
    ) -> Result<(Vec<Rollout>, RolloutTimes), RolloutError> {
        let began = Instant::now();
        self.config.validate()?;
        refuse_duplicates(&tasks)?;
        let format = self.format_with_tools()?;
        let observations = Observations::new(self.codec, &format, self.config.max_observation_tokens)?;
        let replies = Replies::default();
        let desks: Vec<Desk<'_>> = self
            .tools
            .iter()
            .map(|tool| {
                let limit = match self.config.search_concurrency {
                    0 => tool.concurrency(),
                    limit => limit,
                };
                Desk::new(tool.as_ref(), limit, self.config.search_batch == 0, &tasks, &format, observations, &replies)
            })
            .collect();
        let (rollouts, times) = std::thread::scope(|scope| {
            let _closing = Closing(&desks);
            let mut run = Run {
                plan: self,
                format: &format,
                observations,
                desks: &desks,
                replies: &replies,
                scope,
                generator,
                tasks: &tasks,
                rollouts: tasks.iter().map(LiveRollout::new).collect(),
                admitted: 0,
                decoding: BTreeMap::new(),
                held: BTreeSet::new(),
                asked: 0,
                tally: RolloutProgress { total: tasks.len(), ..RolloutProgress::default() },
                times: RolloutTimes::default(),
            };
            let outcome = run.drive(progress);
            run.release_all();
            outcome.map(|()| (run.rollouts, run.times))
        })?;
        drop(desks);
        let times =
            RolloutTimes { total_s: began.elapsed().as_secs_f64(), searching_s: replies.busy().as_secs_f64(), ..times };
        Ok((rollouts.into_iter().zip(tasks).map(|(rollout, task)| rollout.into_rollout(task)).collect(), times))
    }

    /// The format with the tags of the tools that there are.
    fn format_with_tools(&self) -> Result<EpisodeFormat, RolloutError> {
        let tools: Vec<String> = self.tools.iter().map(|tool| tool.tag().to_owned()).collect();
        let EpisodeFormat { think, answer, information, .. } = &self.format;
        // The last two are keys of an `Action`.
        let mut taken: BTreeSet<&str> = [think.as_str(), answer, information, "answer", "invalid"].into();
        match tools.iter().find(|tag| tag.is_empty() || !taken.insert(tag)) {
            Some(tag) => Err(RolloutError::ToolTag { tag: tag.clone() }),
            None => Ok(EpisodeFormat { tools, ..self.format.clone() }),
        }
    }

    fn stream(&self, purpose: &'static str, task: &Task, turn: usize) -> Stream {
        let Task { question_index: question, sample, .. } = *task;
        Stream { seed: self.seed, purpose, step: self.step, question, sample, turn: turn as u64 }
    }
}

fn refuse_duplicates(tasks: &[Task]) -> Result<(), RolloutError> {
    let mut names = BTreeSet::new();
    for &Task { question_index, sample, .. } in tasks {
        if !names.insert((question_index, sample)) {
            return Err(RolloutError::DuplicateTask { question_index, sample });
        }
    }
    Ok(())
}

/// A run in progress. Rollouts are named by their index.
struct Run<'s, 'r: 's, 'e: 's> {
    plan: &'r RolloutPlan<'r>,
    format: &'r EpisodeFormat,
    observations: Observations<'r>,
    /// One for each tool.
    desks: &'s [Desk<'r>],
    replies: &'r Replies,
    scope: &'s Scope<'s, 'e>,
    generator: &'r mut dyn Generator,
    tasks: &'r [Task],
    rollouts: Vec<LiveRollout>,
    /// Rollouts before this one have been started.
    admitted: usize,
    decoding: BTreeMap<SequenceId, usize>,
    /// Rollouts whose call has not been given to its tool yet.
    held: BTreeSet<usize>,
    /// Rollouts whose call has, and is not answered.
    asked: usize,
    tally: RolloutProgress,
    times: RolloutTimes,
}

impl Run<'_, '_, '_> {
    fn drive(&mut self, progress: &mut dyn FnMut(RolloutProgress)) -> Result<(), RolloutError> {
        self.admit()?;
        progress(self.tally);
        loop {
            for reply in self.replies.take() {
                self.asked -= 1;
                self.answer(reply.index, reply.observation, Some(reply.record))?;
            }
            self.ask();
            if !self.decoding.is_empty() {
                let began = Instant::now();
                let finished = self.generator.poll_until(&self.replies.wake)?;
                self.times.decoding_s += began.elapsed().as_secs_f64();
                if finished.is_empty() {
                    if self.replies.wake.is_raised() {
                        continue;
                    }
                    return Err(RolloutError::Stalled(self.decoding.len()));
                }
                for turn in finished {
                    self.take(turn)?;
                }
                self.admit()?;
                self.ask();
                progress(self.tally);
            } else if self.asked > 0 {
                let began = Instant::now();
                self.replies.wake.wait();
                self.times.waiting_s += began.elapsed().as_secs_f64();
            } else {
                return Ok(());
            }
        }
    }

    /// Starts as many rollouts as may live.
    fn admit(&mut self) -> Result<(), RolloutError> {
        let limit = match self.plan.config.concurrency {
            0 => usize::MAX,
            limit => limit,
        };
        while self.admitted < self.tasks.len() && self.admitted - self.tally.finished < limit {
            let index = self.admitted;
            self.admitted += 1;
            let task = &self.tasks[index];
            let request =
                Request { prompt: &task.prompt, sampling: self.plan.config.sampling, turn: self.turn(task, 0) };
            match self.generator.start(request) {
                Ok(id) => {
                    self.rollouts[index].id = Some(id);
                    self.decoding.insert(id, index);
                }
                Err(GenerateError::PromptTooLong { .. }) => self.end(index, RolloutEnd::Context),
                Err(source) => {
                    let Task { question_index, sample, .. } = *task;
                    return Err(RolloutError::Task { question_index, sample, source });
                }
            }
        }
        Ok(())
    }

    /// Takes in a turn that ended.
    fn take(&mut self, turn: Finished) -> Result<(), RolloutError> {
        let index = self.decoding.remove(&turn.id).ok_or(RolloutError::UnknownSequence(turn.id.0))?;
        self.tally.tokens += turn.tokens.len();
        let weights = self.generator.weight_version();
        let text = self.text(&turn);
        let action = self.format.parse_action(&text);
        let calls = matches!(action, Action::Call { .. });
        match self.rollouts[index].take(turn, text, action, weights, self.plan.config.max_turns) {
            Some(end) => self.end(index, end),
            None if calls => _ = self.held.insert(index),
            None => self.answer(index, self.observations.corrective(), None)?,
        }
        Ok(())
    }

    /// The turn as text, without the token that ended it where that is an end-of-text token.
    fn text(&self, turn: &Finished) -> String {
        let codec = self.plan.codec;
        let mut ids: Vec<TokenId> = turn.tokens.iter().map(|token| token.id).collect();
        ids.pop_if(|last| codec.eos_ids().contains(last));
        codec.decode(&ids)
    }

    fn turn(&self, task: &Task, turn: usize) -> Turn {
        let config = &self.plan.config;
        Turn {
            max_new_tokens: config.max_new_tokens,
            seed: self.plan.stream("policy", task, turn).value(),
            stop: StopScanner::new(self.plan.codec, &self.format.stop_tags()).into_stop(),
            deadline: config.turn_timeout_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds)),
        }
    }

    fn end(&mut self, index: usize, end: RolloutEnd) {
        let rollout = &mut self.rollouts[index];
        rollout.end = end;
        if let Some(id) = rollout.id.take() {
            self.generator.release(id);
        }
        self.tally.finished += 1;
    }

    /// Gives the calls that are held to their tools, if there are enough of them.
    fn ask(&mut self) {
        if self.held.is_empty() || !(self.decoding.is_empty() || self.held.len() >= self.plan.config.search_batch) {
            return;
        }
        let mut jobs: Vec<Vec<Job>> = self.desks.iter().map(|_| Vec::new()).collect();
        for index in std::mem::take(&mut self.held) {
            let turns = &self.rollouts[index].turns;
            let Some(Action::Call { tool, input }) = turns.last().map(|turn| &turn.action) else { continue };
            let Some(desk) = self.desks.iter().position(|desk| desk.tool.tag() == tool) else { continue };
            let stream = self.plan.stream("", &self.tasks[index], turns.len() - 1);
            jobs[desk].push(Job { index, input: input.clone(), stream });
        }
        for (desk, jobs) in self.desks.iter().zip(jobs).filter(|(_, jobs)| !jobs.is_empty()) {
            self.asked += jobs.len();
            self.tally.searches += jobs.len();
            desk.submit(jobs, self.scope);
        }
    }

    /// Starts the next turn with what the last one is answered.
    fn answer(&mut self, index: usize, observation: Observation, call: Option<ToolRecord>) -> Result<(), RolloutError> {
        let LiveRollout { turns, id, .. } = &self.rollouts[index];
        let (Some(id), turn) = (*id, self.turn(&self.tasks[index], turns.len())) else { return Ok(()) };
        self.generator.extend(id, self.rollouts[index].answer(observation, call), turn)?;
        self.decoding.insert(id, index);
        Ok(())
    }

    fn release_all(&mut self) {
        for id in self.rollouts.iter_mut().filter_map(|rollout| rollout.id.take()) {
            self.generator.release(id);
        }
    }
}
