//! Rollouts for the steps of a run: questions, episodes against the engine, rewards.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use zerosearch_curriculum::{Curriculum, Progress, SuccessRate};
use zerosearch_data::Question;
use zerosearch_generate::{Epochs, Ledger, Role, Sampling, Stream, Usage, WeightVersion};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{Decoder, Refit, WeightCopies};
use zerosearch_reward::RewardFn;
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, RolloutTimes, Task, Tool};
use zerosearch_search::SearchEngine;
use zerosearch_text::{Codec, PromptTemplate};

use crate::collection::Collection;
use crate::experience::score;
use crate::{Experience, TrainConfig, TrainError};

/// A change of the rollouts of some questions, made once they have their rewards.
pub(crate) type BeforeUpdate = Box<dyn FnMut(&mut [Experience]) + Send>;

/// Asks questions and collects the answers. It shares nothing with the [updater](crate::updater::Updater) that changes, so
/// that the rollouts of a later step can be collected beside an update.
pub(crate) struct Collector {
    pub(crate) config: Arc<TrainConfig>,
    pub(crate) codec: Codec,
    pub(crate) prompt: PromptTemplate,
    pub(crate) questions: Arc<[Question]>,
    pub(crate) engine: Arc<dyn SearchEngine>,
    /// The run's ledger.
    pub(crate) ledger: Ledger,
    /// Further tools beside the engine.
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    /// The words of an episode.
    pub(crate) format: EpisodeFormat,
    pub(crate) reward: Arc<dyn RewardFn>,
    /// The caller's changes of rewarded rollouts.
    pub(crate) before_update: Vec<BeforeUpdate>,
    pub(crate) curriculum: Box<dyn Curriculum>,
    /// Whether each question is also answered greedily.
    pub(crate) greedy_baseline: bool,
    /// Whether groups with equal rewards are replaced by further questions.
    pub(crate) dynamic_sampling: bool,
    pub(crate) generator: Box<dyn Refit>,
    /// Whether the generator has the policy's present weights.
    pub(crate) is_current: bool,
    /// Whether the optimizer writes the generator's weights.
    pub(crate) has_lent: bool,
    /// Questions asked so far.
    pub(crate) cursor: u64,
    /// Collections of the steps to come, in their order: `staleness` of them, fewer near the end.
    pub(crate) ahead: VecDeque<Collection>,
    /// The running success rate, read by adaptive curricula.
    pub(crate) success: SuccessRate,
}

impl Collector {
    /// Asks the questions of a step and, where groups are left out, further ones in their place, until all places are taken or
    /// `max_num_gen_batches` is reached. The collection goes to the end of [`ahead`](Self::ahead).
    pub(crate) fn collect(&mut self, step: u64) -> Result<(), TrainError> {
        let began = Instant::now();
        self.generator.take_statistics();
        let counted = self.counters();
        let before = self.ledger.usages();
        let working = self.ledger.account(Role::Policy).begin();
        let progress = Progress { success_rate: self.success.value(), ..Progress::at(step, self.config.steps) };
        let wanted = self.config.questions_per_step as u64;
        let mut collection =
            Collection { noise_probability: self.curriculum.noise_probability(progress), ..Collection::default() };
        let (mut asked, mut missing) = (0, wanted);
        while missing > 0 && collection.gen_batches < self.config.max_num_gen_batches {
            let experiences = self.ask(step, progress, asked..asked + missing, &mut collection.times)?;
            collection.experiences.extend(experiences);
            collection.gen_batches += 1;
            asked += missing;
            missing = if self.dynamic_sampling { wanted - collection.keep_informative()? } else { 0 };
        }
        // Of these rollouts alone: the figures of a resumed run must not show an earlier process.
        let statistics = self.generator.take_statistics();
        (collection.cache_peak_bytes, collection.cache_evicted) = (statistics.peak_cache_bytes, statistics.evicted);
        let grown = self.counters().into_iter().map(|(name, now)| {
            let before = counted.get(&name).copied().unwrap_or_default();
            (name, now - before)
        });
        collection.counters = grown.collect();
        collection.seconds = began.elapsed().as_secs_f64();
        drop(working);
        let used = |(role, usage): (Role, Usage)| (role, usage.since(before.get(&role).copied().unwrap_or_default()));
        collection.usage = self.ledger.usages().into_iter().map(used).collect();
        self.cursor += asked;
        self.success.observe(collection.mean_reward());
        self.ahead.push_back(collection);
        Ok(())
    }

    /// The counters of generator and engine, by whose they are.
    fn counters(&self) -> BTreeMap<String, f64> {
        let policy = self.generator.counters().into_iter().map(|(name, count)| (format!("policy/{name}"), count));
        let engine = self.engine.counters().into_iter().map(|(name, count)| (format!("engine/{name}"), count));
        policy.chain(engine).collect()
    }

