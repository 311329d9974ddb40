//! Recorded rollouts go through reward, advantage and loss again without a generator.

mod fixture;

use fixture::{Fixture, Letters, config, run, step};
use zerosearch_algorithms::{AlgorithmConfig, Baseline, Reinforce};
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_train::{Sample, TrainConfig, latest_config, read_samples, rescore, samples_path};

struct Turns;

impl RewardFn for Turns {
    fn name(&self) -> &str {
        "turns"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        episode.policy_turns.len() as f32
    }
}

/// All rollouts of a run's steps, and the configuration that its checkpoint names.
fn recorded(fixture: &Fixture, config: TrainConfig) -> (Vec<Sample>, TrainConfig) {
    let folder = tempfile::tempdir().unwrap();
    run(&mut fixture.trainer_in(folder.path(), config), 3);
    let of_step = |step| read_samples(samples_path(folder.path().join("rollouts"), step)).unwrap();
    ((1..=3).flat_map(of_step).collect(), latest_config(folder.path().join("checkpoints")).unwrap().unwrap())
}

#[test]
fn the_recorded_reward_and_algorithm_give_the_recorded_advantages() {
    let fixture = Fixture::new();
    let running = Reinforce { baseline: Baseline::Running { decay: 0.5 }, ..Reinforce::default() };
    let running = TrainConfig { algorithm: AlgorithmConfig::Reinforce(running), ..config("rloo") };
    for config in [config("grpo"), config("dapo"), config("reinforce_pp"), running] {
        let (samples, recorded) = recorded(&fixture, config.clone());
        assert_eq!(recorded, config);
        assert_eq!(samples.len(), 18);
        let mut algorithm = recorded.algorithm.build().unwrap();
        assert_eq!(rescore(&samples, &Letters, algorithm.as_mut()).unwrap(), samples, "{algorithm:?}");
    }
}

#[test]
fn another_reward_is_paid_to_the_same_rollouts() {
    let fixture = Fixture::new();
    let (samples, config) = recorded(&fixture, config("grpo"));
    let rescored = rescore(&samples, &Turns, config.algorithm.build().unwrap().as_mut()).unwrap();
    for (before, after) in samples.iter().zip(&rescored) {
        assert_eq!((before.step, &before.rollout), (after.step, &after.rollout));
        assert_eq!(after.reward, before.rollout.policy_turns().len() as f32);
        assert_eq!(after.advantages.len(), before.advantages.len());
    }
    assert!(samples.iter().zip(&rescored).any(|(before, after)| before.advantages != after.advantages));
}

#[test]
fn what_was_not_recorded_is_named() {
    let fixture = Fixture::new();
    let (samples, _) = recorded(&fixture, config("grpo"));
    for (name, missing) in [("ppo", "values"), ("remax", "baselines")] {
        let mut algorithm = config(name).algorithm.build().unwrap();
        let message = rescore(&samples, &Letters, algorithm.as_mut()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(missing), "{message}");
    }
}

#[test]
fn a_replayed_step_is_the_step() {
    let fixture = Fixture::new();
    for algorithm in ["grpo", "ppo", "dapo"] {
        let mut first = fixture.trainer(config(algorithm));
        let mut second = fixture.trainer(config(algorithm));
        for _ in 0..2 {
            let step = step(&mut first);
            let rollouts = step.samples.iter().map(|sample| sample.rollout.clone()).collect();
            let replayed = second.replay(rollouts).unwrap();
            assert_eq!(replayed.samples, step.samples, "{algorithm}");
            for (name, value) in replayed.metrics.iter().filter(|(name, _)| !name.starts_with("timing_s")) {
                assert_eq!(step.metrics.get(name), Some(value), "{algorithm}: {name}");
            }
            assert!(replayed.metrics.get("actor/pg_loss").is_some());
            assert_eq!(second.model().unwrap().weights, first.model().unwrap().weights, "{algorithm}");
        }
        assert_eq!(second.steps_done(), 2);
    }
}
