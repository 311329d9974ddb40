//! States that a run can be resumed from, and those that it refuses.

mod fixture;

use std::path::Path;

use fixture::{Fixture, Letters, RunEnd, build_in, config, metrics, run};
use zerosearch_data::Question;
use zerosearch_lm::{AdamWConfig, GpuProducts, HostWeights, LanguageModel};
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_text::{PromptTemplate, SpecialTokens, train_bpe};
use zerosearch_train::{TrainConfig, Trainer, Validation, latest_config, latest_step};

struct Nothing;

impl RewardFn for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn reward(&self, _: &Episode<'_>) -> f32 {
        0.0
    }
}

#[test]
fn a_resume_with_anything_else_is_refused_by_what_differs() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let of = |model| fixture.builder_of(model, config("grpo")).validation(fixture.validation());
    run(&mut build_in(folder.path(), of(fixture.model.clone())), 1);

    let base = &fixture.model;
    let tokenizer = |text: &str| {
        let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
        train_bpe(std::iter::once(text.to_string()), base.codec.vocab_size(), &["<search>"], &special).unwrap()
    };
    let other_tokenizer =
        LanguageModel::new(base.config.clone(), base.weights.clone(), tokenizer("quite another text"));
    let mut weights = HostWeights::clone(&base.weights);
    let mut norm = weights.get("model.norm.weight").unwrap().clone();
    norm.values[0] = norm.values[0].next_up();
    weights.insert("model.norm.weight", norm);
    let other_weights = base.with_weights(weights);
    let other_shape = zerosearch_lm::ModelConfig { layers: 1, ..base.config.clone() };
    let other_model = LanguageModel::new(other_shape.clone(), HostWeights::init(&other_shape, 1), base.codec.clone());
    let prompt = PromptTemplate::new("Question:  {{ question }}").unwrap();
    let questions = [Question::new("x", "another", vec!["a".into()])];
    let other_validation = Validation::new(questions.clone(), fixture.engine.clone());
    let other_questions = Trainer::builder(base.clone(), questions, fixture.engine.clone())
        .prompt(fixture.prompt.clone())
        .reward(Letters)
        .device(fixture.device.clone())
        .config(config("grpo"))
        .validation(fixture.validation());

    let same = || of(base.clone());
    for (builder, expected) in [
        (of(other_tokenizer), "another tokenizer"),
        (of(other_weights), "another base model"),
        (of(other_model), "another base model"),
        (same().prompt(prompt), "another prompt template"),
        (other_questions, "trained on other questions"),
        (same().reward(Nothing), "paid by the reward letters, not nothing"),
        (same().validation(other_validation), "validated on other questions"),
    ] {
        let message = builder.checkpoints(&checkpoints).build().err().unwrap().to_string();
        let complete = ["global_step_1/trainer.json: this run ", expected, "resume with", "start in another folder"];
        assert!(complete.iter().all(|part| message.contains(part)), "{expected}: {message}");
    }
    assert_eq!(same().checkpoints(&checkpoints).build().unwrap().steps_done(), 1);
}

#[test]
fn a_checkpoint_of_an_older_version_goes_on() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 1);
    let path = checkpoints.join("global_step_1/trainer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut state: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for name in ["tokenizer", "base_model", "prompt", "reward"] {
        assert!(state.remove(name).is_some(), "{name}");
    }
    // A key that has its default, as if it had not been there yet.
    assert!(state["config"].as_object_mut().unwrap().remove("validate_every").is_some());
    std::fs::write(&path, serde_json::to_string(&state).unwrap()).unwrap();

    let mut second = fixture.trainer_in(folder.path(), config("grpo"));
    assert_eq!(second.steps_done(), 1);
    assert_eq!(run(&mut second, u64::MAX), RunEnd::Finished);

    // Only what is missing is taken for granted.
    std::fs::write(checkpoints.join("latest_checkpointed_iteration.txt"), "1").unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, serde_json::to_string(&state).unwrap()).unwrap();
    let other = TrainConfig { validate_every: 7, ..config("grpo") };
    let message = fixture.builder(other).checkpoints(&checkpoints).build().err().unwrap().to_string();
    assert!(message.contains("another `validate_every`"), "{message}");
}

