//! Everything that decides what a training run does, with the paper's values as defaults.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};
use zerosearch_algorithms::{Algorithm, AlgorithmConfig, ImportanceSampling, KlReward};
use zerosearch_curriculum::CurriculumConfig;
use zerosearch_lm::{AdamWConfig, Decoder, GpuProducts, LoraConfig, WeightDtype};
use zerosearch_rollout::RolloutConfig;

use crate::{LrSchedulerType, TrainError};

/// A training run. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Names every random draw of the run.
    pub seed: u64,
    /// Steps: batches of rollouts that are learnt from.
    pub steps: u64,
    /// Questions in a step.
    pub questions_per_step: usize,
    /// Rollouts of each question: a group.
    pub samples_per_question: usize,
    /// Bounds of an episode.
    pub rollout: RolloutConfig,
    /// With dynamic sampling (`dapo`): how many times questions are asked at most to fill a step, the first time included. Each time
    /// after it asks as many as there are groups whose rewards are all equal; places still empty are given up. 1 only filters.
    pub max_num_gen_batches: usize,
    /// Whether rollouts that were cut off, by `max_new_tokens` or by the context's end, are left out of the loss, as TRL does. They still
    /// take part in their group's comparison.
    pub mask_truncated_completions: bool,
    /// The same for rollouts with a turn that neither searched nor answered.
    pub mask_invalid_completions: bool,
    /// Whether rollouts whose advantages are all 0, most of them of groups with equal rewards, are left out of the passes. They add
    /// nothing to the gradient of a loss without KL and entropy terms, and it is refused with such a term. Figures that are measured in
    /// the passes, as the entropy, are then those of the other rollouts.
    pub skip_zero_advantages: bool,
    /// Probability of noisy documents.
    pub curriculum: CurriculumConfig,
    /// The estimator and its parameters.
    pub algorithm: AlgorithmConfig,
    /// A KL penalty in the reward, instead of or beside the algorithm's KL term in the loss; off by default.
    pub kl_reward: KlReward,
    /// The policy's highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the policy's rate rises linearly.
    pub warmup_ratio: f64,
    /// Schedule of the policy's rate after the warm-up.
    pub lr_scheduler_type: LrSchedulerType,
    /// The critic's highest learning rate; without a critic it means nothing.
    pub critic_learning_rate: f64,
    /// Share of the steps over which the critic's rate rises linearly.
    pub critic_warmup_ratio: f64,
    /// Schedule of the critic's rate after the warm-up.
    pub critic_lr_scheduler_type: LrSchedulerType,
    /// Trains adapters instead of the policy's weights; the reference is then the policy without them, at no memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The optimizer of policy and critic.
    pub optimizer: AdamWConfig,
    /// Gradients are scaled down to this global norm.
    pub gradient_norm: f64,
    /// Most tokens in one forward pass; a prompt that several rollouts begin with counts once. It bounds the memory of
    /// activations and changes a gradient by rounding only.
    pub micro_batch_tokens: usize,
    /// Whether the backward pass computes each layer's forward pass again instead of keeping its activations: the memory
    /// of one layer's instead of all, the same gradients, for one more forward pass.
    pub gradient_checkpointing: bool,
    /// How a GPU multiplies in the training passes. No matter on the CPU, which is exact.
    #[serde(skip_serializing_if = "GpuProducts::is_exact")]
    pub gpu: GpuProducts,
    /// The type of the weights that rollouts are sampled with: `f32`, or `bf16` for half the memory and, with few rollouts at a
    /// time, nearly half the time of decoding. The training passes round the weights in the same way; parameters, gradients
    /// and checkpoints stay in f32. Left out: bf16 on a GPU that has it, else f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_dtype: Option<WeightDtype>,
    /// Most bytes that the generator's caches hold; unbounded where it is left out. Rollouts that do not fit wait, or are computed
    /// again: it changes speed, never a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_memory_bytes: Option<usize>,
    /// Whether the generator gives its memory back for each update: its weights and, where they are its own, its caches. Without it they
    /// stay, beside gradients and activations. Then nothing is laid out or recorded anew, and on a GPU that trains as well the optimizer
    /// writes the generator's weights with its own, so that there is nothing left to hand over. It changes memory and speed, never a token.
    pub sleep: bool,
    /// Questions whose rollouts, all samples counted, make an optimizer step: verl's `ppo_mini_batch_size`. 0: all of a step's. The
    /// rollouts are shuffled for each epoch, so those of a question need not stay together.
    pub mini_batch_size: usize,
    /// How many times each batch of rollouts is gone through.
    pub epochs: usize,
    /// How many updates older than the policy the weights may be that sampled a step's rollouts. 0: the rollouts wait for the update
    /// before. Above: they are collected beside it, always with weights exactly this much older (at the first steps: with the first
    /// ones), so that a run is still a function of its configuration alone.
    pub staleness: u64,
    /// Which log-probabilities the ratios of the loss, and `kl_reward`, start from.
    pub old_logprobs: OldLogprobs,
    /// Weighs the policy gradient by the ratio of recomputed probabilities to those that the rollouts were drawn with, temperature and
    /// truncation included; absent: off. Needs `old_logprobs = "recomputed"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_sampling: Option<ImportanceSampling>,
    /// A checkpoint after every so many steps, and after the last; 0 only after the last.
    pub checkpoint_every: u64,
    /// Older checkpoints beyond this many are deleted, save that of the best validation.
    pub keep_checkpoints: usize,
    /// A validation after every so many steps and after the last, where the trainer was given questions for it; 0: never.
    pub validate_every: u64,
    /// The run ends after so many validations in a row without a better mean F1; 0: never.
    pub early_stop_patience: u64,
    /// Whether a GPU is waited for after each part of an update, so that `timing_s/forward` and the like are the seconds that its work takes.
    /// Without, they are the seconds until it was handed over, and the whole of an update is right all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub synchronize_timings: bool,
    /// So many updates in a row may be skipped because a loss or gradient is not finite; one more ends the run.
    pub skipped_updates: u64,
}

