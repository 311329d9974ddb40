//! One step: rollouts against the engine, rewards, an update, the generator's new weights.

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
    /// Questions asked so far.
    pub(crate) cursor: u64,
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
            cursor: 0,
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
        let collection = Collection {
            config: &self.config,
            parts: self.parts,
            curriculum: self.curriculum.as_ref(),
            greedy_baseline: self.algorithm.greedy_baseline(),
            dynamic_sampling: self.algorithm.dynamic_sampling(),
            step: self.step,
            cursor: self.cursor,
            success_rate: self.success.value(),
        };
        let collected = collection.run(&mut self.generator)?;
        self.cursor = collected.cursor;
        self.success.observe(collected.mean_reward());
        let advantages = match self.learn(&collected, &mut metrics) {
            Err(TrainError::NotFinite { .. }) if self.skipped < self.config.skipped_updates => {
                self.skipped += 1;
                vec![Vec::new(); collected.rollouts.len()]
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
        if self.algorithm.dynamic_sampling() {
            collected.sampling_metrics(self.config.questions_per_step as u64, &mut metrics);
        }
        metrics.insert("curriculum/noise_probability", collected.noise_probability);
        metrics.extend(RolloutStats::of(&collected.rollouts).metrics());
        metrics.summary("critic/score", &collected.rewards);
        let step_seconds = began.elapsed().as_secs_f64();
        metrics.insert("rollout/tokens_per_s", collected.sampled_tokens() as f64 / collected.seconds);
        metrics.insert("timing_s/rollout", collected.seconds);
        metrics.insert("timing_s/update", step_seconds - collected.seconds);
        metrics.insert("timing_s/step", step_seconds);
        let Collected { rollouts, rewards, .. } = collected;
        Ok(StepReport { step: self.step, metrics, rollouts, rewards, advantages })
    }

    /// Puts a saved policy in place, for the trainer and for the generator.
    pub(crate) fn set_policy(&mut self, decoder: Decoder, optimizer: AdamW) {
        self.generator.refit(&decoder.to_host(), WeightVersion(self.step));
        self.policy = Learner { decoder, optimizer };
    }
}
