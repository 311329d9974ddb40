//! The influence of each key of a configuration, and so whether a resumed run may have it changed.

use std::fmt;

use serde_json::Value;
use zerosearch_lm::WeightDtype;

use crate::TrainConfig;

/// The influence of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decides {
    /// Which tokens are sampled and what is learnt from them, or the figures and the end of the run.
    Results,
    /// Memory, speed, what is kept on disk, or how soon a run gives up: another value goes on with the same run.
    Resources,
}

/// Every key. One that is missing here decides results.
const KEYS: [(&str, Decides); 47] = [
    ("seed", Decides::Results),
    // Learning rates and noise are spread over them.
    ("steps", Decides::Results),
    ("questions_per_step", Decides::Results),
    ("samples_per_question", Decides::Results),
    ("rollout.max_turns", Decides::Results),
    ("rollout.max_new_tokens", Decides::Results),
    ("rollout.max_observation_tokens", Decides::Results),
    ("rollout.top_k", Decides::Results),
    ("rollout.format", Decides::Results),
    ("rollout.sampling", Decides::Results),
    ("rollout.search_batch", Decides::Resources),
    ("rollout.search_concurrency", Decides::Resources),
    ("rollout.concurrency", Decides::Resources),
    // It cuts off tokens.
    ("rollout.turn_timeout_s", Decides::Results),
    ("max_num_gen_batches", Decides::Results),
    ("mask_truncated_completions", Decides::Results),
    ("mask_invalid_completions", Decides::Results),
    // As with other micro-batches.
    ("skip_zero_advantages", Decides::Resources),
    ("curriculum", Decides::Results),
    ("algorithm", Decides::Results),
    ("kl_reward", Decides::Results),
    ("learning_rate", Decides::Results),
    ("warmup_ratio", Decides::Results),
    ("lr_scheduler_type", Decides::Results),
    ("critic_learning_rate", Decides::Results),
    ("critic_warmup_ratio", Decides::Results),
    ("critic_lr_scheduler_type", Decides::Results),
    ("lora", Decides::Results),
    ("optimizer", Decides::Results),
    ("gradient_norm", Decides::Results),
    // Gradients are added up in another order and differ by rounding. A LoRA dropout draws other masks.
    ("micro_batch_tokens", Decides::Resources),
    ("gradient_checkpointing", Decides::Resources),
    ("gpu", Decides::Results),
    ("rollout_dtype", Decides::Results),
    ("kv_cache_memory_bytes", Decides::Resources),
    ("sleep", Decides::Resources),
    ("mini_batch_size", Decides::Results),
    ("epochs", Decides::Results),
    ("staleness", Decides::Results),
    ("old_logprobs", Decides::Results),
    ("importance_sampling", Decides::Results),
    ("checkpoint_every", Decides::Resources),
    ("keep_checkpoints", Decides::Resources),
    // Validations decide which checkpoint is the best, and when a run ends early.
    ("validate_every", Decides::Results),
    ("early_stop_patience", Decides::Results),
    ("synchronize_timings", Decides::Resources),
    ("skipped_updates", Decides::Resources),
];

/// A key that decides results, with its values in a run and in the one that wants to go on with it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChange {
    /// The key, as a path.
    pub key: String,
    /// Its value before; `None` where it was left out.
    pub before: Option<Value>,
    /// Its value now; `None` where it is left out.
    pub now: Option<Value>,
}

impl fmt::Display for KeyChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or("left out".into(), Value::to_string);
        write!(formatter, "this run had another `{}`: {}, not {}", self.key, show(&self.before), show(&self.now))
    }
}

impl TrainConfig {
    /// The first key that differs from that of a run with the configuration `before` and that decides results. Keys that change
    /// memory, speed or what is kept on disk may differ: a run goes on with others.
    pub fn change_from(&self, before: &Self) -> Option<KeyChange> {
        change(&comparable(before), &comparable(self))
    }
}

/// A configuration in which values that mean the same are the same.
pub(crate) fn comparable(config: &TrainConfig) -> Value {
    let all_questions = config.mini_batch_size == config.questions_per_step;
    let config = TrainConfig {
        rollout_dtype: config.rollout_dtype.filter(|dtype| *dtype != WeightDtype::F32),
        mini_batch_size: if all_questions { 0 } else { config.mini_batch_size },
        ..config.clone()
    };
    serde_json::to_value(config).unwrap_or(Value::Null)
}

/// The first key whose values differ and that decides results.
pub(crate) fn change(before: &Value, now: &Value) -> Option<KeyChange> {
    KeyChange::first(before, now, &|key| KEYS.contains(&(key, Decides::Resources)))
}

impl KeyChange {
    /// The first key, as a path, whose values differ; those that decide no result are passed over, with all that is below them.
    pub fn first(before: &Value, now: &Value, is_resource: &dyn Fn(&str) -> bool) -> Option<Self> {
        changed(String::new(), Some(before), Some(now), is_resource)
    }
}

