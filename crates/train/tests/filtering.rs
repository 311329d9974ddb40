//! Which rollouts a step learns from: groups without signal are replaced, cut-off and invalid rollouts masked, all counted.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, Letters, config, metrics, run};
use zerosearch_metrics::Metrics;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::RolloutConfig;
use zerosearch_train::{Parts, RunEnd, StepReport, TrainConfig, Trainer};

/// One question earns the same whatever is written; the others earn letters.
struct OneDullQuestion;

const DULL: &str = "who is there";

impl RewardFn for OneDullQuestion {
    fn name(&self) -> &str {
        "one_dull_question"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        if episode.question == DULL { 1.0 } else { Letters.reward(episode) }
    }
}

/// Nothing is ever better than anything else.
struct Dull;

impl RewardFn for Dull {
    fn name(&self) -> &str {
        "dull"
    }

    fn reward(&self, _: &Episode<'_>) -> f32 {
        0.5
    }
}

fn figures<const N: usize>(metrics: &Metrics, names: [&str; N]) -> [f64; N] {
    names.map(|name| metrics.get(name).unwrap_or_else(|| panic!("no {name}")))
}

const COUNTS: [&str; 4] =
    ["rollout/filtered_groups", "rollout/refilled_groups", "rollout/given_up_groups", "rollout/gen_batches"];

/// The questions of a step in the order in which they were asked.
fn asked(report: &StepReport) -> Vec<String> {
    let by_slot: BTreeMap<u64, String> =
        report.rollouts.iter().map(|rollout| (rollout.question_index, rollout.question.clone())).collect();
    by_slot.into_values().collect()
}

#[test]
fn groups_without_signal_are_replaced_by_the_next_questions() {
    let fixture = Fixture::new();
    let parts = || Parts { reward: &OneDullQuestion, ..fixture.parts() };
    let mut trainer = Trainer::new(TrainConfig { steps: 6, ..config("dapo") }, parts()).unwrap();
    let (mut stream, mut filtered) = (Vec::new(), 0.0);
    for _ in 0..6 {
        let report = trainer.step().unwrap();
        let dull = asked(&report).iter().filter(|question| *question == DULL).count() as f64;
        let [out, refilled, given_up, gen_batches] = figures(&report.metrics, COUNTS);
        assert_eq!((out, refilled, given_up), (dull, dull, 0.0));
        assert_eq!(gen_batches > 1.0, dull > 0.0);
        assert_eq!(figures(&report.metrics, ["rollout/groups", "rollout/constant_groups"]), [2.0, 0.0]);
        for (rollout, advantages) in report.rollouts.iter().zip(&report.advantages) {
            assert_eq!(advantages.is_empty(), rollout.question == DULL);
        }
        filtered += out;
        stream.extend(asked(&report));
    }
    assert!(filtered >= 3.0, "{filtered} of {} questions", stream.len());
    // The stream has no gap and no repetition: every three questions are a permutation of all.
    for epoch in stream.chunks_exact(3) {
        let mut epoch = epoch.to_vec();
        epoch.sort();
        epoch.dedup();
        assert_eq!(epoch.len(), 3, "{stream:?}");
    }
}

#[test]
fn places_that_nothing_fills_are_given_up_and_nothing_is_learnt() {
    let fixture = Fixture::new();
    let parts = || Parts { reward: &Dull, ..fixture.parts() };
    let mut trainer = Trainer::new(TrainConfig { max_num_gen_batches: 3, ..config("dapo") }, parts()).unwrap();
    let report = trainer.step().unwrap();
    assert_eq!(figures(&report.metrics, COUNTS), [6.0, 0.0, 2.0, 3.0]);
    assert_eq!(report.rollouts.len(), 18);
    assert!(report.advantages.iter().all(Vec::is_empty));
    assert_eq!(trainer.model().weights, fixture.model.weights);

    let once = TrainConfig { max_num_gen_batches: 1, ..config("dapo") };
    let report = Trainer::new(once, parts()).unwrap().step().unwrap();
    assert_eq!(figures(&report.metrics, COUNTS), [2.0, 0.0, 2.0, 1.0]);
    let never = TrainConfig { max_num_gen_batches: 0, ..config("dapo") };
    let message = Trainer::new(never, parts()).err().unwrap().to_string();
    assert!(message.contains("`max_num_gen_batches` is 0"), "{message}");
}