/// Source of the log-probabilities of the policy before the update. Those of the generator are kept in any case, and the
/// difference is a metric (`rollout/logprob_gap`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldLogprobs {
    /// Those that the generator recorded when it sampled.
    #[default]
    Generator,
    /// The trainer's forward pass before the update, at its cost: verl's recomputed `old_log_probs`.
    Recomputed,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 203,
            questions_per_step: 64,
            samples_per_question: 5,
            rollout: RolloutConfig::default(),
            max_num_gen_batches: 10,
            mask_truncated_completions: false,
            mask_invalid_completions: false,
            skip_zero_advantages: false,
            curriculum: CurriculumConfig::default(),
            algorithm: AlgorithmConfig::Reinforce(Default::default()),
            kl_reward: KlReward::default(),
            learning_rate: 1e-6,
            warmup_ratio: 0.95,
            lr_scheduler_type: LrSchedulerType::ConstantWithWarmup,
            critic_learning_rate: 1e-5,
            critic_warmup_ratio: 0.015,
            critic_lr_scheduler_type: LrSchedulerType::ConstantWithWarmup,
            lora: None,
            optimizer: AdamWConfig::default(),
            gradient_norm: 1.0,
            micro_batch_tokens: 8192,
            gradient_checkpointing: false,
            gpu: GpuProducts::Exact,
            rollout_dtype: None,
            kv_cache_memory_bytes: None,
            mini_batch_size: 0,
            epochs: 1,
            staleness: 0,
            old_logprobs: OldLogprobs::Generator,
            importance_sampling: None,
            checkpoint_every: 50,
            keep_checkpoints: 2,
            validate_every: 0,
            early_stop_patience: 0,
            synchronize_timings: false,
            sleep: true,
            skipped_updates: 3,
        }
    }
}

impl TrainConfig {
    /// Sized for a model of some million parameters on a machine without a GPU: short turns, small batches, a high learning
    /// rate that falls along a cosine. The default is the paper's, for billions of parameters.
    pub fn small(algorithm: impl Into<AlgorithmConfig>) -> Self {
        let rollout = RolloutConfig {
            max_turns: 5,
            max_new_tokens: 64,
            max_observation_tokens: 320,
            top_k: 3,
            ..RolloutConfig::default()
        };
        Self {
            steps: 40,
            questions_per_step: 8,
            samples_per_question: 5,
            rollout,
            curriculum: CurriculumConfig::Exponential { start: 0.25, end: 0.75, base: 4.0 },
            algorithm: algorithm.into(),
            learning_rate: 5e-5,
            warmup_ratio: 0.05,
            lr_scheduler_type: LrSchedulerType::Cosine,
            critic_learning_rate: 3e-4,
            critic_warmup_ratio: 0.0,
            micro_batch_tokens: 16_384,
            checkpoint_every: 10,
            ..Self::default()
        }
    }

    /// The policy's learning rate at a step counted from 0.
    pub(crate) fn learning_rate_at(&self, step: u64) -> f64 {
        self.lr_scheduler_type.rate(self.learning_rate, self.warmup_ratio, step, self.steps)
    }

    /// The critic's learning rate at a step counted from 0.
    pub(crate) fn critic_learning_rate_at(&self, step: u64) -> f64 {
        let (peak, warmup_ratio) = (self.critic_learning_rate, self.critic_warmup_ratio);
        self.critic_lr_scheduler_type.rate(peak, warmup_ratio, step, self.steps)
    }

    /// The type of the weights that a generator on a device samples with.
    pub(crate) fn rollout_dtype_on(&self, device: &Device) -> WeightDtype {
        self.rollout_dtype.unwrap_or_else(|| WeightDtype::default_on(device))
    }

