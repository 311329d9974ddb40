//! Promises of an update: mini-batches, old log-probabilities, corrections and masks, on a model that reads nonsense.

mod fixture;

use fixture::{Fixture, Sick, config, step};
use zerosearch_algorithms::{Aggregation, AlgorithmConfig, ImportanceMode, ImportanceSampling, Reinforce};
use zerosearch_generate::{SampledToken, Sampling};
use zerosearch_lm::{AdamWConfig, HostWeights, LoraConfig};
use zerosearch_metrics::Metrics;
use zerosearch_rollout::{Rollout, RolloutConfig};
use zerosearch_train::{LrSchedulerType, OldLogprobs, TrainConfig};
use zerosearch_trajectory::{Segment, Trajectory};

/// An optimizer whose steps follow the gradient's size, so that rounding stays rounding.
const SMOOTH: AdamWConfig = AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1.0, weight_decay: 0.0 };

fn first_step(fixture: &Fixture, config: TrainConfig) -> (Metrics, HostWeights) {
    let mut trainer = fixture.trainer(config);
    let report = step(&mut trainer);
    (report.metrics, trainer.model().unwrap().into_weights())
}

fn largest_difference(a: &HostWeights, b: &HostWeights) -> f32 {
    let pairs = a.iter().zip(b.iter()).flat_map(|((_, a), (_, b))| a.values.iter().zip(&b.values));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn figure(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn micro_batches_do_not_change_mini_batches_ragged_ends_included() {
    let fixture = Fixture::new();
    for algorithm in ["grpo", "dapo", "ppo"] {
        let weights = |budget: usize, mini_batch_size: usize| {
            let config = TrainConfig {
                micro_batch_tokens: budget,
                // Nine rollouts in mini-batches of six and three.
                questions_per_step: 3,
                mini_batch_size,
                epochs: 2,
                optimizer: SMOOTH,
                learning_rate: 0.1,
                critic_learning_rate: 0.1,
                ..config(algorithm)
            };
            first_step(&fixture, config).1
        };
        let (one, many, whole) = (weights(100_000, 2), weights(1, 2), weights(100_000, 0));
        let moved = largest_difference(&one, &fixture.model.weights);
        assert!(largest_difference(&one, &many) < 1e-3 * moved, "{algorithm}: moved by {moved}");
        assert!(largest_difference(&one, &whole) > 1e-3 * moved, "{algorithm}: mini-batches change nothing");
    }
}

#[test]
fn figures_are_means_over_all_updates() {
    let fixture = Fixture::new();
    // At a rate that rounds to nothing every update sees the same policy.
    let still = |mini_batch_size, epochs, algorithm| TrainConfig {
        questions_per_step: 3,
        mini_batch_size,
        epochs,
        learning_rate: 1e-300,
        critic_learning_rate: 1e-300,
        optimizer: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() },
        ..config(algorithm)
    };
    // REINFORCE over sequences: each sequence weighs the same in the batch and in its mini-batch.
    let aggregation = Aggregation::SequenceMean;
    let algorithm = AlgorithmConfig::Reinforce(Reinforce { aggregation, ..Default::default() });
    let reinforce = TrainConfig { algorithm, ..still(0, 1, "reinforce") };
    let whole = first_step(&fixture, reinforce.clone()).0;
    let parts = first_step(&fixture, TrainConfig { mini_batch_size: 2, epochs: 3, ..reinforce }).0;
    assert_eq!((figure(&whole, "actor/updates"), figure(&parts, "actor/updates")), (1.0, 6.0));
    for name in ["actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/pg_clipfrac", "actor/ppo_kl"] {
        let (whole, parts) = (figure(&whole, name), figure(&parts, name));
        assert!((whole - parts).abs() < 1e-5 * whole.abs().max(0.1), "{name}: {whole}, {parts}");
    }
    let (once, twice) = (first_step(&fixture, still(0, 1, "ppo")).0, first_step(&fixture, still(0, 2, "ppo")).0);
    for name in ["critic/vf_loss", "critic/grad_norm", "actor/grad_norm", "critic/lr"] {
        assert_eq!(figure(&once, name), figure(&twice, name), "{name}");
    }
}

#[test]
fn the_gap_to_the_generator_is_that_before_the_first_update() {
    let fixture = Fixture::new();
    let config = TrainConfig { mini_batch_size: 1, epochs: 4, learning_rate: 0.05, ..config("grpo") };
    let metrics = first_step(&fixture, config).0;
    assert!(figure(&metrics, "rollout/logprob_gap") < 1e-5);
    assert!(figure(&metrics, "actor/ppo_kl").abs() > 1e-5, "the later updates did move");
}

#[test]
fn the_rate_decays_over_the_steps() {
    let fixture = Fixture::new();
    let config = TrainConfig {
        learning_rate: 0.01,
        critic_learning_rate: 0.02,
        critic_warmup_ratio: 0.0,
        lr_scheduler_type: LrSchedulerType::Linear,
        critic_lr_scheduler_type: LrSchedulerType::Cosine,
        ..config("ppo")
    };
    let mut trainer = fixture.trainer(config);
    let rates = [0; 4].map(|_| {
        let metrics = step(&mut trainer).metrics;
        (figure(&metrics, "actor/lr"), figure(&metrics, "critic/lr"))
    });
    let expected = [(0.01, 0.02), (0.0075, 0.017_071_068), (0.005, 0.01), (0.0025, 0.002_928_932)];
    for (found, expected) in rates.iter().zip(expected) {
        assert!((found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-8, "{rates:?}");
    }
}

#[test]
fn impossible_hyper_parameters_are_refused_by_name_before_any_work() {
    let fixture = Fixture::new();
    let message = fixture.refused(TrainConfig { mini_batch_size: 3, ..config("grpo") });
    assert!(message.contains("`mini_batch_size` is 3") && message.contains("questions_per_step"), "{message}");
    let valid = || config("grpo");
    let optimizer = AdamWConfig::default();
    let algorithm = |text| serde_json::from_str(text).unwrap();
    for (key, config) in [
        ("`epochs` is 0", TrainConfig { epochs: 0, ..valid() }),
        ("`warmup_ratio` is 1.5", TrainConfig { warmup_ratio: 1.5, ..valid() }),
        ("`gradient_norm` is 0", TrainConfig { gradient_norm: 0.0, ..valid() }),
        ("`critic_learning_rate` is inf", TrainConfig { critic_learning_rate: f64::INFINITY, ..valid() }),
        ("`optimizer.beta2` is 1", TrainConfig { optimizer: AdamWConfig { beta2: 1.0, ..optimizer }, ..valid() }),
        (
            "`optimizer.weight_decay` is -0.1",
            TrainConfig { optimizer: AdamWConfig { weight_decay: -0.1, ..optimizer }, ..valid() },
        ),
        (
            "`clip.low` is -0.2",
            TrainConfig { algorithm: algorithm(r#"{"name": "grpo", "clip": {"low": -0.2, "high": 0.2}}"#), ..valid() },
        ),
        ("`gamma` is 1.5", TrainConfig { algorithm: algorithm(r#"{"name": "ppo", "gamma": 1.5}"#), ..valid() }),
    ] {
        let message = fixture.refused(config);
        assert!(message.contains(key), "{key}: {message}");
    }
}

#[test]
fn the_keys_are_written_as_the_documentation_says() {
    let text = r#"{
        "lr_scheduler_type": "cosine", "critic_lr_scheduler_type": "constant_with_warmup", "old_logprobs": "recomputed",
        "importance_sampling": {"mode": "sequence_mask", "cap": 3.0, "floor": 0.5}, "mini_batch_size": 16, "staleness": 1,
        "max_num_gen_batches": 4, "mask_truncated_completions": true, "mask_invalid_completions": true,
        "skip_zero_advantages": true
    }"#;
    let found: TrainConfig = serde_json::from_str(text).unwrap();
    let expected = TrainConfig {
        lr_scheduler_type: LrSchedulerType::Cosine,
        old_logprobs: OldLogprobs::Recomputed,
        importance_sampling: Some(ImportanceSampling { mode: ImportanceMode::SequenceMask, cap: 3.0, floor: 0.5 }),
        mini_batch_size: 16,
        staleness: 1,
        max_num_gen_batches: 4,
        mask_truncated_completions: true,
        mask_invalid_completions: true,
        skip_zero_advantages: true,
        ..TrainConfig::default()
    };
    assert_eq!(found, expected);
    found.validate().unwrap();
    let error = serde_json::from_str::<TrainConfig>(r#"{"lr_scheduler_type": "polynomial"}"#).unwrap_err().to_string();
    assert!(error.contains("polynomial") && error.contains("cosine"), "{error}");
}

#[test]
fn a_single_sample_is_refused_by_every_algorithm_that_compares() {
    let fixture = Fixture::new();
    let mut compare = Vec::new();
    for name in AlgorithmConfig::NAMES {
        let single = TrainConfig { samples_per_question: 1, ..config(name) };
        if let Err(error) = fixture.builder(single).build() {
            assert!(error.to_string().contains("samples_per_question is 1"), "{error}");
            compare.push(*name);
        }
    }
    assert_eq!(compare, ["rloo", "opo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"]);
}

#[test]
fn after_an_update_that_is_not_finite_the_rest_of_the_step_is_left_out() {
    let fixture = Fixture::new();
    let config = TrainConfig { mini_batch_size: 1, epochs: 2, ..config("grpo") };
    let mut trainer = fixture.builder(config).algorithm(Sick { calls: 0.into(), at: 1..2 }).build().unwrap();
    let metrics = step(&mut trainer).metrics;
    assert_eq!((figure(&metrics, "actor/skipped_update"), figure(&metrics, "actor/updates")), (1.0, 1.0));
    let weights = trainer.model().unwrap().weights;
    assert!(weights.iter().all(|(_, tensor)| tensor.values.iter().all(|value| value.is_finite())));
    assert_ne!(weights, fixture.model.weights, "the first update was sound");
    let metrics = step(&mut trainer).metrics;
    assert_eq!((figure(&metrics, "actor/skipped_update"), figure(&metrics, "actor/updates")), (0.0, 4.0));
}

#[test]
fn gradient_checkpointing_changes_no_bit_of_policy_or_critic() {
    let fixture = Fixture::new();
    for algorithm in ["grpo", "ppo"] {
        let config = TrainConfig { micro_batch_tokens: 200, ..config(algorithm) };
        let run = |gradient_checkpointing| {
            let config = TrainConfig { gradient_checkpointing, ..config.clone() };
            let mut trainer = fixture.trainer(config);
            // The second step's values are those of a critic that has learnt.
            let metrics = [(); 2].map(|()| step(&mut trainer).metrics);
            let loss = metrics[1].get("critic/vf_loss");
            (trainer.model().unwrap().into_weights(), loss)
        };
        assert!(run(false) == run(true), "{algorithm}");
    }
}

#[test]
fn mini_batches_are_drawn_again_alike() {
    let fixture = Fixture::new();
    let config = |seed| TrainConfig { mini_batch_size: 1, epochs: 2, seed, ..config("grpo") };
    assert_eq!(first_step(&fixture, config(3)).1, first_step(&fixture, config(3)).1);
}

#[test]
fn recomputed_log_probabilities_are_those_of_the_training_forward() {
    let fixture = Fixture::new();
    for lora in [None, Some(LoraConfig { rank: 2, ..LoraConfig::default() })] {
        let config = TrainConfig { old_logprobs: OldLogprobs::Recomputed, lora, ..config("grpo") };
        let mut trainer = fixture.trainer(config);
        for _ in 0..2 {
            let metrics = step(&mut trainer).metrics;
            // The same numbers to the last bit: every ratio of the only update is 1.
            assert_eq!(figure(&metrics, "actor/ppo_kl"), 0.0);
            assert_eq!(figure(&metrics, "rollout/logprob_gap_max"), 0.0);
        }
    }
    let recomputed = TrainConfig { old_logprobs: OldLogprobs::Recomputed, ..config("grpo") };
    let (recorded, recomputed) = (first_step(&fixture, config("grpo")).1, first_step(&fixture, recomputed).1);
    assert_ne!(recorded, *fixture.model.weights);
    assert_eq!(recorded, recomputed);
}

#[test]
fn importance_sampling_leaves_equal_policies_alone_and_counts_what_a_band_keeps_out() {
    let fixture = Fixture::new();
    let corrected = |mode, cap, floor| TrainConfig {
        old_logprobs: OldLogprobs::Recomputed,
        importance_sampling: Some(ImportanceSampling { mode, cap, floor }),
        optimizer: SMOOTH,
        ..config("dapo")
    };
    let plain = TrainConfig { importance_sampling: None, ..corrected(ImportanceMode::TokenTruncate, 2.0, 0.0) };
    let plain = first_step(&fixture, plain).1;
    for mode in [ImportanceMode::TokenTruncate, ImportanceMode::SequenceMask] {
        let (metrics, weights) = first_step(&fixture, corrected(mode, 2.0, 0.0));
        assert_eq!(figure(&metrics, "rollout/is_weight/mean"), 1.0);
        assert_eq!((figure(&metrics, "rollout/is_truncated"), figure(&metrics, "rollout/is_masked")), (0.0, 0.0));
        assert_eq!(weights, plain);
    }
    // Generator and trainer agree to the bit, so that even a band of no width lets everything pass.
    let (metrics, weights) = first_step(&fixture, corrected(ImportanceMode::TokenMask, 1.0, 1.0));
    assert_eq!((figure(&metrics, "rollout/is_weight/mean"), figure(&metrics, "rollout/is_masked")), (1.0, 0.0));
    assert_eq!(weights, plain);
    // Older weights sampled the second step's rollouts, if it is stale: not all of them are in such a band.
    let stale = TrainConfig { staleness: 1, ..corrected(ImportanceMode::TokenMask, 1.0, 1.0) };
    let mut trainer = fixture.trainer(stale);
    step(&mut trainer);
    let metrics = step(&mut trainer).metrics;
    let masked = figure(&metrics, "rollout/is_masked");
    assert!(masked > 0.0 && masked <= 1.0);
    assert!(figure(&metrics, "rollout/is_weight/mean") <= 1.0 - masked + 1e-6);
}

/// Rollouts that are said to have been drawn with other probabilities than the policy's: their ratios are ½, 1 and 4 in turn.
fn drawn_otherwise(rollout: &Rollout) -> Rollout {
    let mut rollout = rollout.clone();
    let mut trajectory = Trajectory::new(Vec::new());
    let mut ratios = [0.5f32, 1.0, 4.0].into_iter().cycle();
    for segment in rollout.trajectory.segments() {
        let mut segment = segment.clone();
        if let Segment::Policy { tokens, .. } = &mut segment {
            for (token, ratio) in tokens.iter_mut().zip(ratios.by_ref()) {
                token.sampling_logprob = Some(token.logprob - ratio.ln());
            }
        }
        trajectory.push(segment);
    }
    rollout.trajectory = trajectory;
    rollout
}

#[test]
fn importance_weights_compare_the_policy_with_what_was_drawn_from() {
    let fixture = Fixture::new();
    let corrected = |mode, cap, floor| TrainConfig {
        old_logprobs: OldLogprobs::Recomputed,
        importance_sampling: Some(ImportanceSampling { mode, cap, floor }),
        ..config("grpo")
    };
    let rollouts: Vec<Rollout> =
        step(&mut fixture.trainer(config("grpo"))).samples.into_iter().map(|s| s.rollout).collect();
    let replay = |config: TrainConfig| {
        fixture.trainer(config).replay(rollouts.iter().map(drawn_otherwise).collect()).unwrap().metrics
    };
    let near = |metrics: &Metrics, name: &str, expected: f64| {
        let found = figure(metrics, name);
        assert!((found - expected).abs() < 1e-5, "{name}: {found}, {expected}");
    };
    let metrics = replay(corrected(ImportanceMode::TokenTruncate, 2.0, 0.0));
    near(&metrics, "rollout/is_weight/min", 0.5);
    near(&metrics, "rollout/is_weight/max", 2.0);
    assert!((figure(&metrics, "rollout/is_truncated") - 1.0 / 3.0).abs() < 0.05);
    let metrics = replay(corrected(ImportanceMode::TokenMask, 3.0, 0.75));
    near(&metrics, "rollout/is_weight/max", 1.0);
    assert!((figure(&metrics, "rollout/is_masked") - 2.0 / 3.0).abs() < 0.05);
    // Generator and trainer are compared at temperature 1 all the same, and so is the policy with itself.
    assert_eq!(figure(&metrics, "rollout/logprob_gap_max"), 0.0);
    assert_eq!(figure(&metrics, "actor/ppo_kl"), 0.0);
}

#[test]
fn every_temperature_and_truncation_has_the_weights_of_its_distribution() {
    let fixture = Fixture::new();
    for sampling in [
        Sampling::default(),
        Sampling::temperature(0.5),
        Sampling::temperature(1.5),
        Sampling::temperature(1e-3),
        Sampling { top_k: 3, ..Sampling::default() },
        Sampling { top_p: 0.5, ..Sampling::default() },
        Sampling { min_p: 0.5, temperature: 0.7, ..Sampling::default() },
        Sampling { min_new_tokens: 2, ..Sampling::default() },
    ] {
        let base = config("grpo");
        let config = TrainConfig {
            old_logprobs: OldLogprobs::Recomputed,
            importance_sampling: Some(ImportanceSampling { cap: 1e6, ..ImportanceSampling::default() }),
            rollout: RolloutConfig { sampling, ..base.rollout },
            ..base
        };
        let report = step(&mut fixture.trainer(config));
        let tokens = report.samples.iter().filter(|sample| !sample.advantages.is_empty());
        let tokens: Vec<SampledToken> =
            tokens.flat_map(|sample| sample.rollout.trajectory.sampled().copied()).collect();
        let mean =
            tokens.iter().map(|token| f64::from(token.logprob - token.sampling_logprob.unwrap_or(token.logprob)).exp());
        let (mean, found) =
            (mean.sum::<f64>() / tokens.len() as f64, figure(&report.metrics, "rollout/is_weight/mean"));
        assert!((found - mean).abs() < 1e-5 * mean, "{sampling:?}: {found}, {mean}");
        let untouched = sampling == Sampling::default();
        assert_eq!(untouched, tokens.iter().all(|token| token.sampling_logprob.is_none()), "{sampling:?}");
        assert_eq!(untouched, found == 1.0, "{sampling:?}: {found}");
        assert_eq!(figure(&report.metrics, "rollout/logprob_gap_max"), 0.0, "{sampling:?}");
    }
}

#[test]
fn weights_that_cannot_be_known_are_refused_by_name() {
    let fixture = Fixture::new();
    let base = config("grpo");
    let corrected = |sampling| TrainConfig {
        old_logprobs: OldLogprobs::Recomputed,
        importance_sampling: Some(ImportanceSampling::default()),
        rollout: RolloutConfig { sampling, ..base.rollout },
        ..base.clone()
    };
    let message = fixture.refused(corrected(Sampling::greedy()));
    assert!(
        message.contains("`rollout.sampling.temperature` is 0") && message.contains("importance_sampling"),
        "{message}"
    );
    // As of a server that says at which temperature 1 a token has which log-probability, and nothing else.
    let rollouts: Vec<Rollout> =
        step(&mut fixture.trainer(base.clone())).samples.into_iter().map(|s| s.rollout).collect();
    let mut trainer = fixture.trainer(corrected(Sampling::temperature(0.5)));
    let message = trainer.replay(rollouts.clone()).unwrap_err().to_string();
    assert!(message.contains("importance_sampling") && message.contains("temperature 0.5"), "{message}");
    fixture.trainer(corrected(Sampling::default())).replay(rollouts).unwrap();
}

#[test]
fn importance_sampling_without_anything_to_compare_is_refused() {
    let fixture = Fixture::new();
    let on = |cap| Some(ImportanceSampling { cap, ..ImportanceSampling::default() });
    let message = fixture.refused(TrainConfig { importance_sampling: on(2.0), ..config("grpo") });
    assert!(message.contains("`old_logprobs` is \"generator\"") && message.contains("recomputed"), "{message}");
    let recomputed = TrainConfig { old_logprobs: OldLogprobs::Recomputed, ..config("grpo") };
    let message = fixture.refused(TrainConfig { importance_sampling: on(0.5), ..recomputed });
    assert!(message.contains("importance_sampling") && message.contains("`cap` is 0.5"), "{message}");
}

#[test]
fn a_bound_on_the_caches_memory_changes_no_weight() {
    let fixture = Fixture::new();
    let steps = |kv_cache_memory_bytes| {
        let config = TrainConfig { kv_cache_memory_bytes, ..config("grpo") };
        let mut trainer = fixture.trainer(config);
        step(&mut trainer);
        let metrics = step(&mut trainer).metrics;
        (
            trainer.model().unwrap().weights,
            figure(&metrics, "rollout/kv_cache_peak_mb"),
            figure(&metrics, "rollout/kv_cache_evicted"),
        )
    };
    let (expected, peak, evicted) = steps(None);
    assert_eq!(evicted, 0.0);
    let (found, bounded, evicted) = steps(Some((peak * 1e6 * 0.6) as usize));
    assert!(bounded <= peak * 0.6 && evicted > 0.0, "{bounded} of {peak} MB, {evicted} evicted");
    assert!(found == expected);
}
