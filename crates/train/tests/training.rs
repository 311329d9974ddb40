//! Promises of a training run, on a model of a few thousand parameters that reads nonsense.

mod fixture;

use std::path::Path;

use burn::tensor::Tensor;
use fixture::{Fixture, RunEnd, Sick, build_in, config, metrics, run, step};
use zerosearch_algorithms::{AdaptiveKl, AlgorithmConfig, KlReward};
use zerosearch_curriculum::CurriculumConfig;
use zerosearch_lm::{Decoder, Gradients, HostWeights, LoraConfig, ScoredSequence, StoredDtype, Weight};
use zerosearch_train::{TrainConfig, TrainError, Trainer, latest_step, read_samples, samples_path};

/// Runs once without and once with an interruption after the second step, in two folders, and asserts that weights and
/// metrics are the same. Returns the trained weights.
fn resumes_exactly(fixture: &Fixture, config: &TrainConfig, whole: &Path, parts: &Path) -> HostWeights {
    let algorithm = &config.algorithm;
    let mut trainer = fixture.trainer_in(whole, config.clone());
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
    assert_ne!(trainer.model().unwrap().weights, fixture.model.weights, "{algorithm:?} changed nothing");

    assert_eq!(run(&mut fixture.trainer_in(parts, config.clone()), 2), RunEnd::Interrupted);
    let mut second = fixture.trainer_in(parts, config.clone());
    assert_eq!(second.steps_done(), 2);
    assert_eq!(run(&mut second, u64::MAX), RunEnd::Finished);

    assert_eq!(second.model().unwrap().weights, trainer.model().unwrap().weights, "{algorithm:?}");
    assert_eq!(metrics(parts), metrics(whole), "{algorithm:?}");
    trainer.model().unwrap().into_weights()
}

#[test]
fn an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let fixture = Fixture::new();
    for algorithm in ["reinforce", "grpo", "ppo"] {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        resumes_exactly(&fixture, &config(algorithm), whole.path(), parts.path());
        let file =
            |folder: &Path, name: &str| std::fs::read(folder.join("checkpoints/global_step_4").join(name)).unwrap();
        let mut names = vec!["actor/model.safetensors", "actor_optimizer.safetensors", "trainer.json"];
        if algorithm == "ppo" {
            names.extend(["critic.safetensors", "critic_optimizer.safetensors"]);
        }
        for name in names {
            assert_eq!(file(whole.path(), name), file(parts.path(), name), "{algorithm} {name}");
        }
    }
}

#[test]
fn every_algorithm_takes_a_step() {
    let fixture = Fixture::new();
    for algorithm in AlgorithmConfig::NAMES {
        let mut trainer = fixture.trainer(config(algorithm));
        let report = step(&mut trainer);
        let gap = report.metrics.get("rollout/logprob_gap").unwrap();
        assert!(gap < 1e-5, "{algorithm}: generator and trainer differ by {gap}");
        assert_eq!(report.samples.len(), 6);
    }
}

#[test]
fn micro_batches_do_not_change_the_update() {
    let fixture = Fixture::new();
    let weights = |budget: usize| {
        let config = TrainConfig { micro_batch_tokens: budget, ..config("grpo") };
        let mut trainer = fixture.trainer(config);
        step(&mut trainer);
        trainer.model().unwrap().weights
    };
    let (one, many) = (weights(100_000), weights(1));
    for ((name, a), (_, b)) in one.iter().zip(many.iter()) {
        let worst = a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Adam's first step is the sign of the gradient times the rate: equal gradients give equal steps, and
        // a gradient of nearly zero may be rounded to either side.
        let differing = a.values.iter().zip(&b.values).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
        assert!(
            differing * 100 <= a.values.len(),
            "{name}: {differing} of {} differ, by up to {worst}",
            a.values.len()
        );
    }
}