    /// The rollouts of these places in the step's list of questions.
    fn ask(
        &mut self,
        step: u64,
        progress: Progress,
        slots: Range<u64>,
        times: &mut RolloutTimes,
    ) -> Result<Vec<Experience>, TrainError> {
        let tasks = self.tasks(slots)?;
        let greedy_tasks: Vec<Task> =
            tasks.iter().filter(|task| self.greedy_baseline && task.sample == 0).cloned().collect();
        let noise = Noise::Curriculum { curriculum: self.curriculum.as_ref(), progress };
        let search = RolloutPlan::search(self.engine.as_ref(), noise, &self.codec, self.config.rollout);
        let search = RolloutPlan { seed: self.config.seed, step, ..search };
        let mut plan = with_tools(search, &self.tools, &self.format);
        let (rollouts, sampling_times) = plan.run_timed(&mut *self.generator, tasks, &mut |_| {})?;
        plan.config.sampling = Sampling::greedy();
        let (greedy, greedy_times) = plan.run_timed(&mut *self.generator, greedy_tasks, &mut |_| {})?;
        *times += sampling_times;
        *times += greedy_times;
        let account = self.ledger.account(Role::Policy);
        rollouts.iter().chain(&greedy).for_each(|rollout| account.add(policy_usage(rollout)));
        let (reward, format) = (self.reward.as_ref(), &self.format);
        let baselines: BTreeMap<u64, f32> =
            greedy.iter().map(|rollout| (rollout.question_index, score(rollout, reward, format))).collect();
        let experience = |rollout: Rollout| {
            let baseline = baselines.get(&rollout.question_index).copied();
            Experience { baseline, ..Experience::new(rollout, reward, format) }
        };
        let mut experiences: Vec<Experience> = rollouts.into_iter().map(experience).collect();
        self.before_update.iter_mut().for_each(|change| change(&mut experiences));
        Ok(experiences)
    }

    /// Greedy rollouts of other questions than those of training, once each.
    pub(crate) fn answer(
        &mut self,
        questions: &[Question],
        engine: &dyn SearchEngine,
        noise: Noise<'_>,
    ) -> Result<Vec<Rollout>, TrainError> {
        let tasks = (0..).zip(questions).map(|(index, question)| self.task(index, question));
        let tasks = tasks.collect::<Result<_, _>>()?;
        let config = RolloutConfig { sampling: Sampling::greedy(), ..self.config.rollout };
        let search = RolloutPlan::search(engine, noise, &self.codec, config);
        let search = RolloutPlan { seed: self.config.seed, ..search };
        let plan = with_tools(search, &self.tools, &self.format);
        Ok(plan.run(&mut *self.generator, tasks, &mut |_| {})?)
    }

    /// The questions of these places, each once for every sample. Which they are follows from the seed and the questions asked
    /// before: epochs are permutations, and a step takes the next slice of them.
    fn tasks(&self, slots: Range<u64>) -> Result<Vec<Task>, TrainError> {
        let stream = Stream { seed: self.config.seed, purpose: "questions", ..Stream::default() };
        let mut epochs = Epochs::new(self.questions.len(), stream);
        let mut tasks = Vec::new();
        for slot in slots {
            let Some(question) = epochs.index(self.cursor + slot).and_then(|index| self.questions.get(index)) else {
                return Err(TrainError::NoQuestions);
            };
            // The slot is unique in the step even when an epoch's border puts a question into it twice.
            let task = self.task(slot, question)?;
            let samples = 0..self.config.samples_per_question as u64;
            tasks.extend(samples.map(|sample| Task { sample, ..task.clone() }));
        }
        Ok(tasks)
    }

    /// The first sample of a question.
    fn task(&self, question_index: u64, question: &Question) -> Result<Task, TrainError> {
        let prompt = self.codec.encode(&self.prompt.render(&question.question)?);
        Ok(Task::new(question_index, &question.question, &question.golden_answers, prompt))
    }

    /// Has the generator give its memory back for an update.
    pub(crate) fn sleep(&mut self) -> Result<(), TrainError> {
        self.is_current = false;
        Ok(self.generator.sleep()?)
    }

    /// The generator's copies of the policy's weights, for the optimizer to write; the next [refit](Self::refit) then only says so.
    pub(crate) fn lend_copies(&mut self, policy: &Decoder) -> Option<WeightCopies> {
        let copies = self.generator.lend_copies(policy);
        self.has_lent = copies.is_some();
        copies
    }

    /// Hands the generator the policy's weights, unless it has them.
    pub(crate) fn refit(&mut self, policy: &Decoder, version: WeightVersion) -> Result<(), TrainError> {
        if self.is_current {
            return Ok(());
        }
        if std::mem::take(&mut self.has_lent) {
            self.generator.take_written(version);
        } else {
            self.generator.wake()?;
            self.generator.refit(policy, version)?;
        }
        self.is_current = true;
        Ok(())
    }
}

/// A plan of episodes that search, with further tools and in the words of `format`. A function of the parts, so that the
/// generator is free beside it.
fn with_tools<'p>(mut search: RolloutPlan<'p>, tools: &[Arc<dyn Tool>], format: &EpisodeFormat) -> RolloutPlan<'p> {
    search.tools.extend(tools.iter().map(|tool| tool.clone() as Arc<dyn Tool>));
    RolloutPlan { format: format.clone(), ..search }
}

/// The policy's part in a rollout: the tokens that it read, once each, and those that it sampled.
fn policy_usage(rollout: &Rollout) -> Usage {
    let sampled = rollout.trajectory.mask().trained();
    Usage {
        calls: rollout.turns.len() as u64,
        tokens_in: (rollout.trajectory.len() - sampled) as u64,
        tokens_out: sampled as u64,
        ..Usage::default()
    }
}
