//! Which rollouts a step learns from: groups without signal are replaced, cut-off and invalid rollouts masked, all counted.

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use fixture::{Fixture, Letters, RunEnd, build_in, config, metrics, run, step};
use zerosearch_metrics::Metrics;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::RolloutConfig;
use zerosearch_train::{Experience, StepReport, TrainConfig};

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
        report.samples.iter().map(|s| (s.rollout.question_index, s.rollout.question.clone())).collect();
    by_slot.into_values().collect()
}

#[test]
fn groups_without_signal_are_replaced_by_the_next_questions() {
    let fixture = Fixture::new();
    let config = TrainConfig { steps: 6, ..config("dapo") };
    let mut trainer = fixture.builder(config).reward(OneDullQuestion).build().unwrap();
    let (mut stream, mut filtered) = (Vec::new(), 0.0);
    for _ in 0..6 {
        let report = step(&mut trainer);
        let dull = asked(&report).iter().filter(|question| *question == DULL).count() as f64;
        let [out, refilled, given_up, gen_batches] = figures(&report.metrics, COUNTS);
        assert_eq!((out, refilled, given_up), (dull, dull, 0.0));
        assert_eq!(gen_batches > 1.0, dull > 0.0);
        assert_eq!(figures(&report.metrics, ["rollout/groups", "rollout/constant_groups"]), [2.0, 0.0]);
        for sample in &report.samples {
            assert_eq!(sample.advantages.is_empty(), sample.rollout.question == DULL);
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
    let build = |max_num_gen_batches| {
        fixture.builder(TrainConfig { max_num_gen_batches, ..config("dapo") }).reward(Dull).build()
    };
    let mut trainer = build(3).unwrap();
    let report = step(&mut trainer);
    assert_eq!(figures(&report.metrics, COUNTS), [6.0, 0.0, 2.0, 3.0]);
    assert_eq!(report.samples.len(), 18);
    assert!(report.samples.iter().all(|sample| sample.advantages.is_empty()));
    assert_eq!(trainer.model().unwrap().weights, fixture.model.weights);

    let report = step(&mut build(1).unwrap());
    assert_eq!(figures(&report.metrics, COUNTS), [2.0, 0.0, 2.0, 1.0]);
    let message = build(0).err().unwrap().to_string();
    assert!(message.contains("`max_num_gen_batches` is 0"), "{message}");
}

#[test]
fn a_resumed_run_goes_on_in_the_stream_where_refills_left_it() {
    let fixture = Fixture::new();
    let config = TrainConfig { steps: 5, ..config("dapo") };
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trainer_in = |folder: &Path| build_in(folder, fixture.builder(config.clone()).reward(OneDullQuestion));
    let mut trainer = trainer_in(whole.path());
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
    assert_eq!(run(&mut trainer_in(cut.path()), 3), RunEnd::Interrupted);
    let mut resumed = trainer_in(cut.path());
    assert_eq!(resumed.steps_done(), 3);
    assert_eq!(run(&mut resumed, u64::MAX), RunEnd::Finished);
    assert_eq!(resumed.model().unwrap().weights, trainer.model().unwrap().weights);
    assert_eq!(metrics(cut.path()), metrics(whole.path()));
}

#[test]
fn cut_off_and_invalid_rollouts_are_masked_and_counted() {
    let fixture = Fixture::new();
    // Long enough that about half of the turns of a model that guesses end by themselves.
    let rollout = RolloutConfig { max_turns: 1, max_new_tokens: 160, ..config("grpo").rollout };
    let first_step = |mask_truncated_completions, mask_invalid_completions| {
        let config = TrainConfig { rollout, mask_truncated_completions, mask_invalid_completions, ..config("grpo") };
        let mut trainer = fixture.trainer(config);
        (step(&mut trainer), trainer.model().unwrap().weights)
    };
    let (plain, weights) = first_step(false, false);
    let truncated = plain.samples.iter().filter(|sample| sample.rollout.is_truncated()).count();
    assert!(0 < truncated && truncated < 6, "{truncated} of 6 are cut off");
    assert!(plain.samples.iter().all(|sample| !sample.advantages.is_empty()));

    let (masked, other_weights) = first_step(true, false);
    assert_eq!(masked.metrics.get("rollout/masked_truncated"), Some(truncated as f64));
    assert_eq!(masked.metrics.get("rollout/masked_invalid"), None);
    for (masked, plain) in masked.samples.iter().zip(&plain.samples) {
        // The others' advantages still come from the whole group.
        let expected = if masked.rollout.is_truncated() { &Vec::new() } else { &plain.advantages };
        assert_eq!(&masked.advantages, expected);
    }
    assert_ne!(weights, other_weights);

    let (masked, _) = first_step(true, true);
    let invalid = masked.samples.iter().filter(|sample| sample.rollout.is_invalid()).count();
    assert!(invalid < 6);
    assert_eq!(masked.metrics.get("rollout/masked_invalid"), Some(invalid as f64));
    for sample in &masked.samples {
        assert_eq!(sample.advantages.is_empty(), sample.rollout.is_truncated() || sample.rollout.is_invalid());
    }
}

#[test]
fn rollouts_can_be_changed_before_an_update_by_what_their_group_has_in_common() {
    let fixture = Fixture::new();
    // The best sample of each question earns 1, the others nothing; the second question is left out.
    let best = |experiences: &mut [Experience]| {
        assert_eq!(experiences.len(), 6);
        let best = |question| {
            let group = experiences.iter().filter(|it| it.rollout.question_index == question);
            group.map(|it| it.reward).fold(f32::MIN, f32::max)
        };
        let best = [best(0), best(1)];
        for experience in experiences {
            let question = experience.rollout.question_index;
            experience.reward = f32::from(u8::from(experience.reward == best[question as usize]));
            experience.kept = question == 0;
        }
    };
    let mut trainer = fixture.builder(config("grpo")).before_update(best).build().unwrap();
    let report = step(&mut trainer);
    assert_eq!(figures(&report.metrics, ["critic/score/max", "critic/score/min"]), [1.0, 0.0]);
    for sample in &report.samples {
        assert_eq!(sample.advantages.is_empty(), sample.rollout.question_index == 1);
        assert!(sample.advantages.iter().all(|advantage| (*advantage > 0.0) == (sample.reward == 1.0)));
    }
    assert_ne!(trainer.model().unwrap().weights, fixture.model.weights);
}

#[test]
fn rollouts_without_an_advantage_can_be_left_out_of_the_passes_and_the_update_stays() {
    let fixture = Fixture::new();
    let first_step = |skip_zero_advantages, micro_batch_tokens| {
        let config = TrainConfig { skip_zero_advantages, micro_batch_tokens, ..config("dr_grpo") };
        let dull = |experiences: &mut [Experience]| {
            experiences.iter_mut().filter(|it| it.rollout.question_index == 0).for_each(|it| it.reward = 0.5);
        };
        let mut trainer = fixture.builder(config).before_update(dull).build().unwrap();
        (step(&mut trainer), trainer.model().unwrap().weights)
    };
    for budget in [8192, 1] {
        let (whole, weights) = first_step(false, budget);
        let (skipping, same) = first_step(true, budget);
        assert_eq!(skipping.metrics.get("rollout/zero_advantages"), Some(3.0));
        assert_eq!(whole.metrics.get("rollout/zero_advantages"), None);
        for name in ["actor/pg_loss", "actor/grad_norm"] {
            let [whole, skipping] = [&whole, &skipping].map(|report| figures(&report.metrics, [name])[0]);
            assert!((whole - skipping).abs() <= 1e-5 * whole.abs(), "{name}: {whole} and {skipping}");
        }
        assert_eq!(weights, same, "{budget}");
        assert_ne!(weights, fixture.model.weights);
    }
    // The KL term of GRPO's default pulls at every rollout.
    let message = fixture.refused(TrainConfig { skip_zero_advantages: true, ..config("grpo") });
    assert!(message.contains("skip_zero_advantages") && message.contains("KL"), "{message}");
}

#[test]
fn a_step_of_equal_rewards_updates_alike_with_nothing_to_leave_in() {
    let fixture = Fixture::new();
    let first_step = |skip_zero_advantages| {
        let config = TrainConfig { skip_zero_advantages, ..config("dr_grpo") };
        let mut trainer = fixture.builder(config).reward(Dull).build().unwrap();
        (step(&mut trainer).metrics.get("actor/grad_norm"), trainer.model().unwrap().weights)
    };
    assert_eq!(first_step(true), first_step(false));
}

#[test]
fn a_step_whose_rollouts_are_all_masked_changes_nothing() {
    let fixture = Fixture::new();
    let rollout = RolloutConfig { max_turns: 1, max_new_tokens: 2, ..config("grpo").rollout };
    let config = TrainConfig { rollout, mask_truncated_completions: true, ..config("grpo") };
    let mut trainer = fixture.trainer(config);
    let report = step(&mut trainer);
    assert_eq!(figures(&report.metrics, ["rollout/masked_truncated", "actor/updates"]), [6.0, 0.0]);
    assert_eq!(trainer.model().unwrap().weights, fixture.model.weights);
}

#[test]
fn a_step_in_which_the_policy_wrote_nothing_is_an_error_that_says_so() {
    let mut fixture = Fixture::new();
    // No prompt fits into the context.
    fixture.model.config.max_positions = 4;
    for algorithm in ["grpo", "dapo", "ppo"] {
        let mut trainer = fixture.trainer(config(algorithm));
        let message = trainer.next_step().err().unwrap().to_string();
        assert!(message.contains("no trained token"), "{algorithm}: {message}");
    }
}
