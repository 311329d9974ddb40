//! A run whose disk is full at any file says which, leaves nothing half-written, and goes on once there is room.

#![cfg(target_os = "linux")]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixture::{Fixture, RunEnd, config, metrics, run};
use zerosearch_train::{TrainConfig, latest_step};

const FOLDER: &str = "ZEROSEARCH_FULL_DISK_RUN";

/// The process that the test below limits.
#[test]
#[ignore = "the other test of this file runs it as a process of its own"]
fn the_run() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let fixture = Fixture::new();
    let config = TrainConfig { steps: 3, staleness: 1, ..config("ppo") };
    let builder = fixture.builder(config).logs(&folder);
    let folder = Path::new(&folder);
    let builder = builder.checkpoints(folder.join("checkpoints")).samples(folder.join("rollouts"), usize::MAX);
    let mut trainer = builder.build().unwrap();
    assert_eq!(run(&mut trainer, u64::MAX), RunEnd::Finished);
}

/// A limit on the size of files, in blocks of 512 bytes, plays the disk: behind it a file does not grow.
fn start(folder: &Path, blocks: Option<u64>) -> Output {
    let limit = blocks.map(|blocks| format!("trap '' XFSZ; ulimit -f {blocks};")).unwrap_or_default();
    Command::new("sh")
        .args(["-c", &format!("{limit} exec \"$0\" --exact the_run --ignored --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder)
        .output()
        .unwrap()
}

fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(current).unwrap().map(|entry| entry.unwrap()) {
            match entry.metadata().unwrap() {
                data if data.is_dir() => folders.push(entry.path()),
                data => found.push((entry.path().strip_prefix(folder).unwrap().to_path_buf(), data.len())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_file_may_be_the_one_that_does_not_fit() {
    let whole = tempfile::tempdir().unwrap();
    assert!(start(whole.path(), None).status.success());
    let policy =
        |folder: &Path| std::fs::read(folder.join("checkpoints/global_step_3/actor/model.safetensors")).unwrap();
    // Just too little for each file.
    let mut limits: Vec<u64> = files(whole.path()).iter().map(|(_, size)| size.saturating_sub(1) / 512).collect();
    limits.sort_unstable();
    limits.dedup();
    let largest = *limits.last().unwrap();
    let mut failures = 0;
    for blocks in limits {
        let folder = tempfile::tempdir().unwrap();
        let output = start(folder.path(), Some(blocks));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{blocks} of {largest} blocks are enough: {message}");
        failures += 1;
        let names = [
            "model",
            "optimizer",
            "tokenizer",
            "critic",
            "rollouts",
            "step_",
            "metrics",
            "tfevents",
            "trainer.json",
            "ledger",
        ];
        assert!(
            message.contains("File too large") && names.iter().any(|name| message.contains(name)),
            "{blocks}: {message}"
        );
        let left = files(folder.path());
        assert!(left.iter().all(|(path, _)| !path.to_string_lossy().contains(".tmp")), "{blocks}: {left:?}");
        // Whatever calls itself the newest checkpoint is whole.
        let checkpoints = folder.path().join("checkpoints");
        if let Some(step) = latest_step(&checkpoints).unwrap() {
            assert!(checkpoints.join(format!("global_step_{step}/trainer.json")).exists());
        }
        let again = start(folder.path(), None);
        assert!(again.status.success(), "{blocks}: {}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(metrics(folder.path()), metrics(whole.path()), "{blocks}");
        assert!(policy(folder.path()) == policy(whole.path()), "{blocks}");
    }
    assert!(failures > 5, "{failures}");
}
