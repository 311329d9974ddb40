//! A run that was killed anywhere and resumed leaves the same file as one that never stopped.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use zerosearch_metrics::{JsonlSink, Metrics, Sink, read_jsonl};

fn figures(step: u64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.insert("actor/pg_loss", (step as f64).sin() / 3.0);
    metrics.insert("actor/lr", 1e-6 * step as f64);
    if step.is_multiple_of(3) {
        metrics.insert("val/em/é \"quoted\"", f64::NAN);
    }
    metrics
}

fn log(sink: &mut JsonlSink, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        sink.log(step, &figures(step)).unwrap();
    }
}

fn uninterrupted(path: &Path, steps: u64) -> Vec<u8> {
    log(&mut JsonlSink::create(path).unwrap(), 1..=steps);
    fs::read(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_resumed_file_equals_an_uninterrupted_one(steps in 1_u64..12, checkpoint in 0_u64..12, cut in 0.0_f64..1.0) {
        let dir = tempfile::tempdir().unwrap();
        let whole = uninterrupted(&dir.path().join("whole.jsonl"), steps);
        let checkpoint = checkpoint.min(steps);
        let path = dir.path().join("metrics.jsonl");

        // The process dies at any byte after the checkpoint's last row.
        let synced = uninterrupted(&path, checkpoint).len();
        let length = synced + ((whole.len() - synced) as f64 * cut) as usize;
        fs::write(&path, &whole[..length]).unwrap();

        let mut sink = JsonlSink::resume(&path, checkpoint + 1).unwrap();
        log(&mut sink, checkpoint + 1..=steps);
        prop_assert_eq!(fs::read(&path).unwrap(), whole);
        prop_assert_eq!(read_jsonl(&path).unwrap().len() as u64, steps);
    }
}

#[test]
fn figures_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    uninterrupted(&path, 20);
    for (index, row) in read_jsonl(&path).unwrap().into_iter().enumerate() {
        let expected = figures(index as u64 + 1);
        assert_eq!(row.step, index as u64 + 1);
        assert_eq!(row.metrics.len(), expected.len());
        for ((name, value), (expected_name, expected)) in row.metrics.iter().zip(expected.iter()) {
            assert_eq!(name, expected_name);
            // serde_json reads a number to within one unit in the last place.
            let near = (value - expected).abs() <= f64::EPSILON * expected.abs();
            assert!(near || value.is_nan() && expected.is_nan(), "{name}: {value} {expected}");
        }
    }
}