    /// A decoder that computes as this configuration says.
    pub(crate) fn precise(&self, decoder: Decoder) -> Decoder {
        decoder.with_products(self.gpu)
    }

    /// The policy or what it is compared with: it computes as the generator samples, too.
    pub(crate) fn precise_policy(&self, decoder: Decoder) -> Decoder {
        let rounded = self.rollout_dtype_on(decoder.device()) == WeightDtype::Bf16;
        self.precise(decoder.with_bf16_weights(rounded))
    }

    /// Refuses types that a device does not have.
    pub(crate) fn validate_on(&self, device: &Device) -> Result<(), TrainError> {
        match self.rollout_dtype {
            Some(WeightDtype::Bf16) if !device.supports_dtype(DType::BF16) => Err(TrainError::Config {
                key: "rollout_dtype",
                value: "bf16".into(),
                expected: "f32, or nothing: the training device has no bf16",
            }),
            _ => Ok(()),
        }
    }

    /// Checks whether an algorithm can be run as this configuration says.
    ///
    /// # Errors
    /// Its own parameters are out of range, it compares more samples of a question than there are, or its loss depends on rollouts that
    /// [`skip_zero_advantages`](Self::skip_zero_advantages) leaves out.
    pub fn validate_with(&self, algorithm: &dyn Algorithm) -> Result<(), TrainError> {
        algorithm.validate()?;
        let (needed, found) = (algorithm.min_group_size(), self.samples_per_question);
        if found < needed {
            return Err(TrainError::GroupSize { algorithm: algorithm.name(), needed, found });
        }
        let terms = algorithm.terms();
        if self.skip_zero_advantages && (terms.kl.coefficient != 0.0 || terms.entropy_coefficient != 0.0) {
            return Err(TrainError::Config {
                key: "skip_zero_advantages",
                value: "true".into(),
                expected: "false where the loss has a KL or entropy term: rollouts without an advantage have a part in it",
            });
        }
        Ok(())
    }

    /// Checks what the parts do not check themselves.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), TrainError> {
        let check = |key: &'static str, value: f64, ok: bool, expected: &'static str| {
            if ok { Ok(()) } else { Err(TrainError::Config { key, value: value.to_string(), expected }) }
        };
        let positive = |key, value: usize| check(key, value as f64, value > 0, "at least 1");
        positive("steps", self.steps as usize)?;
        positive("questions_per_step", self.questions_per_step)?;
        positive("samples_per_question", self.samples_per_question)?;
        positive("micro_batch_tokens", self.micro_batch_tokens)?;
        positive("kv_cache_memory_bytes", self.kv_cache_memory_bytes.unwrap_or(usize::MAX))?;
        positive("max_num_gen_batches", self.max_num_gen_batches)?;
        positive("epochs", self.epochs)?;
        positive("keep_checkpoints", self.keep_checkpoints)?;
        let fits = self.mini_batch_size <= self.questions_per_step;
        check(
            "mini_batch_size",
            self.mini_batch_size as f64,
            fits,
            "at most `questions_per_step`, or 0 for all of them",
        )?;
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("critic_learning_rate", self.critic_learning_rate),
            ("gradient_norm", self.gradient_norm),
        ] {
            check(key, value, value.is_finite() && value > 0.0, "a finite number above 0")?;
        }
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.optimizer;
        for (key, value) in [("optimizer.beta1", beta1), ("optimizer.beta2", beta2)] {
            check(key, value, (0.0..1.0).contains(&value), "0 to below 1")?;
        }
        for (key, value) in [("optimizer.epsilon", epsilon), ("optimizer.weight_decay", weight_decay)] {
            check(key, value, value.is_finite() && value >= 0.0, "a finite number, 0 or more")?;
        }
        for (key, value) in [("warmup_ratio", self.warmup_ratio), ("critic_warmup_ratio", self.critic_warmup_ratio)] {
            check(key, value, (0.0..=1.0).contains(&value), "a share in [0, 1]")?;
        }
        let corrected = self.importance_sampling.is_some() && self.old_logprobs == OldLogprobs::Generator;
        if corrected {
            return Err(TrainError::Config {
                key: "old_logprobs",
                value: "\"generator\"".into(),
                expected: "\"recomputed\": `importance_sampling` weighs by recomputed over recorded probabilities",
            });
        }
        if self.importance_sampling.is_some() && self.rollout.sampling.temperature == 0.0 {
            return Err(TrainError::Config {
                key: "rollout.sampling.temperature",
                value: "0".into(),
                expected: "above 0: `importance_sampling` weighs tokens by how likely they were drawn, and greedy ones are not drawn",
            });
        }
        self.importance_sampling.iter().try_for_each(ImportanceSampling::validate)?;
        self.kl_reward.validate()?;
        self.lora.iter().try_for_each(LoraConfig::validate)?;
        self.rollout.validate()?;
        Ok(())
    }
}
