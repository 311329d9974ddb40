//! One step: rollouts against the engine, an update from them, the generator's new weights.

use std::collections::VecDeque;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use burn::tensor::Device;
use zerosearch_algorithms::Algorithm;
use zerosearch_curriculum::{Curriculum, SuccessRate};
use zerosearch_data::Question;
use zerosearch_generate::{Stream, WeightVersion};
use zerosearch_lm::{AdamW, Decoder, LanguageModel, LocalGenerator};
use zerosearch_metrics::Metrics;
use zerosearch_reward::RewardFn;
use zerosearch_rollout::{Rollout, RolloutStats};
use zerosearch_search::SearchEngine;
use zerosearch_text::PromptTemplate;

use crate::collection::{Collected, Collection};
use crate::identity::of_weights;
use crate::replicas::Replica;
use crate::update::Update;
use crate::validation::{Best, Validation};
use crate::{TrainConfig, TrainError, critic};

/// What a trainer is made of besides its configuration.
#[derive(Clone)]
pub struct Parts<'a> {
    /// The policy as it starts, which is also the reference of the KL term. Its weights are not copied, and no second copy
    /// of them lives through the run, unless somebody keeps a clone of the model.
    pub model: LanguageModel,
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
    /// Questions asked so far.
    pub(crate) cursor: u64,
    /// Rollouts of the steps to come that are collected already: `staleness` steps', fewer near the end.
    pub(crate) ahead: VecDeque<Collected>,
    /// What an adaptive curriculum goes by.
    pub(crate) success: SuccessRate,
    pub(crate) validation: Option<Validation<'a>>,
    pub(crate) best: Option<Best>,
    /// The coefficient of the KL penalty in the reward.
    pub(crate) kl_beta: f64,
    /// Updates skipped in a row.
    pub(crate) skipped: u64,
    pub(crate) generator: LocalGenerator,
    /// A short name of the weights that the policy began with.
    pub(crate) base_model: String,
    curriculum: Box<dyn Curriculum>,
    /// Where something is compared with it.
    pub(crate) reference: Option<Decoder>,
    /// What further devices hold.
    pub(crate) replicas: Vec<Replica>,
}

/// 1 for a step whose update was skipped because a loss or gradient was not finite.
pub(crate) const SKIPPED: &str = "actor/skipped_update";

pub(crate) struct Learner {
    pub(crate) decoder: Decoder,
    pub(crate) optimizer: AdamW,
}

impl Learner {
    /// The stream of an update's dropout, whose `question` is a device and whose `sample` a micro-batch: no two passes before
    /// or after a resume have the same.
    pub(crate) fn dropout(&self, seed: u64) -> Stream {
        Stream { seed, purpose: "dropout", step: self.optimizer.steps(), ..Stream::default() }
    }
}

