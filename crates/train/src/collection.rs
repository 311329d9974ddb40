//! The rollouts of a step: questions, episodes against the engine, rewards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Instant;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use zerosearch_algorithms::RewardBatch;
use zerosearch_curriculum::{Curriculum, Progress};
use zerosearch_data::Question;
use zerosearch_generate::{Generator, Sampling, Stream, WeightVersion};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::LocalGenerator;
use zerosearch_metrics::Metrics;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, Task};

use crate::trainer::Parts;
use crate::{TrainConfig, TrainError};

/// Everything that a step's rollouts are a function of, except the weights.
pub(crate) struct Collection<'c> {
    pub(crate) config: &'c TrainConfig,
    pub(crate) parts: &'c Parts<'c>,
    pub(crate) curriculum: &'c dyn Curriculum,
    /// Whether each question is also answered greedily.
    pub(crate) greedy_baseline: bool,
    /// Whether groups with equal rewards are replaced by further questions.
    pub(crate) dynamic_sampling: bool,
    /// The step that learns from them.
    pub(crate) step: u64,
    /// How many questions were asked before.
    pub(crate) cursor: u64,
    pub(crate) success_rate: Option<f64>,
}

/// Rollouts of a step and what they earned.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Collected {
    pub(crate) rollouts: Vec<Rollout>,
    pub(crate) rewards: Vec<f32>,
    /// What the greedy rollout of each one's question earned; empty where the algorithm does not ask for it.
    pub(crate) baselines: Vec<f32>,
    /// Whether the update may learn from it; dynamic sampling leaves groups with equal rewards out.
    pub(crate) kept: Vec<bool>,
    /// How many questions have been asked in the run, these included.
    pub(crate) cursor: u64,
    /// How many times questions were asked to fill the step.
    pub(crate) gen_batches: usize,
    pub(crate) noise_probability: f64,
    /// Most bytes that the generator's caches held meanwhile, and tokens whose cache it gave up.
    pub(crate) cache_peak_bytes: u64,
    pub(crate) cache_evicted: u64,
    pub(crate) seconds: f64,
}

impl Collection<'_> {
    /// Asks the step's questions and, where groups are left out, further ones in their place, until all places are taken or
    /// `max_num_gen_batches` is reached.
    pub(crate) fn run(&self, generator: &mut LocalGenerator) -> Result<Collected, TrainError> {
        let began = Instant::now();
        generator.take_statistics();
        let progress = Progress { success_rate: self.success_rate, ..Progress::at(self.step, self.config.steps) };
        let noise = Noise::Curriculum { curriculum: self.curriculum, progress };
        let plan = RolloutPlan {
            seed: self.config.seed,
            step: self.step,
            ..RolloutPlan::search(self.parts.engine, noise, &self.parts.model.codec, self.config.rollout)
        };
        let wanted = self.config.questions_per_step as u64;
        let mut collected =
            Collected { noise_probability: self.curriculum.noise_probability(progress), ..Collected::default() };
        let (mut asked, mut missing) = (0, wanted);
        while missing > 0 && collected.gen_batches < self.config.max_num_gen_batches {
            self.ask(&plan, asked..asked + missing, generator, &mut collected)?;
            asked += missing;
            missing = if self.dynamic_sampling { wanted - collected.keep_informative()? } else { 0 };
        }
        // Of these rollouts alone: what a process did before must not show in a run that was resumed.
        let statistics = generator.take_statistics();
        (collected.cache_peak_bytes, collected.cache_evicted) = (statistics.peak_cache_bytes, statistics.evicted);
        collected.cursor = self.cursor + asked;
        collected.seconds = began.elapsed().as_secs_f64();
        Ok(collected)
    }

    /// Adds the rollouts of these places in the step's list of questions.
    fn ask(
        &self,
        plan: &RolloutPlan<'_>,
        slots: Range<u64>,
        generator: &mut dyn Generator,
        collected: &mut Collected,
    ) -> Result<(), TrainError> {
        let tasks = self.tasks(slots)?;
        let greedy_tasks: Vec<Task> =
            tasks.iter().filter(|task| self.greedy_baseline && task.sample == 0).cloned().collect();
        let rollouts = plan.run(generator, tasks, &mut |_| {})?;
        let greedy =
            RolloutPlan { config: RolloutConfig { sampling: Sampling::greedy(), ..plan.config }, ..plan.clone() };
        let greedy = greedy.run(generator, greedy_tasks, &mut |_| {})?;
        let greedy: BTreeMap<u64, f32> =
            greedy.iter().map(|rollout| (rollout.question_index, self.parts.score(rollout))).collect();
        collected.gen_batches += 1;
        collected.baselines.extend(rollouts.iter().filter_map(|rollout| greedy.get(&rollout.question_index)));
        collected.rewards.extend(rollouts.iter().map(|rollout| self.parts.score(rollout)));
        collected.kept.resize(collected.rewards.len(), true);
        collected.rollouts.extend(rollouts);
        Ok(())
    }

    /// The questions of these places, each once for every sample. Which they are follows from the seed and the questions asked
    /// before: epochs are permutations, and a step takes the next slice of them.
    fn tasks(&self, slots: Range<u64>) -> Result<Vec<Task>, TrainError> {
        let count = self.parts.questions.len() as u64;
        let mut tasks = Vec::new();
        let mut permutation = (u64::MAX, Vec::new());
        for slot in slots {
            let position = self.cursor + slot;
            let epoch = position / count;
            if permutation.0 != epoch {
                permutation = (epoch, shuffled(count as usize, self.config.seed, epoch));
            }
            let question = &self.parts.questions[permutation.1[(position % count) as usize]];
            // The slot is unique in the step even when an epoch's border puts a question into it twice.
            let task = self.parts.task(slot, question)?;
            let samples = 0..self.config.samples_per_question as u64;
            tasks.extend(samples.map(|sample| Task { sample, ..task.clone() }));
        }
        Ok(tasks)
    }
}

