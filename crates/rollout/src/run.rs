//! The event loop: turns that ended are parsed, calls answered, sequences extended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerosearch_generate::{Finished, GenerateError, Generator, Request, SequenceId, Stream, Turn};
use zerosearch_grammar::{Action, EpisodeFormat};
use zerosearch_search::SearchEngine;
use zerosearch_text::{Codec, StopScanner};
use zerosearch_trajectory::TokenId;

use crate::live::LiveRollout;
use crate::{
    Noise, Observation, Observations, Rollout, RolloutConfig, RolloutEnd, RolloutError, SearchTool, Task, Tool,
    ToolCall, ToolOutput, ToolRecord,
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
    /// A rollout depends on the weights, the seed and step, its task and the tools' answers,
    /// and on nothing else: neither the other tasks and their order, nor
    /// [`search_batch`](RolloutConfig::search_batch) or [`concurrency`](RolloutConfig::concurrency).
    /// A call that fails, a turn without a valid tag, a full context are recorded in the rollout
    /// and never end the run. `progress` is called whenever the generator has finished turns.
    ///
    /// # Errors
    /// When the configuration is out of range, two tasks have one name or two tools one tag, or the generator fails.
    /// No sequence is left behind in the generator.
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        tasks: Vec<Task>,
        progress: &mut dyn FnMut(RolloutProgress),
    ) -> Result<Vec<Rollout>, RolloutError> {
        self.config.validate()?;
        refuse_duplicates(&tasks)?;
        let format = self.format_with_tools()?;
        let observations = Observations::new(self.codec, &format, self.config.max_observation_tokens)?;
        let tally = RolloutProgress { total: tasks.len(), ..RolloutProgress::default() };
        let mut run = Run {
            plan: self,
            format: &format,
            observations,
            generator,
            rollouts: tasks.into_iter().map(LiveRollout::new).collect(),
            admitted: 0,
            decoding: BTreeMap::new(),
            waiting: BTreeSet::new(),
            tally,
        };
        let outcome = run.drive(progress);
        run.release_all();
        outcome.map(|()| run.rollouts.into_iter().map(LiveRollout::into_rollout).collect())
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

/// A run in progress. Rollouts are named by their index, so that all order is the tasks' order.
struct Run<'r> {
    plan: &'r RolloutPlan<'r>,
    format: &'r EpisodeFormat,
    observations: Observations<'r>,
    generator: &'r mut dyn Generator,
    rollouts: Vec<LiveRollout>,
    /// Rollouts before this one have been started.
    admitted: usize,
    decoding: BTreeMap<SequenceId, usize>,
    /// Rollouts whose last turn has not been answered yet.
    waiting: BTreeSet<usize>,
    tally: RolloutProgress,
}

impl Run<'_> {
    fn drive(&mut self, progress: &mut dyn FnMut(RolloutProgress)) -> Result<(), RolloutError> {
        self.admit()?;
        progress(self.tally);
        while !self.decoding.is_empty() {
            let finished = self.generator.poll()?;
            if finished.is_empty() {
                return Err(RolloutError::Stalled(self.decoding.len()));
            }
            for turn in finished {
                self.take(turn)?;
            }
            self.admit()?;
            let enough = self.plan.config.search_batch;
            if self.decoding.is_empty() || (enough > 0 && self.waiting.len() >= enough) {
                self.answer()?;
            }
            progress(self.tally);
        }
        Ok(())
    }

    /// Starts as many rollouts as may live.
    fn admit(&mut self) -> Result<(), RolloutError> {
        let limit = match self.plan.config.concurrency {
            0 => usize::MAX,
            limit => limit,
        };
        while self.admitted < self.rollouts.len() && self.decoding.len() + self.waiting.len() < limit {
            let index = self.admitted;
            self.admitted += 1;
            let task = &self.rollouts[index].task;
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
        match self.rollouts[index].take(turn, text, action, weights, self.plan.config.max_turns) {
            Some(end) => self.end(index, end),
            None => {
                self.waiting.insert(index);
            }
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

    /// Answers every waiting turn, all calls of a tool in one batch, and starts the next turns.
    fn answer(&mut self) -> Result<(), RolloutError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut answers = self.call(&waiting);
        for index in waiting {
            let (observation, call) = match answers.remove(&index) {
                Some((observation, call)) => (observation, Some(call)),
                None => (self.observations.corrective(), None),
            };
            let LiveRollout { task, turns, id, .. } = &self.rollouts[index];
            let (Some(id), turn) = (*id, self.turn(task, turns.len())) else { continue };
            self.generator.extend(id, self.rollouts[index].answer(observation, call), turn)?;
            self.decoding.insert(id, index);
        }
        Ok(())
    }

    /// Executes the calls among the waiting turns. Every call carries the index of its own rollout
    /// from here to the answer, so that no row can be given another row's question.
    fn call(&mut self, waiting: &BTreeSet<usize>) -> BTreeMap<usize, (Observation, ToolRecord)> {
        let plan = self.plan;
        let mut answers = BTreeMap::new();
        for tool in &plan.tools {
            let (mut rows, mut calls) = (Vec::new(), Vec::new());
            for &index in waiting {
                let LiveRollout { task, turns, .. } = &self.rollouts[index];
                let Some(Action::Call { tool: tag, input }) = turns.last().map(|turn| &turn.action) else { continue };
                if tag == tool.tag() {
                    rows.push(index);
                    calls.push(ToolCall {
                        input,
                        task,
                        stream: plan.stream("", task, turns.len() - 1),
                        format: self.format,
                    });
                }
            }
            if calls.is_empty() {
                continue;
            }
            self.tally.searches += calls.len();
            let outputs = rows.into_iter().zip(&calls).zip(outputs(tool.as_ref(), &calls));
            answers.extend(outputs.map(|((index, call), output)| {
                (index, (self.observations.of(&output), output.into_record(call.input)))
            }));
        }
        answers
    }

    fn release_all(&mut self) {
        for id in self.rollouts.iter_mut().filter_map(|rollout| rollout.id.take()) {
            self.generator.release(id);
        }
    }
}

/// One output for each call.
fn outputs(tool: &dyn Tool, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
    let outputs = tool.call_batch(calls);
    if outputs.len() == calls.len() {
        return outputs;
    }
    // If the counts differ, outputs cannot be matched to calls.
    let failure = format!("the tool {} gave {} outputs for {} calls", tool.tag(), outputs.len(), calls.len());
    vec![ToolOutput::failure(failure); calls.len()]
}
