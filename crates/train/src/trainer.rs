//! One step: rollouts against the engine, rewards, an update, the generator's new weights.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Device;
use rand::seq::SliceRandom;
use zerosearch_algorithms::Algorithm;
use zerosearch_curriculum::{Curriculum, Progress, SuccessRate};
use zerosearch_data::Question;
use zerosearch_generate::{Sampling, Stream, WeightVersion};
use zerosearch_lm::{AdamW, Decoder, LanguageModel, LocalGenerator};
use zerosearch_metrics::Metrics;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutStats, Rollouts, Task};
use zerosearch_search::SearchEngine;
use zerosearch_text::PromptTemplate;

use crate::update::Rewarded;
use crate::validation::{Best, Validation};
use crate::{TrainConfig, TrainError, critic};

/// What a trainer is made of besides its configuration.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The policy as it starts, which is also the reference of the KL term.
    pub model: &'a LanguageModel,
    /// How a question becomes a prompt.
    pub prompt: &'a PromptTemplate,
    /// What is trained on.
    pub questions: &'a [Question],
    /// What answers the searches: a simulated engine, if the run is to be free of real ones.
    pub engine: &'a dyn SearchEngine,
    /// What an episode earns.
    pub reward: &'a dyn RewardFn,
    /// Where the updates are computed.
    pub device: &'a Device,
}

/// The state of a run between two steps.
pub struct Trainer<'a> {
    pub(crate) config: TrainConfig,
    pub(crate) parts: Parts<'a>,
    pub(crate) policy: Learner,
    pub(crate) critic: Option<Learner>,
    pub(crate) algorithm: Box<dyn Algorithm>,
    pub(crate) step: u64,
    /// What an adaptive curriculum goes by.
    pub(crate) success: SuccessRate,
    pub(crate) validation: Option<Validation<'a>>,
    pub(crate) best: Option<Best>,
    /// The coefficient of the KL penalty in the reward.
    pub(crate) kl_beta: f64,
    /// Updates skipped in a row.
    pub(crate) skipped: u64,
    pub(crate) generator: LocalGenerator,
    curriculum: Box<dyn Curriculum>,
    pub(crate) reference: Decoder,
}

/// 1 for a step whose update was skipped because a loss or gradient was not finite.
pub(crate) const SKIPPED: &str = "actor/skipped_update";

pub(crate) struct Learner {
    pub(crate) decoder: Decoder,
    pub(crate) optimizer: AdamW,
}

/// What a step did.
pub struct StepReport {
    /// Its number, counted from 1.
    pub step: u64,
    /// Every figure.
    pub metrics: Metrics,
    /// The rollouts that it learnt from.
    pub rollouts: Vec<Rollout>,
    /// What each of them earned.
    pub rewards: Vec<f32>,
    /// The advantages of each one's trained tokens; none for those that the update left out.
    pub advantages: Vec<Vec<f32>>,
}

impl<'a> Trainer<'a> {
    /// A run that has not begun.
    ///
    /// # Errors
    /// When the configuration is out of range or contradicts itself, or there is nothing to train on.
    pub fn new(config: TrainConfig, parts: Parts<'a>) -> Result<Self, TrainError> {
        let algorithm = config.algorithm.clone().build()?;
        Self::with_algorithm(config, parts, algorithm)
    }

    /// As [`new`](Self::new) with an algorithm of your own; `config.algorithm` is not looked at.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_algorithm(
        config: TrainConfig,
        parts: Parts<'a>,
        algorithm: Box<dyn Algorithm>,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        algorithm.validate()?;
        let curriculum = config.curriculum.build()?;
        if parts.questions.is_empty() {
            return Err(TrainError::NoQuestions);
        }
        if config.samples_per_question < algorithm.min_group_size() {
            return Err(TrainError::GroupSize {
                algorithm: algorithm.name(),
                needed: algorithm.min_group_size(),
                found: config.samples_per_question,
            });
        }
        let model = parts.model;
        let learner = |decoder| Learner { decoder, optimizer: AdamW::new(config.optimizer) };
        let critic = algorithm
            .value_loss()
            .map(|_| learner(critic::trainable(model, &critic::initial_weights(model), parts.device)));
        let (policy, reference) = match &config.lora {
            Some(lora) => {
                let seed = Stream { seed: config.seed, purpose: "adapters", ..Stream::default() }.value();
                let adapters = lora.initial(&model.config, seed);
                let policy = Decoder::with_lora(&model.config, &model.weights, lora, &adapters, parts.device);
                let reference = policy.without_lora();
                (policy, reference)
            }
            None => (
                Decoder::trainable(&model.config, &model.weights, parts.device),
                Decoder::frozen(&model.config, &model.weights, parts.device),
            ),
        };
        Ok(Self {
            policy: learner(policy),
            critic,
            algorithm,
            step: 0,
            success: SuccessRate::new(0.9)?,
            validation: None,
            best: None,
            kl_beta: config.kl_reward.coefficient,
            skipped: 0,
            curriculum,
            reference,
            generator: LocalGenerator::new(&model.config, &model.weights, model.codec.eos_ids()),
            config,
            parts,
        })
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The policy as trained so far.
    pub fn model(&self) -> LanguageModel {
        self.parts.model.with_weights(self.policy.decoder.to_host())
    }

