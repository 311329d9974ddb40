//! A run that is killed at any moment, checkpoint writes included, ends with the files of one that never was.

#![cfg(unix)]

mod fixture;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fixture::{Fixture, RunEnd, build_in, config, metrics, run};
use rand_chacha::rand_core::Rng;
use zerosearch_algorithms::{AdaptiveKl, KlReward};
use zerosearch_curriculum::CurriculumConfig;
use zerosearch_generate::Stream;
use zerosearch_lm::LoraConfig;
use zerosearch_train::TrainConfig;

/// Names the folder and the kind of the run to the process that is killed.
const FOLDER: &str = "ZEROSEARCH_KILLED_RUN";
const KIND: &str = "ZEROSEARCH_KILLED_RUN_KIND";
const STEPS: u64 = 10;
const KILLS: usize = 20;

/// The process that the tests below kill: between the two kinds, everything that a checkpoint must remember is in use.
#[test]
#[ignore = "the other tests of this file run it as a process of its own"]
fn the_run() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let fixture = Fixture::new();
    let adaptive = Some(AdaptiveKl { target: 1e-4, horizon: 60.0 });
    let config = match std::env::var(KIND).unwrap().as_str() {
        "critic" => TrainConfig {
            kl_reward: KlReward { coefficient: 0.5, adaptive },
            curriculum: CurriculumConfig::Adaptive { low: 0.2, high: 0.4, min: 0.0, max: 0.5 },
            ..config("ppo")
        },
        _ => TrainConfig {
            staleness: 1,
            lora: Some(LoraConfig { rank: 2, ..LoraConfig::default() }),
            epochs: 2,
            mini_batch_size: 1,
            ..config("dapo")
        },
    };
    let config = TrainConfig { steps: STEPS, validate_every: 3, ..config };
    let mut trainer = build_in(folder, fixture.builder(config).validation(fixture.validation()));
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
}

#[test]
fn a_run_killed_twenty_times_ends_with_the_files_of_one_that_never_was() {
    survives("critic", &["critic.safetensors", "critic_optimizer.safetensors"]);
}

#[test]
fn so_does_one_with_adapters_that_collects_ahead() {
    survives("ahead", &["actor/lora_adapter/adapter_model.safetensors", "rollouts_ahead.json"]);
}

/// Kills such a run, resumes it until it is done, and compares. These files must be among those of a checkpoint.
fn survives(kind: &str, names: &[&str]) {
    let start = |folder: &Path| start(kind, folder);
    let whole = tempfile::tempdir().unwrap();
    let began = Instant::now();
    assert!(start(whole.path()).wait().unwrap().success());
    let step = began.elapsed() / STEPS as u32;

    let mut rng = Stream { purpose: "moments of a kill", ..Stream::default() }.rng();
    let mut share = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let mut folder = tempfile::tempdir().unwrap();
    let (mut kills, mut in_a_checkpoint) = (0, 0);
    while kills < KILLS {
        let checkpoints = folder.path().join("checkpoints");
        let started = SystemTime::now();
        let mut child = start(folder.path());
        if kills % 2 == 0 {
            std::thread::sleep(step.mul_f64(4.0 * share()));
        } else {
            while !is_being_written(&checkpoints, started) && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(step.mul_f64(0.2 * share()));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.signal() == Some(9) {
            kills += 1;
            in_a_checkpoint += usize::from(is_being_written(&checkpoints, started));
        } else {
            // It was done before it could be killed: the next kills are another run's.
            assert!(status.success(), "{status}");
            assert_same_files(whole.path(), folder.path());
            folder = tempfile::tempdir().unwrap();
        }
    }
    assert!(start(folder.path()).wait().unwrap().success());
    assert_same_files(whole.path(), folder.path());
    let last = whole.path().join(format!("checkpoints/global_step_{STEPS}"));
    for name in [names, &["actor_optimizer.safetensors", "actor/model.safetensors", "trainer.json"]].concat() {
        assert!(last.join(name).exists(), "{name}");
    }
    println!("{kind}: {in_a_checkpoint} of {KILLS} kills left a checkpoint half written");
}

fn start(kind: &str, folder: &Path) -> Child {
    // Without a capture a panic of the child stands in this test's output.
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_run", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(KIND, kind)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether there is a checkpoint under its temporary name that is no older than `since`.
fn is_being_written(checkpoints: &Path, since: SystemTime) -> bool {
    std::fs::read_dir(checkpoints).into_iter().flatten().flatten().any(|entry| {
        let temporary = entry.file_name().to_string_lossy().starts_with(".global_step_");
        temporary && entry.metadata().and_then(|data| data.modified()).is_ok_and(|modified| modified >= since)
    })
}

/// Figures of time may differ, nothing else: not a byte, not a file.
fn assert_same_files(expected: &Path, found: &Path) {
    assert_eq!(metrics(found), metrics(expected));
    let (expected, found) = (files(expected), files(found));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
}

/// The bytes of every file, by its path in the folder, without times: figures are left to the caller.
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
            let mut bytes = std::fs::read(&path).unwrap();
            if name == "metrics.jsonl" {
                bytes.clear();
            } else if name.ends_with("rollouts_ahead.json") {
                let mut ahead: Vec<serde_json::Map<String, serde_json::Value>> =
                    serde_json::from_slice(&bytes).unwrap();
                for of_the_process in ["seconds", "times", "usage", "cache_peak_bytes", "cache_evicted"] {
                    ahead.iter_mut().for_each(|collected| drop(collected.remove(of_the_process).unwrap()));
                }
                bytes = serde_json::to_vec(&ahead).unwrap();
            }
            found.insert(name, bytes);
        }
    }
    found
}