/// Invariant: the gradient with respect to an observation token's own log-probability is exactly zero. A head row that
/// only observations use as a target gets gradient from the softmax of trained positions alone; scoring no observation
/// position at all is what makes that so, and is checked here on the gradients themselves.
#[test]
fn an_observation_token_gets_no_gradient_of_its_own() {
    let fixture = Fixture::new();
    let decoder = Decoder::trainable(&fixture.model.config, &*fixture.model.weights, &fixture.device).unwrap();
    let tokens: Vec<u32> = (10..30).collect();
    // Positions 12..16 are an observation, the others from 5 on are the policy's.
    let trained: Vec<usize> = (5..20).filter(|p| !(12..16).contains(p)).collect();
    let all: Vec<usize> = (5..20).collect();
    let gradient = |positions: &[usize], mask: Option<Vec<f32>>| {
        let (logprobs, _) = decoder.score(&[ScoredSequence { tokens: &tokens, positions }]);
        let logprobs = match mask {
            Some(mask) => logprobs * Tensor::<1>::from_floats(mask.as_slice(), &fixture.device),
            None => logprobs,
        };
        let gradients = Gradients::of(logprobs.sum(), decoder.weights());
        match gradients.get("model.layers.1.mlp.down_proj.weight") {
            Some(Weight::Matrix(tensor)) => tensor.clone().into_data().try_to_vec::<f32>().unwrap(),
            _ => panic!("no gradient"),
        }
    };
    let masked = all.iter().map(|p| if (12..16).contains(p) { 0.0 } else { 1.0 }).collect();
    let (left_out, zeroed) = (gradient(&trained, None), gradient(&all, Some(masked)));
    for (a, b) in left_out.iter().zip(&zeroed) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn a_resume_with_another_configuration_is_refused() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 1);

    let other = TrainConfig { learning_rate: 2e-3, ..config("grpo") };
    let message = fixture.builder(other).checkpoints(checkpoints).build().err().unwrap().to_string();
    assert!(message.contains("learning_rate") && message.contains("trainer.json"), "{message}");
}

#[test]
fn a_checkpoint_cut_short_is_an_error_that_names_the_file() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 1);
    let step = latest_step(&checkpoints).unwrap().unwrap();
    for name in ["trainer.json", "actor_optimizer.safetensors", "actor/model.safetensors"] {
        let path = checkpoints.join(format!("global_step_{step}")).join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let resumed = fixture.builder(config("grpo")).checkpoints(&checkpoints).build();
        let message = resumed.err().unwrap().to_string();
        assert!(message.contains(name) && message.contains("cut short"), "{message}");
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(fixture.trainer_in(folder.path(), config("grpo")).steps_done(), 1);
}

#[test]
fn a_critic_without_its_head_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    run(&mut fixture.trainer_in(folder.path(), config("ppo")), 1);
    fixture.model.weights.write(checkpoints.join("global_step_1/critic.safetensors"), StoredDtype::F32).unwrap();
    let resumed = fixture.builder(config("ppo")).checkpoints(&checkpoints).build();
    let message = resumed.err().unwrap().to_string();
    assert!(message.contains("critic.safetensors") && message.contains("value_head.weight"), "{message}");
}

#[test]
fn what_cannot_be_trained_is_refused_before_any_work() {
    let fixture = Fixture::new();
    let message = fixture.refused(TrainConfig { samples_per_question: 1, ..config("grpo") });
    assert!(message.contains("grpo") && message.contains("samples_per_question is 1"), "{message}");
    assert!(fixture.refused(TrainConfig { learning_rate: -1.0, ..config("grpo") }).contains("learning_rate"));
    assert!(fixture.refused(TrainConfig { steps: 0, ..config("grpo") }).contains("steps"));
    let curriculum = CurriculumConfig::Exponential { start: 1.5, end: 0.5, base: 4.0 };
    assert!(fixture.refused(TrainConfig { curriculum, ..config("grpo") }).contains("1.5"));
    let curriculum = CurriculumConfig::Exponential { start: 0.0, end: 0.5, base: 0.0 };
    assert!(fixture.refused(TrainConfig { curriculum, ..config("grpo") }).contains('0'));
    let nothing = Trainer::builder(fixture.model.clone(), [], fixture.engine.clone()).config(config("grpo"));
    assert!(matches!(nothing.build(), Err(TrainError::NoQuestions)));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let fixture = Fixture::new();
    let trainer = fixture.builder(config("grpo")).checkpoints("/proc/nowhere").build().unwrap();
    let message = trainer.checkpoint().unwrap_err().to_string();
    assert!(message.contains("/proc/nowhere"), "{message}");
    let message = fixture.trainer(config("grpo")).checkpoint().unwrap_err().to_string();
    assert!(message.contains("without a folder"), "{message}");
}