    /// One step.
    ///
    /// # Errors
    /// When the generator fails, or the loss or its gradient is not finite: that update is not applied, and none follows.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let mut metrics = Metrics::new();
        let began = Instant::now();
        let noise = self.curriculum.noise_probability(self.progress());
        metrics.insert("curriculum/noise_probability", noise);

        let tasks = self.tasks()?;
        let groups: Vec<usize> = tasks.iter().map(|task| task.question_index as usize).collect();
        let plan = Rollouts {
            engine: self.parts.engine,
            codec: &self.parts.model.codec,
            config: self.config.rollout,
            noise: Noise::Curriculum { curriculum: self.curriculum.as_ref(), progress: self.progress() },
            seed: self.config.seed,
            step: self.step,
        };
        let greedy_tasks: Vec<Task> =
            tasks.iter().filter(|task| self.algorithm.greedy_baseline() && task.sample == 0).cloned().collect();
        let rollouts = plan.run(&mut self.generator, tasks, &mut |_| {})?;
        let sampling = Sampling::greedy();
        let greedy = Rollouts { config: RolloutConfig { sampling, ..self.config.rollout }, ..plan };
        let greedy = greedy.run(&mut self.generator, greedy_tasks, &mut |_| {})?;
        let greedy: BTreeMap<usize, f32> =
            greedy.iter().map(|rollout| (rollout.question_index as usize, self.reward(rollout))).collect();
        let baselines: Vec<f32> = groups.iter().filter_map(|group| greedy.get(group)).copied().collect();
        let rollout_seconds = began.elapsed().as_secs_f64();

        let rewards: Vec<f32> = rollouts.iter().map(|rollout| self.reward(rollout)).collect();
        let mean = rewards.iter().map(|reward| f64::from(*reward)).sum::<f64>() / rewards.len() as f64;
        self.success.observe(mean);
        let rewarded = Rewarded { rollouts: rollouts.iter().collect(), rewards: rewards.clone(), groups, baselines };
        let advantages = match self.learn(rewarded, &mut metrics) {
            Err(TrainError::NotFinite { .. }) if self.skipped < self.config.skipped_updates => {
                self.skipped += 1;
                vec![Vec::new(); rollouts.len()]
            }
            learnt => {
                self.skipped = 0;
                learnt?
            }
        };
        metrics.insert(SKIPPED, f64::from(u8::from(self.skipped > 0)));
        let host = self.policy.decoder.to_host();
        self.step += 1;
        self.generator.refit(&host, WeightVersion(self.step));

        self.validate_if_due(&mut metrics)?;
        let stats = RolloutStats::of(&rollouts);
        stats.metrics().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        metrics.summary("critic/score", &rewards);
        let sampled: usize = rollouts.iter().map(|rollout| rollout.trajectory.mask().trained()).sum();
        let step_seconds = began.elapsed().as_secs_f64();
        metrics.insert("rollout/tokens_per_s", sampled as f64 / rollout_seconds);
        metrics.insert("timing_s/rollout", rollout_seconds);
        metrics.insert("timing_s/update", step_seconds - rollout_seconds);
        metrics.insert("timing_s/step", step_seconds);
        Ok(StepReport { step: self.step, metrics, rollouts, rewards, advantages })
    }

    fn progress(&self) -> Progress {
        Progress { success_rate: self.success.value(), ..Progress::at(self.step, self.config.steps) }
    }

    /// The step's questions, each once for every sample. Which they are follows from seed and step
    /// alone: epochs are permutations, and a step takes the next slice of them.
    fn tasks(&self) -> Result<Vec<Task>, TrainError> {
        let (count, per_step) = (self.parts.questions.len() as u64, self.config.questions_per_step as u64);
        let mut tasks = Vec::new();
        let mut permutation = (u64::MAX, Vec::new());
        for slot in 0..per_step {
            let position = self.step * per_step + slot;
            let epoch = position / count;
            if permutation.0 != epoch {
                permutation = (epoch, shuffled(count as usize, self.config.seed, epoch));
            }
            let question = &self.parts.questions[permutation.1[(position % count) as usize]];
            // The slot is unique in the step even when an epoch's border puts a question into it twice.
            let task = self.task(slot, question)?;
            let samples = 0..self.config.samples_per_question as u64;
            tasks.extend(samples.map(|sample| Task { sample, ..task.clone() }));
        }
        Ok(tasks)
    }

    /// The first sample of a question.
    pub(crate) fn task(&self, question_index: u64, question: &Question) -> Result<Task, TrainError> {
        Ok(Task {
            question_index,
            sample: 0,
            question: question.question.clone(),
            golden_answers: question.golden_answers.clone(),
            prompt: self.parts.model.codec.encode(&self.parts.prompt.render(&question.question)?),
        })
    }

    fn reward(&self, rollout: &Rollout) -> f32 {
        let observations: Vec<String> = rollout.observations().map(str::to_string).collect();
        self.parts.reward.reward(&Episode {
            question: &rollout.question,
            golden_answers: &rollout.golden_answers,
            policy_turns: &rollout.policy_turns(),
            observations: &observations,
        })
    }

    /// Puts a saved policy in place, for the trainer and for the generator.
    pub(crate) fn set_policy(&mut self, decoder: Decoder, optimizer: AdamW) {
        self.generator.refit(&decoder.to_host(), WeightVersion(self.step));
        self.policy = Learner { decoder, optimizer };
    }
}

fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Stream { seed, purpose: "questions", step: epoch, ..Stream::default() }.rng());
    order
}
