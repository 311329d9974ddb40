//! One step: rollouts against the engine, rewards, advantages, an update.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use rand::seq::SliceRandom;
use zerosearch_algorithms::{Algorithm, KlReward, LossInputs, LossMetrics, RewardBatch, ValueInputs};
use zerosearch_curriculum::{Curriculum, Progress, SuccessRate};
use zerosearch_data::Question;
use zerosearch_generate::{Sampling, Stream, WeightVersion};
use zerosearch_lm::{AdamW, Decoder, Gradients, LanguageModel, LocalGenerator};
use zerosearch_metrics::Metrics;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutStats, Rollouts, Task};
use zerosearch_search::SearchEngine;
use zerosearch_text::PromptTemplate;

use crate::batch::TrainBatch;
use crate::config::warmed_up;
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
    reference: Decoder,
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

/// Rollouts with what they earned and the questions they belong to.
struct Rewarded<'a> {
    rollouts: Vec<&'a Rollout>,
    rewards: Vec<f32>,
    groups: Vec<usize>,
    /// What the greedy rollout of each one's question earned; empty where the algorithm does not ask for it.
    baselines: Vec<f32>,
}

impl Rewarded<'_> {
    fn batch<'b>(&'b self, lengths: &'b [usize]) -> Result<RewardBatch<'b>, TrainError> {
        let batch = RewardBatch::new(&self.rewards, &self.groups, lengths)?;
        Ok(if self.baselines.is_empty() { batch } else { batch.with_baselines(&self.baselines)? })
    }

    fn keep(&mut self, kept: &[bool]) {
        fn only<T>(items: &mut Vec<T>, kept: &[bool]) {
            let mut kept = kept.iter();
            items.retain(|_| kept.next().copied().unwrap_or(false));
        }
        only(&mut self.rollouts, kept);
        only(&mut self.rewards, kept);
        only(&mut self.groups, kept);
        only(&mut self.baselines, kept);
    }
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
    /// When the generator fails, or the loss or its gradient is not finite; the weights are then unchanged.
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

    /// Updates from the whole batch or, where the algorithm asks for dynamic sampling, from the groups that say something.
    /// They are filtered and counted, not replaced by further questions. Returns each rollout's advantages.
    fn learn(&mut self, mut rewarded: Rewarded<'_>, metrics: &mut Metrics) -> Result<Vec<Vec<f32>>, TrainError> {
        let lengths: Vec<usize> = rewarded.rollouts.iter().map(|r| r.trajectory.mask().trained()).collect();
        let mut kept = vec![true; lengths.len()];
        if self.algorithm.dynamic_sampling() {
            kept = rewarded.batch(&lengths)?.informative();
            metrics.insert("rollout/filtered", kept.iter().filter(|kept| !**kept).count() as f64);
            rewarded.keep(&kept);
        }
        if rewarded.rollouts.is_empty() {
            return Ok(vec![Vec::new(); lengths.len()]);
        }
        let mut advantages = self.update(&rewarded, metrics)?.into_iter();
        let of = |(length, kept): (&usize, bool)| advantages.by_ref().take(if kept { *length } else { 0 }).collect();
        Ok(lengths.iter().zip(kept).map(of).collect())
    }

    /// Returns one advantage for each trained token.
    fn update(&mut self, rewarded: &Rewarded<'_>, metrics: &mut Metrics) -> Result<Vec<f32>, TrainError> {
        let batch = TrainBatch::new(rewarded.rollouts.iter().copied());
        let rewards = rewarded.batch(&batch.lengths)?;
        let penalties = self.kl_penalties(&batch, metrics);
        let rewards = if penalties.is_empty() { rewards } else { rewards.with_token_rewards(&penalties)? };
        metrics.summary("critic/rewards", &rewards.scores().iter().map(|score| *score as f32).collect::<Vec<_>>());
        let values = self.critic.as_ref().map(|critic| self.values(&critic.decoder, &batch));
        let rewards = match &values {
            Some(values) => {
                metrics.summary("critic/values", values);
                rewards.with_values(values)?
            }
            None => rewards,
        };
        let advantages = self.algorithm.advantages(&rewards)?;
        metrics.summary("critic/advantages", &advantages.advantages);
        metrics.summary("critic/returns", &advantages.returns);
        metrics.insert("rollout/groups", advantages.groups as f64);
        metrics.insert("rollout/constant_groups", advantages.constant_groups as f64);
        for _ in 0..self.config.epochs {
            self.update_policy(&batch, &advantages.advantages, metrics)?;
            if let Some(values) = &values {
                self.update_critic(&batch, values, &advantages.returns, metrics)?;
            }
        }
        Ok(advantages.advantages)
    }

    /// What each trained token pays for its distance to the reference; nothing where `kl_reward` is off.
    fn kl_penalties(&mut self, batch: &TrainBatch, metrics: &mut Metrics) -> Vec<f32> {
        let beta = self.kl_beta;
        if self.config.kl_reward.coefficient == 0.0 {
            return Vec::new();
        }
        let mut reference = vec![0.0; batch.generator_logprobs.len()];
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&self.reference.score(&micro.scored()).0), &mut reference);
        }
        // The mean over each sequence's tokens, then over sequences, as verl takes it.
        let (mut kl, mut start) = (0.0, 0);
        for length in batch.lengths.iter().filter(|length| **length > 0) {
            let range = start..start + length;
            let tokens = batch.generator_logprobs[range.clone()].iter().zip(&reference[range.clone()]);
            kl += tokens.map(|(log, reference)| f64::from(log - reference)).sum::<f64>() / *length as f64;
            start = range.end;
        }
        kl /= batch.lengths.len().max(1) as f64;
        metrics.insert("actor/reward_kl_penalty", kl);
        metrics.insert("actor/reward_kl_penalty_coeff", beta);
        self.kl_beta = self.config.kl_reward.next(beta, kl, batch.lengths.len());
        KlReward::token_rewards(beta, &batch.generator_logprobs, &reference)
    }

    fn update_policy(
        &mut self,
        batch: &TrainBatch,
        advantages: &[f32],
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        let terms = self.algorithm.terms();
        let weights = terms.aggregation.weights(&batch.lengths);
        let reference_needed = terms.kl.coefficient != 0.0;
        let mut gradients = Gradients::default();
        let mut totals = LossMetrics::default();
        let mut gap = 0.0;
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            let scored = micro.scored();
            let (logprobs, entropy) = self.policy.decoder.score(&scored);
            let old = micro.gather(&batch.generator_logprobs);
            let now = host(&logprobs);
            gap += now.iter().zip(&old).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
            let output = self.algorithm.loss(LossInputs {
                logprobs,
                old_logprobs: self.tensor(old),
                ref_logprobs: reference_needed.then(|| self.reference.score(&scored).0),
                entropy: Some(entropy),
                advantages: self.tensor(micro.gather(advantages)),
                weights: self.tensor(micro.gather(&weights)),
                sequence_lengths: micro.lengths(),
            })?;
            totals += output.metrics;
            gradients.add(Gradients::of(output.loss, self.policy.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !totals.loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: totals.loss, norm });
        }
        let rate = warmed_up(self.config.learning_rate, self.config.warmup_ratio, self.step, self.config.steps);
        self.policy.optimizer.step(self.policy.decoder.trained_mut(), &gradients, rate);
        totals.scalars().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        metrics.insert("actor/grad_norm", norm);
        metrics.insert("actor/lr", rate);
        metrics.insert("rollout/logprob_gap", gap / totals.tokens.max(1) as f64);
        Ok(())
    }

    fn update_critic(
        &mut self,
        batch: &TrainBatch,
        old: &[f32],
        returns: &[f32],
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        let (Some(critic), Some(loss)) = (&self.critic, self.algorithm.value_loss()) else { return Ok(()) };
        let weights = loss.aggregation.weights(&batch.lengths);
        let mut gradients = Gradients::default();
        let mut total = 0.0;
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            let output = loss.loss(ValueInputs {
                values: critic::values(&critic.decoder, &micro.scored()),
                old_values: self.tensor(micro.gather(old)),
                returns: self.tensor(micro.gather(returns)),
                weights: self.tensor(micro.gather(&weights)),
            })?;
            total += output.vf_loss;
            gradients.add(Gradients::of(output.loss, critic.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !total.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: total, norm });
        }
        let rate =
            warmed_up(self.config.critic_learning_rate, self.config.critic_warmup_ratio, self.step, self.config.steps);
        if let Some(critic) = &mut self.critic {
            critic.optimizer.step(critic.decoder.trained_mut(), &gradients, rate);
        }
        metrics.insert("critic/vf_loss", total);
        metrics.insert("critic/grad_norm", norm);
        metrics.insert("critic/lr", rate);
        Ok(())
    }

    /// The critic's values of all trained tokens, as constants.
    fn values(&self, critic: &Decoder, batch: &TrainBatch) -> Vec<f32> {
        let frozen = Decoder::frozen(critic.config(), &critic.to_host(), critic.device());
        let mut values = vec![0.0; batch.generator_logprobs.len()];
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&critic::values(&frozen, &micro.scored())), &mut values);
        }
        values
    }

    fn tensor(&self, values: Vec<f32>) -> Tensor<1> {
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), self.parts.device)
    }

    /// Puts a saved policy in place, for the trainer and for the generator.
    pub(crate) fn set_policy(&mut self, decoder: Decoder, optimizer: AdamW) {
        self.generator.refit(&decoder.to_host(), WeightVersion(self.step));
        self.policy = Learner { decoder, optimizer };
    }
}

fn host(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().without_autodiff().into_data().convert::<f32>().try_into_vec::<f32>().unwrap_or_default()
}

fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Stream { seed, purpose: "questions", step: epoch, ..Stream::default() }.rng());
    order
}
