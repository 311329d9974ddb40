//! Cells: an interruption costs none that is done, the same seed gives the same figures, and a cell is skipped only for its own configuration.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use zerosearch::paper_tables::{Results, Runner};
use zerosearch::pipeline::{Material, PipelineConfig, world_material};

/// As tiny as the method goes.
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
    config.train.steps = 2;
    config.train.questions_per_step = 2;
    config.train.samples_per_question = 2;
    config
}

/// A small part of the world of facts.
fn material() -> Material {
    let mut material = world_material().unwrap();
    material.corpus = material.corpus.into_iter().step_by(20).collect();
    material.held_out = material.held_out.into_iter().step_by(125).collect();
    material
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base")
}

/// The files of all cells, without what is measured in seconds.
fn files(results: &Results) -> Vec<Value> {
    fn without_seconds(value: &mut Value) {
        match value {
            Value::Object(keys) => {
                keys.retain(|key, _| !key.ends_with("seconds"));
                keys.values_mut().for_each(without_seconds);
            }
            Value::Array(values) => values.iter_mut().for_each(without_seconds),
            _ => {}
        }
    }
    let cells = results.cells().unwrap().into_iter().map(|cell| {
        assert!(cell.seconds > 0.0 && cell.failure.is_none(), "{cell:?}");
        let mut cell = serde_json::to_value(cell).unwrap();
        without_seconds(&mut cell);
        cell
    });
    cells.collect()
}

#[test]
fn cells_that_are_done_are_skipped_and_all_end_as_without_an_interruption() {
    let (folder, base, material) = (tempfile::tempdir().unwrap(), base(), material());
    let at = |name: &str| folder.path().join(name);
    let cells = [("reinforce", 0), ("direct", 0), ("reinforce", 0), ("search_r1", 0), ("r1", 0)];
    // Every call is a process of its own, as far as the runner knows.
    let fill = |config: PipelineConfig, name: &str, most: usize| {
        let work = at(&format!("{name}-work"));
        let mut runner = Runner::new(config, &base, &material, &work).unwrap();
        let (interrupted, mut ran) = (AtomicBool::new(false), Vec::new());
        let finished = runner
            .fill(&cells, &Results::at(at(name)), &interrupted, &mut |cell| {
                ran.push(cell.experiment.clone());
                interrupted.store(ran.len() == most, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        (finished, ran.join(", "))
    };

    assert_eq!(fill(config(), "interrupted", 1), (false, "reinforce".into()));
    assert_eq!(Results::at(at("interrupted")).cells().unwrap().len(), 1);
    assert_eq!(fill(config(), "interrupted", 9), (true, "direct, search_r1, r1".into()));
    assert_eq!(fill(config(), "interrupted", 9), (true, String::new()));

    assert_eq!(fill(config(), "whole", 9), (true, "reinforce, direct, search_r1, r1".into()));
    let (interrupted, whole) = (files(&Results::at(at("interrupted"))), files(&Results::at(at("whole"))));
    assert_eq!(interrupted, whole);
    let used = |name: &str| {
        let cell = whole.iter().find(|cell| cell["experiment"] == name).unwrap();
        (cell["usage"]["engine"]["calls"].as_u64() > Some(0), cell["usage"]["simulator"]["calls"].as_u64() > Some(0))
    };
    assert_eq!([used("reinforce"), used("search_r1"), used("r1")], [(true, true), (true, false), (false, false)]);

    // Another simulator: what does not know of it stays.
    let mut other = config();
    other.simulator_steps = 3;
    assert_eq!(fill(other, "interrupted", 9), (true, "reinforce".into()));
}

#[test]
fn nothing_runs_where_a_cell_cannot() {
    let (folder, base, material) = (tempfile::tempdir().unwrap(), base(), material());
    let (results, work) = (Results::at(folder.path().join("results")), folder.path().join("work"));
    let mut runner = Runner::new(config(), &base, &material, &work).unwrap();
    let never = &mut |_: &_| -> Result<(), _> { panic!("a cell was run") };
    for (experiment, expected) in [
        ("sarsa", ["experiment", "sarsa"]),
        ("kl_subtracted", ["defect", "kl_subtracted"]),
        ("plain_zerosearch", ["plain", "without a wrong habit"]),
        ("smaller_simulator", ["smaller", "a smaller base model"]),
    ] {
        let refused = runner.fill(&[("direct", 0), (experiment, 0)], &results, &false.into(), never);
        let message = refused.unwrap_err().to_string();
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!(!work.exists() && results.cells().unwrap().is_empty());
}

#[test]
fn a_cell_knows_the_model_of_another_simulator() {
    let (folder, base, material) = (tempfile::tempdir().unwrap(), base(), material());
    let plain = base.with_file_name("base-plain");
    let runner = |smaller: &Path| {
        let runner = Runner::new(config(), &base, &material, folder.path()).unwrap().smaller(smaller).unwrap();
        ["zerosearch", "smaller_simulator"].map(|experiment| runner.cell_config(experiment, 0).unwrap())
    };
    let [[zerosearch, one], [same, other]] = [runner(&base), runner(&plain)];
    assert_eq!((zerosearch.simulator_model.clone(), one.simulator_model.clone()), (None, Some(one.model.clone())));
    assert!(zerosearch.same_figures(&same) && !one.same_figures(&other) && one.hash() != other.hash());
    assert!(!serde_json::to_string(&zerosearch).unwrap().contains("simulator_model"), "cells from before stay equal");
}
