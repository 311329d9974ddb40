//! What a run can be resumed from, and what it refuses.

mod fixture;

use std::path::Path;

use fixture::{Fixture, config, run};
use zerosearch_metrics::Sinks;
use zerosearch_train::{RunEnd, Trainer, latest_step};

#[test]
fn a_new_run_in_the_folder_of_another_is_refused_before_any_work() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    run(&mut Trainer::new(config("grpo"), fixture.parts()).unwrap(), folder.path(), 2);

    let mut second = Trainer::new(config("grpo"), fixture.parts()).unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let result = second.run(&checkpoints, &mut Sinks::new(), &false.into(), &mut |_| {});
    let message = result.unwrap_err().to_string();
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
    let config = zerosearch_train::TrainConfig { keep_checkpoints: 1, ..config("grpo") };
    std::fs::create_dir_all(checkpoints.join("global_step_3")).unwrap();
    std::fs::create_dir_all(checkpoints.join(".global_step_4.tmp/actor")).unwrap();

    run(&mut Trainer::new(config.clone(), fixture.parts()).unwrap(), folder.path(), 2);
    assert_eq!(latest_step(&checkpoints).unwrap(), Some(2));
    assert_eq!(names(&checkpoints), ["global_step_2", "global_step_3", "latest_checkpointed_iteration.txt"]);

    let mut second = Trainer::new(config, fixture.parts()).unwrap();
    assert!(second.resume(&checkpoints).unwrap());
    assert_eq!(run(&mut second, folder.path(), u64::MAX), RunEnd::Finished);
    assert_eq!(names(&checkpoints), ["global_step_4", "latest_checkpointed_iteration.txt"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