#[test]
fn an_update_that_is_not_finite_is_skipped_counted_and_kept_for_reading() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let sick = |at| fixture.builder(config("grpo")).algorithm(Sick { calls: 0.into(), at });
    let mut trainer = build_in(folder.path(), sick(1..2));
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
    assert_ne!(trainer.model().unwrap().weights, fixture.model.weights);
    let kept = read_samples(samples_path(folder.path().join("checkpoints/not_finite"), 2)).unwrap();
    assert_eq!(kept.len(), 6);
    assert!(kept.iter().all(|sample| sample.advantages.is_empty()));

    // Four in a row are one too many, and the weights are what they were.
    let mut trainer = sick(0..usize::MAX).build().unwrap();
    for _ in 0..3 {
        assert_eq!(step(&mut trainer).metrics.get("actor/skipped_update"), Some(1.0));
    }
    let error = trainer.next_step().err().unwrap().to_string();
    assert!(error.contains("loss NaN"), "{error}");
    assert!(matches!(trainer.next_step(), Err(TrainError::Broken)));
    assert_eq!(trainer.model().unwrap().weights, fixture.model.weights);
}

#[test]
fn validation_keeps_the_best_checkpoint_and_stops_when_nothing_improves() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        steps: 20,
        validate_every: 1,
        early_stop_patience: 3,
        keep_checkpoints: 1,
        checkpoint_every: 1,
        ..config("grpo")
    };
    let trainer_in = |folder| build_in(folder, fixture.builder(config.clone()).validation(fixture.validation()));
    let mut trainer = trainer_in(folder.path());
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
    // An untrained model answers nothing: the first validation stays the best.
    assert_eq!(trainer.steps_done(), 4);
    let rows = metrics(folder.path());
    assert!(rows.iter().all(|row| row.iter().any(|(name, _)| name == "val/f1")));
    assert!(folder.path().join("checkpoints/global_step_1").exists(), "the best one");
    assert!(folder.path().join("checkpoints/global_step_4").exists(), "the last one");
    assert!(!folder.path().join("checkpoints/global_step_3").exists());

    let mut resumed = trainer_in(folder.path());
    assert_eq!(run(&mut resumed, u64::MAX), RunEnd::Finished);
    assert_eq!(resumed.steps_done(), 4, "a run that has stopped stays stopped");
}

#[test]
fn a_penalty_in_the_reward_is_paid_adapts_and_survives_a_resume() {
    let fixture = Fixture::new();
    let adaptive = Some(AdaptiveKl { target: 1e-4, horizon: 60.0 });
    let config = TrainConfig { kl_reward: KlReward { coefficient: 0.5, adaptive }, ..config("rloo") };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    resumes_exactly(&fixture, &config, whole.path(), parts.path());
    let rows = metrics(whole.path());
    let figure =
        |row: usize, name: &str| -> f64 { rows[row].iter().find(|(key, _)| key == name).unwrap().1.parse().unwrap() };
    // At the first step the policy is the reference: nothing to pay, so the coefficient comes down.
    assert!(figure(0, "actor/reward_kl_penalty").abs() < 1e-6);
    assert!((figure(1, "actor/reward_kl_penalty_coeff") - 0.5 * 0.98).abs() < 1e-9);
    let paid = figure(3, "critic/score/mean") - figure(3, "critic/rewards/mean");
    assert!(paid != 0.0, "after three steps there is a distance to pay for");
}

#[test]
fn adapters_are_trained_alone_and_a_resumed_run_equals_an_uninterrupted_one() {
    let fixture = Fixture::new();
    let lora = Some(LoraConfig { rank: 2, dropout: 0.1, ..LoraConfig::default() });
    let config = TrainConfig { lora, ..config("grpo") };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = resumes_exactly(&fixture, &config, whole.path(), parts.path());
    for (name, before) in fixture.model.weights.iter() {
        let adapted = name.contains("_proj.");
        assert_eq!(trained.get(name) != Some(before), adapted, "{name}");
    }
    assert!(whole.path().join("checkpoints/global_step_4/actor/lora_adapter/adapter_config.json").exists());
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = TrainConfig { lora: Some(LoraConfig { rank: 2, ..LoraConfig::default() }), ..config };
    assert!(resumes_exactly(&fixture, &config, whole.path(), parts.path()) != trained, "dropout is on in training");
}
