//! Rollouts collected beside an update: always with the same old weights, whatever takes how long.

mod fixture;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fixture::{Fixture, Letters, RunEnd, config, metrics, run, step};
use zerosearch_algorithms::{
    Advantages, Algorithm, AlgorithmError, Grpo, ImportanceSampling, LossInputs, LossTerms, RewardBatch, TokenLoss,
};
use zerosearch_lm::HostWeights;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_train::{OldLogprobs, TrainConfig};

fn stale(staleness: u64, algorithm: &str) -> TrainConfig {
    TrainConfig { staleness, steps: 6, learning_rate: 0.01, ..config(algorithm) }
}

fn whole_run(fixture: &Fixture, config: &TrainConfig, folder: &Path) -> HostWeights {
    let mut trainer = fixture.trainer_in(folder, config.clone());
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
    trainer.model().unwrap().into_weights()
}

#[test]
fn the_weights_that_sample_a_step_are_fixed_by_the_staleness() {
    let fixture = Fixture::new();
    for staleness in 0..4 {
        let mut trainer = fixture.trainer(stale(staleness, "grpo"));
        for done in 0..6_u64 {
            let report = step(&mut trainer);
            let age = done.min(staleness);
            assert_eq!(report.metrics.get("rollout/staleness"), Some(age as f64), "step {done}");
            let versions = report.samples.iter().flat_map(|sample| sample.rollout.trajectory.versions());
            assert!(versions.map(|(version, _)| version.0).all(|version| version == done - age), "step {done}");
        }
    }
}

/// GRPO that finishes no loss of the first step before an episode of the second has been rewarded, and the rewards that tell it.
#[derive(Clone, Debug, Default)]
struct Meeting {
    rewarded: Arc<AtomicUsize>,
}

impl RewardFn for Meeting {
    fn name(&self) -> &str {
        "meeting"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.rewarded.fetch_add(1, Ordering::SeqCst);
        Letters.reward(episode)
    }
}

impl Algorithm for Meeting {
    fn name(&self) -> &'static str {
        "meeting"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        Grpo::default().advantages(batch)
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        let began = Instant::now();
        while self.rewarded.load(Ordering::SeqCst) <= 6 {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is collected beside the update");
            std::thread::yield_now();
        }
        Grpo::default().token_loss(inputs)
    }

    fn terms(&self) -> LossTerms {
        Grpo::default().terms()
    }
}

#[test]
fn the_rollouts_of_the_next_step_are_collected_beside_the_update() {
    let fixture = Fixture::new();
    let meeting = Meeting::default();
    let builder = fixture.builder(stale(1, "grpo")).reward(meeting.clone()).algorithm(meeting.clone());
    let mut trainer = builder.build().unwrap();
    step(&mut trainer);
    assert_eq!(meeting.rewarded.load(Ordering::SeqCst), 12);
}

#[test]
fn a_stale_run_is_the_same_every_time_and_another_than_a_fresh_one() {
    let fixture = Fixture::new();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = whole_run(&fixture, &stale(1, "ppo"), folders[0].path());
    let second = whole_run(&fixture, &stale(1, "ppo"), folders[1].path());
    assert_eq!(first, second);
    assert_eq!(metrics(folders[0].path()), metrics(folders[1].path()));
    let fresh = whole_run(&fixture, &stale(0, "ppo"), folders[2].path());
    assert_ne!(first, fresh);
    // The first step is the same for both: nothing has been updated before it.
    let without_age = |folder: &Path| -> Vec<(String, String)> { metrics(folder).swap_remove(0) };
    assert_eq!(without_age(folders[0].path()), without_age(folders[2].path()));
}

#[test]
fn a_stale_run_that_was_cut_short_goes_on_with_the_rollouts_it_had() {
    let fixture = Fixture::new();
    for (staleness, algorithm) in [(1, "grpo"), (2, "remax"), (1, "dapo")] {
        // The checkpoint that is taken up is one step older than the end: the last step is lost, as by a kill.
        let config = TrainConfig { checkpoint_every: 2, ..stale(staleness, algorithm) };
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = whole_run(&fixture, &config, whole.path());
        {
            let mut killed = fixture.trainer_in(cut.path(), config.clone());
            assert_eq!(run(&mut killed, 2), RunEnd::Interrupted);
            step(&mut killed);
        }
        let mut resumed = fixture.trainer_in(cut.path(), config);
        assert_eq!(resumed.steps_done(), 2);
        assert_eq!(run(&mut resumed, u64::MAX), RunEnd::Finished);
        assert_eq!(resumed.model().unwrap().into_weights(), expected, "{algorithm}");
        assert_eq!(metrics(cut.path()), metrics(whole.path()), "{algorithm}");
    }
}

#[test]
fn rollouts_collected_ahead_that_were_cut_short_on_disk_are_an_error_that_names_the_file() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    run(&mut fixture.trainer_in(folder.path(), stale(1, "grpo")), 2);
    let path = folder.path().join("checkpoints/global_step_2/rollouts_ahead.json");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let resumed = fixture.builder(stale(1, "grpo")).checkpoints(folder.path().join("checkpoints")).build();
    let message = resumed.err().unwrap().to_string();
    assert!(message.contains("rollouts_ahead.json") && message.contains("cut short"), "{message}");
}

#[test]
fn stale_samples_are_importance_corrected() {
    let fixture = Fixture::new();
    let corrected = TrainConfig {
        old_logprobs: OldLogprobs::Recomputed,
        importance_sampling: Some(ImportanceSampling { cap: 1.01, ..ImportanceSampling::default() }),
        ..stale(1, "grpo")
    };
    let mut trainer = fixture.trainer(corrected);
    let figures = [0; 3].map(|_| {
        let metrics = step(&mut trainer).metrics;
        ["rollout/is_truncated", "rollout/logprob_gap", "actor/ppo_kl"].map(|name| metrics.get(name).unwrap())
    });
    assert_eq!(figures[0][0], 0.0, "the first rollouts are fresh");
    for [truncated, gap, ppo_kl] in &figures[1..] {
        assert!(*truncated > 0.0 && *gap > 1e-4, "{figures:?}");
        assert_eq!(*ppo_kl, 0.0, "the loss starts from the present policy");
    }
}