#[test]
fn a_resumed_run_goes_on_in_the_stream_where_refills_left_it() {
    let fixture = Fixture::new();
    let parts = || Parts { reward: &OneDullQuestion, ..fixture.parts() };
    let config = TrainConfig { steps: 5, ..config("dapo") };
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut trainer = Trainer::new(config.clone(), parts()).unwrap();
    assert_eq!(run(&mut trainer, whole.path(), u64::MAX), RunEnd::Finished);
    assert_eq!(run(&mut Trainer::new(config.clone(), parts()).unwrap(), cut.path(), 3), RunEnd::Interrupted);
    let mut resumed = Trainer::new(config, parts()).unwrap();
    assert!(resumed.resume(&cut.path().join("checkpoints")).unwrap());
    assert_eq!(run(&mut resumed, cut.path(), u64::MAX), RunEnd::Finished);
    assert_eq!(resumed.model().weights, trainer.model().weights);
    assert_eq!(metrics(cut.path()), metrics(whole.path()));
}

#[test]
fn cut_off_and_invalid_rollouts_are_masked_and_counted() {
    let fixture = Fixture::new();
    // Long enough that about half of the turns of a model that guesses end by themselves.
    let rollout = RolloutConfig { max_turns: 1, max_new_tokens: 160, ..config("grpo").rollout };
    let step = |mask_truncated_completions, mask_invalid_completions| {
        let config = TrainConfig { rollout, mask_truncated_completions, mask_invalid_completions, ..config("grpo") };
        let mut trainer = Trainer::new(config, fixture.parts()).unwrap();
        (trainer.step().unwrap(), trainer.model().weights)
    };
    let (plain, weights) = step(false, false);
    let truncated = plain.rollouts.iter().filter(|rollout| rollout.is_truncated()).count();
    assert!(0 < truncated && truncated < 6, "{truncated} of 6 are cut off");
    assert!(plain.advantages.iter().all(|advantages| !advantages.is_empty()));

    let (masked, other_weights) = step(true, false);
    assert_eq!(masked.metrics.get("rollout/masked_truncated"), Some(truncated as f64));
    assert_eq!(masked.metrics.get("rollout/masked_invalid"), None);
    for ((rollout, advantages), plain) in masked.rollouts.iter().zip(&masked.advantages).zip(&plain.advantages) {
        // The others' advantages still come from the whole group.
        let expected = if rollout.is_truncated() { &Vec::new() } else { plain };
        assert_eq!(advantages, expected);
    }
    assert_ne!(weights, other_weights);

    let (masked, _) = step(true, true);
    let invalid = masked.rollouts.iter().filter(|rollout| rollout.is_invalid()).count();
    assert!(invalid < 6);
    assert_eq!(masked.metrics.get("rollout/masked_invalid"), Some(invalid as f64));
    for (rollout, advantages) in masked.rollouts.iter().zip(&masked.advantages) {
        assert_eq!(advantages.is_empty(), rollout.is_truncated() || rollout.is_invalid());
    }
}

#[test]
fn a_step_whose_rollouts_are_all_masked_changes_nothing() {
    let fixture = Fixture::new();
    let rollout = RolloutConfig { max_turns: 1, max_new_tokens: 2, ..config("grpo").rollout };
    let config = TrainConfig { rollout, mask_truncated_completions: true, ..config("grpo") };
    let mut trainer = Trainer::new(config, fixture.parts()).unwrap();
    let report = trainer.step().unwrap();
    assert_eq!(figures(&report.metrics, ["rollout/masked_truncated", "actor/updates"]), [6.0, 0.0]);
    assert_eq!(trainer.model().weights, fixture.model.weights);
}

#[test]
fn a_step_in_which_the_policy_wrote_nothing_is_an_error_that_says_so() {
    let mut fixture = Fixture::new();
    // No prompt fits into the context.
    fixture.model.config.max_positions = 4;
    for algorithm in ["grpo", "dapo", "ppo"] {
        let mut trainer = Trainer::new(config(algorithm), fixture.parts()).unwrap();
        let message = trainer.step().err().unwrap().to_string();
        assert!(message.contains("no trained token"), "{algorithm}: {message}");
    }
}
