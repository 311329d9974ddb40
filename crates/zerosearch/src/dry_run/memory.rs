//! Memory of a run by part and by the time at which it is held.

use serde::Serialize;
use zerosearch_algorithms::Algorithm;
use zerosearch_kernels::host::KV_BLOCK;
use zerosearch_lm::{ModelConfig, WeightDtype};
use zerosearch_train::TrainConfig;

use super::activations::{TrainingPass, decoding_bytes};
use super::device::Target;
use super::sizes::ModelSize;
use super::tokens::Lengths;

/// Sequences that a local generator decodes at once.
const MOST_DECODING: u64 = 256;
/// Bytes of the caches of released sequences that a generator without a bound keeps.
const RECENT: u64 = 256 << 20;

/// A part of a run's memory, in bytes, by the time at which it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// While rollouts are collected.
    pub rollouts: u64,
    /// During the forward and backward passes of an update.
    pub update: u64,
    /// During the optimizer's step.
    pub step: u64,
    /// Whether it depends on the length of rollouts, so that it may stay below these bytes.
    pub grows: bool,
}

/// Memory of a run on its training device, at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// The parts.
    pub parts: Vec<Part>,
    /// The sum at its peak, in bytes.
    pub peak_bytes: u64,
    /// The time of the peak: `"rollouts"`, `"update"` or `"step"`.
    pub peak_during: &'static str,
    /// Activations of a micro batch without gradient checkpointing, in bytes.
    pub activations_kept: u64,
    /// The same with it.
    pub activations_checkpointed: u64,
}

impl Part {
    /// The time at which it is largest, in bytes.
    pub fn largest(&self) -> u64 {
        self.rollouts.max(self.update).max(self.step)
    }

    fn at(&self, time: usize) -> u64 {
        [self.rollouts, self.update, self.step][time]
    }

    fn growing(self) -> Self {
        Self { grows: true, ..self }
    }
}

/// The names of the times.
const TIMES: [&str; 3] = ["rollouts", "update", "step"];
/// The part that `train.kv_cache_memory_bytes` bounds.
const POLICY_CACHE: &str = "KV cache of the policy, f32";

impl Memory {
    /// The sum at the peak of those parts that do not depend on the length of rollouts, in bytes, and the time of that peak.
    pub fn certain(&self) -> (u64, &'static str) {
        peak(self.parts.iter().filter(|part| !part.grows))
    }

    /// Bytes that a device of so much memory has left for the policy's cache, where everything else fits: at the time of the most else
    /// that is held beside the cache.
    pub(super) fn left_for_cache(&self, memory: u64) -> Option<u64> {
        let cache = self.parts.iter().find(|part| part.name == POLICY_CACHE)?;
        let others = self.parts.iter().filter(|part| part.name != POLICY_CACHE);
        let left = |time| memory.checked_sub(others.clone().map(|part| part.at(time)).sum());
        let left: Option<Vec<u64>> = (0..TIMES.len()).map(left).collect();
        left?.into_iter().enumerate().filter(|(time, _)| cache.at(*time) > 0).map(|(_, left)| left).min()
    }
}

/// The greatest sum of parts at one time, in bytes, and that time.
fn peak<'p>(parts: impl Iterator<Item = &'p Part> + Clone) -> (u64, &'static str) {
    let sums =
        TIMES.iter().enumerate().map(|(time, name)| (parts.clone().map(|part| part.at(time)).sum::<u64>(), *name));
    // The first of equal ones.
    sums.reduce(|peak, sum| if sum.0 > peak.0 { sum } else { peak }).unwrap_or((0, TIMES[0]))
}

/// Everything that the memory of a run follows from.
pub(super) struct Run<'a> {
    pub(super) policy: &'a ModelSize,
    /// The simulator of this process.
    pub(super) simulator: Option<&'a ModelSize>,
    pub(super) train: &'a TrainConfig,
    pub(super) algorithm: &'a dyn Algorithm,
    /// Whether a server decodes the policy.
    pub(super) served: bool,
    pub(super) target: Target,
    /// The longest that rollouts can be.
    pub(super) lengths: &'a Lengths,
}

