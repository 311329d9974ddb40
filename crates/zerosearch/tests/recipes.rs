//! The files of `examples/recipes`: each is read and dry-run without weights, with every choice that its head names.

use std::path::{Path, PathBuf};

use zerosearch::config::{RunConfig, Tables};
use zerosearch::dry_run::{DryRun, DryRunError};
use zerosearch::prelude::*;

/// Files for the shipped policy.
const SHIPPED: [&str; 5] = ["r1", "search_r1", "zerosearch_prompt", "zerosearch_sft", "rejection_sft"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn folder() -> PathBuf {
    root().join("examples/recipes")
}

/// Every file of the folder, by name.
fn recipes() -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut recipes: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    recipes.sort();
    recipes
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap()
}

/// With the shipped model under its place in the repository, from which the files are meant to be used.
fn dry_run(name: &str, text: &str, assignments: &[String]) -> Result<DryRun, DryRunError> {
    let text = text.replace("\"models/base\"", &format!("{:?}", root().join("models/base")));
    let tables = Tables::parse(format!("{name}.toml"), &text, assignments).unwrap_or_else(|error| panic!("{error}"));
    DryRun::of(tables, &folder(), None)
}

/// The `--set` lines in the head of a file.
fn choices(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("#     --set "));
    lines
        .map(|line| line.split_whitespace().take_while(|word| word.contains('=')).map(String::from).collect())
        .collect()
}

#[test]
fn every_recipe_and_every_choice_in_its_head_is_dry_run_and_fits() {
    let recipes = recipes();
    assert_eq!(recipes.len(), SHIPPED.len() + 4);
    let simulator = format!("engine.model={:?}", root().join("models/base"));
    for (name, text) in &recipes {
        let uses_simulator = text.contains("runs/world-simulator/simulator");
        let own: Vec<String> = uses_simulator.then(|| simulator.clone()).into_iter().collect();
        let is_large = !SHIPPED.contains(&name.as_str());
        let choices = choices(text);
        assert_eq!(choices.len() >= 3, is_large, "{name}: {choices:?}");
        for choice in std::iter::once(own.clone()).chain(choices) {
            let dry_run = dry_run(name, text, &choice).unwrap_or_else(|error| panic!("{name} {choice:?}: {error}"));
            dry_run.fits().unwrap_or_else(|error| panic!("{name} {choice:?}: {error}"));
            assert_eq!(dry_run.memory_gib.is_some(), is_large, "{name}");
            assert!(dry_run.estimate.is_none(), "{name}: a recipe has no rates of its own");
            let report = dry_run.to_string();
            assert!(report.contains("no rates") && report.contains("questions"), "{name}: {report}");
        }
    }
}

#[test]
fn the_trainings_of_the_shipped_policy_are_two_lines_apart() {
    let reference = text("zerosearch_sft");
    for (name, keys) in [
        ("r1", ["out", "engine"]),
        ("search_r1", ["out", "engine"]),
        ("zerosearch_prompt", ["out", "engine"]),
        ("rejection_sft", ["out", "algorithm"]),
    ] {
        let other = text(name);
        assert_eq!(other.lines().count(), reference.lines().count());
        let differing = reference.lines().zip(other.lines()).filter(|(a, b)| a != b);
        let differing: Vec<&str> = differing.map(|(_, line)| line.split(" =").next().unwrap()).collect();
        assert_eq!(differing, keys, "{name}");
    }
}

#[test]
fn a_recipe_for_gpus_has_the_hyper_parameters_of_the_paper() {
    for (name, text) in recipes().into_iter().filter(|(name, _)| !SHIPPED.contains(&name.as_str())) {
        let RunConfig { train, reward, .. } = RunConfig::parse(&name, &text, &[]).unwrap();
        let paper = TrainConfig::default();
        let of_memory = TrainConfig {
            lora: train.lora.clone(),
            gradient_checkpointing: true,
            micro_batch_tokens: train.micro_batch_tokens,
            kv_cache_memory_bytes: train.kv_cache_memory_bytes,
            rollout: RolloutConfig { concurrency: train.rollout.concurrency, ..paper.rollout },
            // Corrections for a served policy's log-probabilities.
            old_logprobs: train.old_logprobs,
            importance_sampling: train.importance_sampling,
            ..paper
        };
        assert_eq!(train, of_memory, "{name}");
        assert_eq!(reward, Default::default(), "{name}");
        // They stand in the file all the same, for who reads it.
        for key in ["steps", "questions_per_step", "samples_per_question", "algorithm", "learning_rate", "curriculum"] {
            assert!(text.contains(&format!("\n{key} = ")), "{name}: {key}");
        }
    }
}

#[test]
fn the_sizes_are_those_of_the_published_models() {
    for (name, parameters) in [
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("llama-3.2-3b", 3_212_749_824),
    ] {
        let dry_run = dry_run("fleet", &text("fleet"), &[format!("model=somewhere/{}", name.to_uppercase())]).unwrap();
        assert_eq!((dry_run.policy.parameters, dry_run.policy.stored_bytes), (parameters, 2 * parameters), "{name}");
    }
}

#[test]
fn the_recipe_of_a_real_language_model_is_dry_run() {
    let folder = folder().join("smollm2");
    let text = std::fs::read_to_string(folder.join("smollm2.toml")).unwrap();
    let tables = Tables::parse("smollm2.toml", &text, &[]).unwrap();
    assert_eq!((tables.cold_start.batch, tables.tune.steps), (8, 60));
    let dry_run = DryRun::of(tables, &folder, None).unwrap();
    dry_run.fits().unwrap();
    assert_eq!(dry_run.policy.parameters, 134_515_008);
    // Without a KL term.
    assert!(!dry_run.to_string().contains("reference"), "{dry_run}");
}

#[test]
fn the_table_of_the_folder_names_every_recipe() {
    let page = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for (name, _) in recipes() {
        assert!(page.contains(&format!("| [`{name}.toml`]({name}.toml) |")), "{name}");
    }
}