fn changed(
    key: String,
    before: Option<&Value>,
    now: Option<&Value>,
    is_resource: &dyn Fn(&str) -> bool,
) -> Option<KeyChange> {
    if before == now || is_resource(&key) {
        return None;
    }
    let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, now) else {
        return Some(KeyChange { key, before: before.cloned(), now: now.cloned() });
    };
    let path = |name: &String| if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
    old.keys().chain(new.keys()).find_map(|name| changed(path(name), old.get(name), new.get(name), is_resource))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use zerosearch_algorithms::{AlgorithmConfig, ImportanceSampling, KlReward};
    use zerosearch_curriculum::CurriculumConfig;
    use zerosearch_generate::Sampling;
    use zerosearch_grammar::FormatPreset;
    use zerosearch_lm::{AdamWConfig, GpuProducts, LoraConfig, LrSchedulerType};
    use zerosearch_rollout::RolloutConfig;

    use super::*;
    use crate::OldLogprobs;

    /// No key is left out, and no field is named by a default: a new one does not compile until it is here.
    fn full() -> TrainConfig {
        TrainConfig {
            seed: 0,
            steps: 10,
            questions_per_step: 4,
            samples_per_question: 2,
            rollout: RolloutConfig {
                max_turns: 1,
                max_new_tokens: 1,
                max_observation_tokens: 1,
                top_k: 1,
                format: FormatPreset::SearchR1,
                sampling: Sampling::default(),
                search_batch: 1,
                search_concurrency: 1,
                concurrency: 1,
                turn_timeout_s: Some(1.0),
            },
            max_num_gen_batches: 1,
            mask_truncated_completions: true,
            mask_invalid_completions: true,
            skip_zero_advantages: true,
            curriculum: CurriculumConfig::default(),
            algorithm: AlgorithmConfig::Reinforce(Default::default()),
            kl_reward: KlReward::default(),
            learning_rate: 1.0,
            warmup_ratio: 0.0,
            lr_scheduler_type: LrSchedulerType::Cosine,
            critic_learning_rate: 1.0,
            critic_warmup_ratio: 0.0,
            critic_lr_scheduler_type: LrSchedulerType::Cosine,
            lora: Some(LoraConfig::default()),
            optimizer: AdamWConfig::default(),
            gradient_norm: 1.0,
            micro_batch_tokens: 1,
            gradient_checkpointing: true,
            gpu: GpuProducts::Fast,
            rollout_dtype: Some(WeightDtype::Bf16),
            kv_cache_memory_bytes: Some(1),
            mini_batch_size: 1,
            epochs: 1,
            staleness: 1,
            old_logprobs: OldLogprobs::Recomputed,
            importance_sampling: Some(ImportanceSampling::default()),
            checkpoint_every: 1,
            keep_checkpoints: 1,
            validate_every: 1,
            early_stop_patience: 1,
            synchronize_timings: true,
            sleep: false,
            skipped_updates: 1,
        }
    }

    #[test]
    fn every_key_is_classified() {
        let config = comparable(&full());
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let mut found = names(&config);
        found.remove("rollout");
        found.extend(names(&config["rollout"]).iter().map(|key| format!("rollout.{key}")));
        assert_eq!(found, KEYS.iter().map(|(key, _)| key.to_string()).collect());
    }

    #[test]
    fn what_decides_results_is_named_with_both_values_and_nothing_else_is() {
        let before = comparable(&full());
        for (key, decides) in KEYS {
            let mut now = before.clone();
            *now.pointer_mut(&format!("/{}", key.replace('.', "/"))).unwrap() = json!("other");
            let found = change(&before, &now);
            assert_eq!(found.is_some(), decides == Decides::Results, "{key}");
            assert!(found.is_none_or(|change| change.key == key && change.now == Some(json!("other"))), "{key}");
        }
        let now = TrainConfig { learning_rate: 0.5, ..full() };
        let message = now.change_from(&full()).unwrap().to_string();
        assert_eq!(message, "this run had another `learning_rate`: 1.0, not 0.5");
        let now = TrainConfig { importance_sampling: None, ..full() };
        assert!(now.change_from(&full()).unwrap().to_string().ends_with(", not left out"));
        let deeper = TrainConfig { optimizer: AdamWConfig { beta1: 0.5, ..full().optimizer }, ..full() };
        assert_eq!(deeper.change_from(&full()).unwrap().key, "optimizer.beta1");
    }

    #[test]
    fn the_same_said_in_another_way_is_the_same() {
        let left_out = TrainConfig { rollout_dtype: None, mini_batch_size: 0, kv_cache_memory_bytes: None, ..full() };
        let said = TrainConfig { rollout_dtype: Some(WeightDtype::F32), mini_batch_size: 4, ..full() };
        assert_eq!(left_out.change_from(&said), None);
        assert_eq!(said.change_from(&left_out), None);
    }
}