/// As if it had run out of memory, or been moved to a smaller machine: the folder has another place by then.
#[test]
fn a_run_goes_on_with_other_resources() {
    let fixture = Fixture::new();
    // An optimizer whose steps follow the gradient's size, so that rounding stays rounding.
    let optimizer = AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1.0, weight_decay: 0.0 };
    let before = TrainConfig { optimizer, learning_rate: 0.1, ..config("grpo") };
    let rest = |change: fn(&mut TrainConfig)| {
        let folder = tempfile::tempdir().unwrap();
        run(&mut fixture.trainer_in(&folder.path().join("here"), before.clone()), 2);
        let moved = folder.path().join("there");
        std::fs::rename(folder.path().join("here"), &moved).unwrap();
        let mut config = before.clone();
        change(&mut config);
        let mut trainer = fixture.trainer_in(&moved, config.clone());
        assert_eq!(trainer.steps_done(), 2);
        assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
        assert_eq!(latest_config(moved.join("checkpoints")).unwrap(), Some(config));
        (trainer.into_model().unwrap().into_weights(), metrics(&moved))
    };
    let (expected, figures) = rest(|_| {});
    let same: [fn(&mut TrainConfig); 8] = [
        |config| config.gradient_checkpointing = true,
        |config| config.kv_cache_memory_bytes = Some(100_000),
        |config| config.rollout.concurrency = 1,
        |config| config.rollout.search_batch = 2,
        |config| config.keep_checkpoints = 1,
        |config| config.checkpoint_every = 2,
        |config| config.skipped_updates = 9,
        |config| config.sleep = false,
    ];
    for (index, change) in same.into_iter().enumerate() {
        let (weights, found) = rest(change);
        assert!(weights == expected, "{index}");
        let sampled = |rows: &[Vec<(String, String)>]| -> Vec<_> {
            let figure = |(name, _): &&(String, String)| !name.starts_with("rollout/kv_cache");
            rows.iter().flat_map(|row| row.iter().filter(figure).cloned().collect::<Vec<_>>()).collect()
        };
        assert_eq!(sampled(&found), sampled(&figures), "{index}");
    }
    // The gradients' sums are taken in another order.
    let (weights, _) = rest(|config| config.micro_batch_tokens = 1);
    let distance = |a: &HostWeights, b: &HostWeights| {
        let pairs = a.iter().zip(b.iter()).flat_map(|((_, a), (_, b))| a.values.iter().zip(&b.values));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (apart, moved) = (distance(&weights, &expected), distance(&expected, &fixture.model.weights));
    assert!(apart < 1e-3 * moved, "{apart} of {moved}");
}

#[test]
fn a_checkpoint_of_this_step_stays_where_only_resources_differ() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 2);
    let path = folder.path().join("checkpoints/global_step_2/trainer.json");
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let smaller = TrainConfig { micro_batch_tokens: 100, ..config("grpo") };
    fixture.trainer_in(folder.path(), smaller).checkpoint().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
}

#[test]
fn a_key_that_decides_results_is_refused_with_both_values() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 1);
    for (now, expected) in [
        (TrainConfig { learning_rate: 1.0, ..config("grpo") }, "another `learning_rate`: 0.001, not 1.0"),
        (TrainConfig { steps: 8, ..config("grpo") }, "another `steps`: 4, not 8"),
        (TrainConfig { gpu: GpuProducts::Fast, ..config("grpo") }, "another `gpu`: left out, not \"fast\""),
        (config("rloo"), "another `algorithm"),
    ] {
        let builder = fixture.builder(now).checkpoints(folder.path().join("checkpoints"));
        let message = builder.build().err().unwrap().to_string();
        assert!(message.contains(expected) && message.ends_with("another folder"), "{message}");
    }
}

#[test]
fn a_new_run_in_the_folder_of_another_is_refused_before_any_work() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let mut second = fixture.trainer_in(folder.path(), config("grpo"));
    // Another process begins beside it, and is faster.
    run(&mut fixture.trainer_in(folder.path(), config("grpo")), 2);
    let message = second.next_step().unwrap_err().to_string();
    assert!(message.contains("checkpoints: holds a checkpoint of step 2: resume"), "{message}");
    assert_eq!(second.steps_done(), 0);
}

/// Killed after a checkpoint had its name and before it was the newest, a run goes on from the one before. Interrupted
/// then, it has a checkpoint older than that leftover.
#[test]
fn a_leftover_of_a_later_step_does_not_push_out_the_newest_checkpoint() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let config = TrainConfig { keep_checkpoints: 1, ..config("grpo") };
    std::fs::create_dir_all(checkpoints.join("global_step_3")).unwrap();
    std::fs::create_dir_all(checkpoints.join(".global_step_4.tmp/actor")).unwrap();

    run(&mut fixture.trainer_in(folder.path(), config.clone()), 2);
    assert_eq!(latest_step(&checkpoints).unwrap(), Some(2));
    assert_eq!(names(&checkpoints), ["global_step_2", "global_step_3", "latest_checkpointed_iteration.txt"]);

    let mut second = fixture.trainer_in(folder.path(), config);
    assert_eq!(second.steps_done(), 2);
    assert_eq!(run(&mut second, u64::MAX), RunEnd::Finished);
    assert_eq!(names(&checkpoints), ["global_step_4", "latest_checkpointed_iteration.txt"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