impl Collected {
    /// Rollouts that were recorded, with what `reward` pays for them.
    pub(crate) fn recorded(
        rollouts: Vec<Rollout>,
        reward: &dyn RewardFn,
        dynamic_sampling: bool,
    ) -> Result<Self, TrainError> {
        let rewards: Vec<f32> = rollouts.iter().map(|rollout| score(reward, rollout)).collect();
        let mut collected = Self { kept: vec![true; rewards.len()], rollouts, rewards, ..Self::default() };
        if dynamic_sampling {
            collected.keep_informative()?;
        }
        Ok(collected)
    }

    /// Leaves out the groups whose rewards are all equal; returns how many are left.
    fn keep_informative(&mut self) -> Result<u64, TrainError> {
        let lengths: Vec<usize> = self.rollouts.iter().map(|r| r.trajectory.mask().trained()).collect();
        let groups: Vec<usize> = self.rollouts.iter().map(|r| r.question_index as usize).collect();
        self.kept = RewardBatch::new(&self.rewards, &groups, &lengths)?.informative();
        Ok(self.kept_groups().len() as u64)
    }

    fn kept_groups(&self) -> BTreeSet<u64> {
        let kept = self.rollouts.iter().zip(&self.kept).filter(|(_, kept)| **kept);
        kept.map(|(rollout, _)| rollout.question_index).collect()
    }

    /// What became of groups with equal rewards. A place is given up when no question was found for it.
    pub(crate) fn sampling_metrics(&self, questions_per_step: u64, metrics: &mut Metrics) {
        let kept = self.kept_groups();
        let asked: BTreeSet<u64> = self.rollouts.iter().map(|rollout| rollout.question_index).collect();
        let refilled = kept.iter().filter(|slot| **slot >= questions_per_step).count();
        metrics.insert("rollout/filtered_groups", (asked.len() - kept.len()) as f64);
        metrics.insert("rollout/refilled_groups", refilled as f64);
        metrics.insert("rollout/given_up_groups", questions_per_step.saturating_sub(kept.len() as u64) as f64);
        metrics.insert("rollout/gen_batches", self.gen_batches as f64);
    }

    /// The mean of all rewards, those of groups that are left out included.
    pub(crate) fn mean_reward(&self) -> f64 {
        self.rewards.iter().map(|reward| f64::from(*reward)).sum::<f64>() / self.rewards.len() as f64
    }

    /// How many updates older than `present` the weights were that sampled a token, on average; 0 without tokens.
    pub(crate) fn staleness(&self, present: WeightVersion) -> f64 {
        let turns = self.rollouts.iter().flat_map(|rollout| rollout.trajectory.versions());
        let updates: f64 = turns.map(|(version, tokens)| (present.0 - version.0) as f64 * tokens as f64).sum();
        updates / self.sampled_tokens().max(1) as f64
    }

    /// Tokens that the policy sampled, without those of greedy rollouts.
    pub(crate) fn sampled_tokens(&self) -> usize {
        self.rollouts.iter().map(|rollout| rollout.trajectory.mask().trained()).sum()
    }
}

impl Parts<'_> {
    /// The first sample of a question.
    pub(crate) fn task(&self, question_index: u64, question: &Question) -> Result<Task, TrainError> {
        let prompt = self.model.codec.encode(&self.prompt.render(&question.question)?);
        Ok(Task::new(question_index, &question.question, &question.golden_answers, prompt))
    }

    /// What a rollout earns.
    pub(crate) fn score(&self, rollout: &Rollout) -> f32 {
        score(self.reward, rollout)
    }
}

pub(crate) fn score(reward: &dyn RewardFn, rollout: &Rollout) -> f32 {
    let observations: Vec<String> = rollout.observations().map(str::to_string).collect();
    reward.reward(&Episode {
        question: &rollout.question,
        golden_answers: &rollout.golden_answers,
        policy_turns: &rollout.policy_turns(),
        observations: &observations,
        // Every format that a run can be configured with has the same tags.
        format: &EpisodeFormat::default(),
    })
}

fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Stream { seed, purpose: "questions", step: epoch, ..Stream::default() }.rng());
    order
}
