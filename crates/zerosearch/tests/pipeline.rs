//! The whole pipeline, killed in every stage and resumed, ends with the files of one that never was.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use zerosearch::generate::GenerateError;
use zerosearch::pipeline::{Material, Pipeline, PipelineConfig, PipelineEnd, world_material};
use zerosearch::search::Quality;
use zerosearch::simulator::{Interaction, Judge, SimulatorError};

/// Names the folder to the process that is killed.
const FOLDER: &str = "ZEROSEARCH_KILLED_PIPELINE";
const STEPS: u64 = 3;

/// The files that end a stage, in the order of the stages.
const STAGES: [&str; 8] = [
    "pipeline.json",
    "interactions.jsonl",
    "simulator.json",
    "checkpoints/latest_checkpointed_iteration.txt",
    "policy/config.json",
    "predictions_base_direct.jsonl",
    "predictions_base_search.jsonl",
    "predictions_trained_search.jsonl",
];

fn config() -> PipelineConfig {
    let mut config = PipelineConfig {
        collect_questions: 8,
        obedience_questions: 2,
        simulator_steps: 2,
        simulator_batch: 2,
        ..PipelineConfig::default()
    };
    config.simulation.attempts = 2;
    config.simulation.max_new_tokens = 40;
    config.train.rollout.max_turns = 2;
    config.train.rollout.max_observation_tokens = 120;
    config.train.steps = STEPS;
    config.train.checkpoint_every = 1;
    config.train.questions_per_step = 2;
    config.train.samples_per_question = 2;
    config
}

/// A small part of the world of facts.
fn material() -> Material {
    let mut material = world_material().unwrap();
    material.corpus = material.corpus.into_iter().step_by(20).collect();
    material.held_out = material.held_out.into_iter().step_by(125).collect();
    material.validation = material.validation.into_iter().step_by(25).collect();
    material
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base")
}

/// The process that the test below kills.
#[test]
#[ignore = "the other test of this file runs it as a process of its own"]
fn the_run() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (folder, base, material) = (Path::new(&folder), base(), material());
    let mut pipeline = Pipeline::new(config(), &base, &material, folder);
    pipeline.resume = folder.join("pipeline.json").exists();
    assert!(matches!(pipeline.run(&false.into()).unwrap(), PipelineEnd::Finished(_)));
}

#[test]
fn a_pipeline_killed_in_every_stage_ends_with_the_files_of_one_that_never_was() {
    let whole = tempfile::tempdir().unwrap();
    let began = Instant::now();
    assert!(start(whole.path()).wait().unwrap().success());
    let stage = began.elapsed() / STAGES.len() as u32;

    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for (index, file) in STAGES.iter().enumerate() {
        let mut child = start(folder.path());
        // As soon as the stage before has ended, or some way into this one.
        while !folder.path().join(file).exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(stage * (index as u32 % 3) / 3);
        child.kill().unwrap();
        kills += usize::from(child.wait().unwrap().signal() == Some(9));
    }
    assert!(start(folder.path()).wait().unwrap().success());
    assert!(kills >= STAGES.len() - 2, "{kills} of {} were killed before they had ended", STAGES.len());

    let (expected, found) = (files(whole.path()), files(folder.path()));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
    for name in ["summary.json", "policy/model.safetensors", "simulator/model.safetensors", "interactions.jsonl"] {
        assert!(expected.contains_key(name), "{name}");
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_run", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The bytes of every file by its path in the folder, without times: those of figures, events, charts and the ledger.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for path in std::fs::read_dir(current).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = match name.as_str() {
                "metrics.jsonl" => without_times(&path),
                "report.html" | "ledger.json" => Vec::new(),
                _ if name.starts_with("tensorboard") => continue,
                _ => std::fs::read(&path).unwrap(),
            };
            found.insert(name, bytes);
        }
    }
    found
}

fn without_times(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        // How many sequences live at once depends on when documents come.
        let of_the_process = |name: &str| {
            name.starts_with("timing_s")
                || name.starts_with("rollout/kv_cache")
                || ["rollout/tokens_per_s", "rollout/idle_share"].contains(&name)
        };
        row.into_iter().filter(|(name, _)| !of_the_process(name)).collect::<serde_json::Map<_, _>>()
    };
    serde_json::to_vec(&text.lines().map(row).collect::<Vec<_>>()).unwrap()
}

/// Remembers what it was to judge, and fails.
#[derive(Default)]
struct Down(Mutex<Vec<Vec<Interaction>>>);

impl Judge for Down {
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError> {
        self.0.lock().unwrap().push(interactions.to_vec());
        Err(GenerateError::Engine("the judge is down".into()).into())
    }
}

#[test]
fn searches_outlive_a_judge_that_fails() {
    let (folder, base, material, judge) = (tempfile::tempdir().unwrap(), base(), material(), Down::default());
    let mut pipeline = Pipeline { judge: &judge, ..Pipeline::new(config(), &base, &material, folder.path()) };
    let mut run = |resume| {
        pipeline.resume = resume;
        pipeline.run(&false.into()).err().unwrap().to_string()
    };
    assert!(run(false).contains("the judge is down"));
    // One of them less shows that they are read and not collected again.
    let file = folder.path().join("collected.json");
    let mut collected: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    collected["searches"].as_array_mut().unwrap().remove(0);
    std::fs::write(&file, collected.to_string()).unwrap();
    assert!(run(true).contains("the judge is down"));
    let judged = judge.0.into_inner().unwrap();
    assert!(judged.len() == 2 && judged[0].len() > 1 && judged[0][1..] == judged[1]);
}