/// What a step did.
pub struct StepReport {
    /// Its number, counted from 1.
    pub step: u64,
    /// Every figure.
    pub metrics: Metrics,
    /// Its rollouts, those that the update left out included.
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
        mut parts: Parts<'a>,
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
        let (model, device) = (&mut parts.model, parts.device);
        let base_model = of_weights(&model.weights);
        let learner = |decoder| Learner { decoder, optimizer: AdamW::new(config.optimizer) };
        let precise = |decoder: Decoder| decoder.with_bf16(config.bf16);
        let critic = algorithm
            .value_loss()
            .map(|_| Decoder::trainable(&model.config, critic::initial_weights(model), device))
            .transpose()?
            .map(|critic| learner(precise(critic)));
        let compares = algorithm.terms().kl.coefficient != 0.0 || config.kl_reward.coefficient != 0.0;
        let (policy, reference) = match &config.lora {
            Some(lora) => {
                let seed = Stream { seed: config.seed, purpose: "adapters", ..Stream::default() }.value();
                let adapters = lora.initial(&model.config, seed);
                let weights = model.take_weights();
                let policy = precise(Decoder::with_lora(&model.config, weights, lora, &adapters, device)?);
                let reference = compares.then(|| policy.without_lora());
                (policy, reference)
            }
            None => {
                // A copy of all weights, which a run without a KL term does not pay for.
                let reference =
                    compares.then(|| Decoder::frozen(&model.config, &*model.weights, device)).transpose()?;
                let reference = reference.map(precise);
                let weights = model.take_weights();
                (precise(Decoder::trainable(&model.config, weights, device)?), reference)
            }
        };
        Ok(Self {
            base_model,
            critic,
            algorithm,
            step: 0,
            cursor: 0,
            ahead: VecDeque::new(),
            success: SuccessRate::new(0.9)?,
            validation: None,
            best: None,
            kl_beta: config.kl_reward.coefficient,
            skipped: 0,
            curriculum,
            reference,
            replicas: Vec::new(),
            generator: LocalGenerator::of(&policy, model.codec.eos_ids())?
                .with_cache_bytes(config.kv_cache_memory_bytes.unwrap_or(usize::MAX)),
            policy: learner(policy),
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

    /// One step: its rollouts, unless they were collected ahead, and the update from them. With a staleness the rollouts of a later
    /// step are collected beside the update, with the weights before it.
    ///
    /// # Errors
    /// When the generator fails, or the loss or its gradient is not finite: that update is not applied, and none follows.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let mut metrics = Metrics::new();
        let began = Instant::now();
        let (staleness, steps) = (self.config.staleness, self.config.steps);
        let collected = match self.ahead.pop_front() {
            Some(collected) => collected,
            None => self.collect(self.step)?,
        };
        let mut next = self.step + 1 + self.ahead.len() as u64;
        // Only at the beginning of a run: what is sampled before the first update.
        while next < steps.min(self.step.saturating_add(staleness)) {
            let ahead = self.collect(next)?;
            self.ahead.push_back(ahead);
            next += 1;
        }
        let overlaps = staleness > 0 && next < steps;
        if !overlaps {
            // Its copy of the weights makes room for gradients and activations.
            self.generator.release_weights();
        }
        let (collection, generator, mut update) = self.split(next);
        let (learnt, update_seconds, ahead) = thread::scope(|scope| {
            let ahead = overlaps.then(|| scope.spawn(move || collection.run(generator)));
            let began = Instant::now();
            let learnt = update.learn(&collected, &mut metrics);
            (learnt, began.elapsed().as_secs_f64(), ahead.map(ScopedJoinHandle::join))
        });
        let advantages = match learnt {
            Err(TrainError::NotFinite { .. }) if self.skipped < self.config.skipped_updates => {
                self.skipped += 1;
                vec![Vec::new(); collected.rollouts.len()]
            }
            Err(error) => {
                self.refit()?;
                return Err(error);
            }
            Ok(advantages) => {
                self.skipped = 0;
                advantages
            }
        };
        if let Some(ahead) = ahead {
            let ahead = ahead.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            self.observe(&ahead);
            self.ahead.push_back(ahead);
        }
        metrics.insert(SKIPPED, f64::from(u8::from(self.skipped > 0)));
        metrics.insert("rollout/staleness", collected.staleness(WeightVersion(self.step)));
        self.step += 1;
        let began_refit = Instant::now();
        self.refit()?;
        metrics.insert("timing_s/refit", began_refit.elapsed().as_secs_f64());

        self.validate_if_due(&mut metrics)?;
        if self.algorithm.dynamic_sampling() {
            collected.sampling_metrics(self.config.questions_per_step as u64, &mut metrics);
        }
        metrics.insert("curriculum/noise_probability", collected.noise_probability);
        metrics.extend(RolloutStats::of(&collected.rollouts).metrics());
        metrics.summary("critic/score", &collected.rewards);
        metrics.insert("rollout/kv_cache_peak_mb", collected.cache_peak_bytes as f64 / 1e6);
        metrics.insert("rollout/kv_cache_evicted", collected.cache_evicted as f64);
        metrics.insert("rollout/tokens_per_s", collected.sampled_tokens() as f64 / collected.seconds);
        metrics.insert("timing_s/rollout", collected.seconds);
        metrics.insert("timing_s/update", update_seconds);
        metrics.insert("timing_s/step", began.elapsed().as_secs_f64());
        let Collected { rollouts, rewards, .. } = collected;
        Ok(StepReport { step: self.step, metrics, rollouts, rewards, advantages })
    }

    /// Collects the rollouts of a step with the generator's present weights.
    fn collect(&mut self, step: u64) -> Result<Collected, TrainError> {
        let (collection, generator, _) = self.split(step);
        let collected = collection.run(generator)?;
        self.observe(&collected);
        Ok(collected)
    }

    /// Remembers what the collection of later steps depends on.
    fn observe(&mut self, collected: &Collected) {
        self.cursor = collected.cursor;
        self.success.observe(collected.mean_reward());
    }

    /// What rollouts of a step are made with, and what the present update works on: apart, so that both can go on at once.
    pub(crate) fn split(&mut self, step: u64) -> (Collection<'_>, &mut LocalGenerator, Update<'_>) {
        let collection = Collection {
            config: &self.config,
            parts: &self.parts,
            curriculum: self.curriculum.as_ref(),
            greedy_baseline: self.algorithm.greedy_baseline(),
            dynamic_sampling: self.algorithm.dynamic_sampling(),
            step,
            cursor: self.cursor,
            success_rate: self.success.value(),
        };
        let update = Update {
            config: &self.config,
            device: self.parts.device,
            step: self.step,
            policy: &mut self.policy,
            critic: self.critic.as_mut(),
            algorithm: self.algorithm.as_mut(),
            reference: self.reference.as_ref(),
            replicas: &mut self.replicas,
            kl_beta: &mut self.kl_beta,
        };
        (collection, &mut self.generator, update)
    }

    /// Puts a saved policy in place, for the trainer and for the generator.
    pub(crate) fn set_policy(&mut self, decoder: Decoder, optimizer: AdamW) -> Result<(), TrainError> {
        self.policy = Learner { decoder, optimizer };
        self.refit()
    }

    /// Hands the policy to the generator.
    pub(crate) fn refit(&mut self) -> Result<(), TrainError> {
        Ok(self.generator.refit_from(&self.policy.decoder, WeightVersion(self.step))?)
    }
}
