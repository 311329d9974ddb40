//! The event loop: turns that ended are parsed, searches answered, sequences extended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use zerosearch_generate::{Finished, GenerateError, Generator, Request, SequenceId, Stream, Turn};
use zerosearch_search::{Query, SearchEngine, SimulationContext};
use zerosearch_text::{Action, Codec, STOP_TAGS, StopScanner};
use zerosearch_trajectory::TokenId;

use crate::episode::Episode;
use crate::observation::{Observation, Observations};
use crate::{Noise, Rollout, RolloutConfig, RolloutEnd, RolloutError, Task};

/// Everything that a rollout is a function of, except the tasks and the weights.
#[derive(Clone, Copy)]
pub struct RolloutPlan<'a> {
    /// Answers the searches.
    pub engine: &'a dyn SearchEngine,
    /// The policy's tokenizer.
    pub codec: &'a Codec,
    /// The bounds of an episode.
    pub config: RolloutConfig,
    /// What a simulated engine is told.
    pub noise: Noise<'a>,
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
    /// Searches executed so far.
    pub searches: usize,
}

impl RolloutPlan<'_> {
    /// Runs every task to its end. Rollouts stand in the order of the tasks.
    ///
    /// A rollout depends on the weights, the seed and step, its task and the engine's answers,
    /// and on nothing else: neither the other tasks and their order, nor
    /// [`search_batch`](RolloutConfig::search_batch) or [`concurrency`](RolloutConfig::concurrency).
    /// A search that fails, a turn without a valid tag, a full context are recorded in the rollout
    /// and never end the run. `progress` is called whenever the generator has finished turns.
    ///
    /// # Errors
    /// When the configuration is out of range, two tasks have one name, or the generator fails.
    /// No sequence is left behind in the generator.
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        tasks: Vec<Task>,
        progress: &mut dyn FnMut(RolloutProgress),
    ) -> Result<Vec<Rollout>, RolloutError> {
        self.config.validate()?;
        refuse_duplicates(&tasks)?;
        let observations = Observations::new(self.codec, self.config.max_observation_tokens)?;
        let tally = RolloutProgress { total: tasks.len(), ..RolloutProgress::default() };
        let episodes = tasks.into_iter().map(Episode::new).collect();
        let mut run = Run {
            plan: self,
            observations,
            generator,
            episodes,
            admitted: 0,
            decoding: BTreeMap::new(),
            waiting: BTreeSet::new(),
            tally,
        };
        let outcome = run.drive(progress);
        run.release_all();
        outcome.map(|()| run.episodes.into_iter().map(Episode::into_rollout).collect())
    }

    fn stream(&self, purpose: &'static str, task: &Task, turn: usize) -> Stream {
        let Task { question_index: question, sample, .. } = *task;
        Stream { seed: self.seed, purpose, step: self.step, question, sample, turn: turn as u64 }
    }

    fn turn(&self, task: &Task, turn: usize) -> Turn {
        Turn {
            max_new_tokens: self.config.max_new_tokens,
            seed: self.stream("policy", task, turn).value(),
            stop: StopScanner::new(self.codec, &STOP_TAGS).into_stop(),
            deadline: self.config.turn_timeout_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds)),
        }
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

/// A run in progress. Episodes are named by their index, so that all order is the tasks' order.
struct Run<'r> {
    plan: &'r RolloutPlan<'r>,
    observations: Observations<'r>,
    generator: &'r mut dyn Generator,
    episodes: Vec<Episode>,
    /// Episodes before this one have been started.
    admitted: usize,
    decoding: BTreeMap<SequenceId, usize>,
    /// Episodes whose last turn has not been answered yet.
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

    /// Starts as many episodes as may live.
    fn admit(&mut self) -> Result<(), RolloutError> {
        let limit = match self.plan.config.concurrency {
            0 => usize::MAX,
            limit => limit,
        };
        while self.admitted < self.episodes.len() && self.decoding.len() + self.waiting.len() < limit {
            let index = self.admitted;
            self.admitted += 1;
            let task = &self.episodes[index].task;
            let request =
                Request { prompt: &task.prompt, sampling: self.plan.config.sampling, turn: self.plan.turn(task, 0) };
            match self.generator.start(request) {
                Ok(id) => {
                    self.episodes[index].id = Some(id);
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
        match self.episodes[index].take(turn, text, weights, self.plan.config.max_turns) {
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

    fn end(&mut self, index: usize, end: RolloutEnd) {
        let episode = &mut self.episodes[index];
        episode.end = end;
        if let Some(id) = episode.id.take() {
            self.generator.release(id);
        }
        self.tally.finished += 1;
    }

    /// Answers every waiting turn, all searches in one batch, and starts the next turns.
    fn answer(&mut self) -> Result<(), RolloutError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut answers = self.search(&waiting);
        for index in waiting {
            let observation = answers.remove(&index).unwrap_or_else(|| self.observations.corrective());
            let episode = &mut self.episodes[index];
            let turn = self.plan.turn(&episode.task, episode.turns.len());
            let Some(id) = episode.id else { continue };
            self.generator.extend(id, episode.answer(observation), turn)?;
            self.decoding.insert(id, index);
        }
        Ok(())
    }

    /// Executes the searches among the waiting turns. Every query carries the index of its own
    /// episode from here to the answer, so that no row can be given another row's question.
    fn search(&mut self, waiting: &BTreeSet<usize>) -> BTreeMap<usize, Observation> {
        let plan = self.plan;
        let mut rows = Vec::new();
        let mut queries = Vec::new();
        for &index in waiting {
            let Episode { task, turns, .. } = &self.episodes[index];
            let Some((turn, Action::Search(text))) =
                turns.len().checked_sub(1).zip(turns.last().map(|turn| &turn.action))
            else {
                continue;
            };
            let quality = plan.noise.draw(plan.stream("noise", task, turn));
            let context = quality.map(|quality| SimulationContext {
                question: &task.question,
                answers: &task.golden_answers,
                quality,
                seed: plan.stream("simulator", task, turn).value(),
            });
            rows.push((index, quality));
            queries.push(Query { text, top_k: plan.config.top_k, context });
        }
        if queries.is_empty() {
            return BTreeMap::new();
        }
        self.tally.searches += queries.len();
        let results = plan.engine.search_batch(&queries);
        let answered = results.len();
        let mut results = results.into_iter();
        let mut observations = BTreeMap::new();
        for ((index, quality), query) in rows.into_iter().zip(&queries) {
            // With a result missing or to spare nobody knows whose is whose.
            let found = match results.next() {
                Some(found) if answered == queries.len() => found.map_err(|error| error.to_string()),
                _ => Err(format!("the engine gave {answered} results for {} queries", queries.len())),
            };
            let mut observation = self.observations.of_search(found, plan.config.top_k);
            observation.query = Some(query.text.to_owned());
            observation.quality = quality;
            observations.insert(index, observation);
        }
        observations
    }

    fn release_all(&mut self) {
        for id in self.episodes.iter_mut().filter_map(|episode| episode.id.take()) {
            self.generator.release(id);
        }
    }
}
