//! Figures and samples that cannot be written stop a run at that step, and nothing of it is lost.

mod fixture;

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fixture::{Fixture, RunEnd, config, metrics, run, step};
use zerosearch_metrics::{Metrics, MetricsError, Sink};
use zerosearch_train::{Trainer, latest_step};

/// A disk that is full now and then.
struct Full(Arc<AtomicBool>);

impl Sink for Full {
    fn log(&mut self, _: u64, _: &Metrics) -> Result<(), MetricsError> {
        if self.0.load(Ordering::Relaxed) { Err(MetricsError::ReservedName { name: "full".into() }) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), MetricsError> {
        Ok(())
    }
}

/// The files that a run has left, without times.
#[derive(PartialEq)]
struct Outcome {
    weights: Vec<u8>,
    metrics: Vec<Vec<(String, String)>>,
    samples: BTreeMap<String, Vec<u8>>,
}

fn outcome(folder: &Path) -> Outcome {
    let samples = std::fs::read_dir(folder.join("rollouts")).unwrap().map(|entry| entry.unwrap());
    let read = |entry: DirEntry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    Outcome {
        weights: std::fs::read(folder.join("checkpoints/global_step_4/actor/model.safetensors")).unwrap(),
        metrics: metrics(folder),
        samples: samples.map(read).collect(),
    }
}

fn uninterrupted(fixture: &Fixture) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&mut fixture.trainer_in(folder.path(), config("grpo")), u64::MAX), RunEnd::Finished);
    folder
}

#[test]
fn a_sink_that_fails_stops_the_run_at_that_step_with_a_checkpoint_that_lacks_nothing() {
    let fixture = Fixture::new();
    let whole = uninterrupted(&fixture);
    for in_this_process in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let trainer_in = || {
            let mut trainer = fixture.trainer_in(folder.path(), config("grpo"));
            trainer.add_sink(Full(full.clone()));
            trainer
        };
        let mut trainer = trainer_in();
        step(&mut trainer);
        full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let message = trainer.next_step().unwrap_err().to_string();
            assert!(message.contains("full"), "{message}");
        }
        assert_eq!((trainer.steps_done(), trainer.first_unrecorded_step()), (2, 2));
        assert!(!trainer.is_finished());
        assert_eq!(latest_step(folder.path().join("checkpoints")).unwrap(), Some(2));

        full.store(false, Ordering::Relaxed);
        let mut again = if in_this_process { trainer } else { trainer_in() };
        assert_eq!((again.steps_done(), again.first_unrecorded_step()), (2, 2));
        assert_eq!(step(&mut again).step, 2);
        assert_eq!(run(&mut again, u64::MAX), RunEnd::Finished);
        assert!(again.is_finished());
        assert!(outcome(folder.path()) == outcome(whole.path()), "in this process: {in_this_process}");
        // The step is recorded: no checkpoint remembers it any longer.
        assert!(!folder.path().join("checkpoints/global_step_4/unrecorded.json").exists());
    }
}

#[test]
fn samples_that_cannot_be_written_stop_the_run_at_that_step_with_a_checkpoint_that_lacks_nothing() {
    let fixture = Fixture::new();
    let whole = uninterrupted(&fixture);
    let folder = tempfile::tempdir().unwrap();
    let trainer_in = || fixture.trainer_in(folder.path(), config("grpo"));
    let samples = folder.path().join("rollouts");
    std::fs::write(&samples, "a file where a folder should be").unwrap();
    let message = trainer_in().next_step().unwrap_err().to_string();
    assert!(message.contains("rollouts"), "{message}");
    assert!(metrics(folder.path()).is_empty(), "samples first: the figures of a step say that it is whole");
    assert_eq!(latest_step(folder.path().join("checkpoints")).unwrap(), Some(1));

    std::fs::remove_file(samples).unwrap();
    let mut again = trainer_in();
    assert_eq!((again.steps_done(), step(&mut again).step), (1, 1));
    assert_eq!(run(&mut again, u64::MAX), RunEnd::Finished);
    assert!(outcome(folder.path()) == outcome(whole.path()));
}

#[test]
fn a_trainer_can_be_moved_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<Trainer>();
    let fixture = Fixture::new();
    let mut trainer = fixture.trainer(config("grpo"));
    let model = std::thread::spawn(move || {
        while trainer.next_step().unwrap().is_some() {}
        trainer.into_model().unwrap()
    });
    assert_ne!(model.join().unwrap().weights, fixture.model.weights);
}