impl Run<'_> {
    pub(super) fn memory(&self) -> Memory {
        let activations = |checkpointing| self.pass().bytes(&self.policy.config, checkpointing);
        let (activations_kept, activations_checkpointed) = (activations(false), activations(true));
        let mut parts = self.weights();
        parts.extend(self.sampling());
        let checkpointing = self.train.gradient_checkpointing;
        let of_micro_batch = if checkpointing { activations_checkpointed } else { activations_kept };
        parts.push(during("activations of a micro batch", [0, of_micro_batch, 0]).growing());
        parts.retain(|part| part.largest() > 0);
        let (peak_bytes, peak_during) = peak(parts.iter());
        Memory { parts, peak_bytes, peak_during, activations_kept, activations_checkpointed }
    }

    /// Masters, gradients, moments, reference and critic.
    fn weights(&self) -> Vec<Part> {
        let (policy, train) = (self.policy, self.train);
        let (all, layer, table) = (policy.parameters, policy.of_layer(), policy.embedding());
        let adapters = train.lora.as_ref().map(|lora| policy.adapters(lora));
        let trained = adapters.unwrap_or(all);
        let critic = self.algorithm.value_loss().map(|_| all + policy.config.hidden_size as u64);
        // The vocabulary's head is loaded with the critic, although its values do not use it.
        let of_critic = critic.map(|critic| if policy.config.tie_word_embeddings { critic } else { critic - table });
        let compares = self.algorithm.terms().kl.coefficient != 0.0 || train.kl_reward.coefficient != 0.0;
        // A pass that keeps everything has all gradients of a micro batch beside their sum, a checkpointed one those of a layer
        // and of the ends.
        let of_pass = match (train.gradient_checkpointing, adapters) {
            (false, _) => trained.max(of_critic.unwrap_or(0)),
            (true, Some(adapters)) => adapters / policy.config.layers as u64,
            (true, None) => layer + if policy.config.tie_word_embeddings { table } else { 2 * table },
        };
        let gradients = 4 * trained.max(of_critic.unwrap_or(0));
        let in_step = match self.target.gpu {
            // Moments, their ratio and the new weight of one tensor after another; on the CPU all are changed in place.
            true => 5 * 4 * adapters.unwrap_or_else(|| policy.largest_tensor()),
            false => 0,
        };
        let frozen = if adapters.is_some() { "policy, f32, frozen" } else { "policy, f32 masters" };
        vec![
            held(frozen, 4 * all),
            held("adapters, f32 masters", 4 * adapters.unwrap_or(0)),
            held("reference, f32", if compares && adapters.is_none() { 4 * all } else { 0 }),
            held("critic, f32 masters", 4 * critic.unwrap_or(0)),
            held("AdamW moments, f32", 8 * (trained + of_critic.unwrap_or(0))),
            during("gradients, f32", [0, gradients, gradients]),
            during("gradients of a micro batch, f32", [0, 4 * of_pass, 0]),
            during("rounded copies of the weights, bf16", [0, self.rounded_copies(), 0]),
            during("working memory of the optimizer", [0, 0, in_step]),
        ]
    }

    /// Copies of the weights that a training pass rounds to bf16 and keeps for its backward pass.
    fn rounded_copies(&self) -> u64 {
        let rounds =
            self.target.trains_in_bf16(self.train) || self.target.rollout_dtype(self.train) == WeightDtype::Bf16;
        let layers = match self.train.gradient_checkpointing {
            true => self.policy.of_layer(),
            false => self.policy.of_layer() * self.policy.config.layers as u64,
        };
        if rounds { 2 * (layers + self.policy.embedding()) } else { 0 }
    }

    /// The copies that are decoded with, and their caches.
    fn sampling(&self) -> Vec<Part> {
        let (train, target, lengths) = (self.train, self.target, self.lengths);
        // With a staleness rollouts are collected beside the update.
        let sleeps = train.sleep && train.staleness == 0;
        let sampled = |name: &str, bytes: u64| if sleeps { during(name, [bytes, 0, 0]) } else { held(name, bytes) };
        let live = match train.rollout.concurrency as u64 {
            0 => lengths.rollouts,
            bound => bound.min(lengths.rollouts),
        };
        let mut parts = Vec::new();
        if !self.served {
            let dtype = target.rollout_dtype(train);
            let all = cache_bytes(&self.policy.config, target, lengths.rollouts, lengths.tokens);
            let caches = (cache_bytes(&self.policy.config, target, live, lengths.tokens) + RECENT).min(all);
            let caches = caches.min(train.kv_cache_memory_bytes.map_or(u64::MAX, |bytes| bytes as u64));
            parts.push(sampled(&format!("policy for sampling, {}", name(dtype)), self.policy.decoding_bytes(dtype)));
            parts.push(sampled(POLICY_CACHE, target.grown(caches)).growing());
            let activations = decoding_bytes(&self.policy.config, live.min(MOST_DECODING));
            parts.push(sampled("activations of decoding, policy", activations).growing());
        }
        if let Some(simulator) = self.simulator {
            let dtype = target.default_dtype();
            // A rollout waits for its search before it asks for another.
            let live = live.min(MOST_DECODING);
            let caches = cache_bytes(&simulator.config, target, live, lengths.simulator_tokens) + RECENT;
            parts.push(held(&format!("simulator, {}", name(dtype)), simulator.decoding_bytes(dtype)));
            // A GPU's cache keeps the size that it once had.
            let caches = target.grown(caches);
            let later = if target.gpu { caches } else { caches.min(RECENT) };
            parts.push(during("KV cache of the simulator, f32", [caches, later, later]).growing());
            parts.push(held("activations of decoding, simulator", decoding_bytes(&simulator.config, live)).growing());
        }
        parts
    }

    /// The largest micro batch.
    fn pass(&self) -> TrainingPass {
        let (train, lengths) = (self.train, self.lengths);
        let (budget, all) = (train.micro_batch_tokens as u64, lengths.rollouts.saturating_mul(lengths.tokens));
        // A sequence that is longer than the budget has a micro batch of its own.
        let rows = budget.max(lengths.tokens).min(all);
        let compares = self.algorithm.terms().kl.coefficient != 0.0;
        TrainingPass {
            rows,
            scored: budget.max(lengths.policy_tokens).min(rows).min(lengths.rollouts * lengths.policy_tokens),
            longest: lengths.tokens,
            gpu: self.target.gpu,
            width: if self.target.trains_in_bf16(train) { 2 } else { 4 },
            adapts_down: train.lora.iter().any(|lora| lora.target_modules.iter().any(|name| name == "down_proj")),
            reference: compares,
        }
    }
}

/// Bytes of the caches of so many sequences of so many tokens, the last of which nothing is computed from.
pub(super) fn cache_bytes(c: &ModelConfig, target: Target, sequences: u64, tokens: u64) -> u64 {
    let (head, block) = (c.head_dim, KV_BLOCK);
    // Of a key and a value, padded as the engine pads them.
    let numbers = match target.gpu {
        true => 2 * head.next_multiple_of(4),
        false => head + head.next_multiple_of(block),
    };
    let block_bytes = (c.layers * c.kv_heads * block * numbers * size_of::<f32>()) as u64;
    sequences.saturating_mul(tokens.saturating_sub(1).div_ceil(block as u64)).saturating_mul(block_bytes)
}

fn name(dtype: WeightDtype) -> &'static str {
    if dtype == WeightDtype::Bf16 { "bf16" } else { "f32" }
}

/// A part that is held all the time.
fn held(name: &str, bytes: u64) -> Part {
    during(name, [bytes; 3])
}

fn during(name: &str, [rollouts, update, step]: [u64; 3]) -> Part {
    Part { name: name.into(), rollouts, update, step, grows: false }
}
