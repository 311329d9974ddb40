//! A run against a simulator, recorded, repeats to the bit without the simulator, and its ledger has every call.

use std::path::Path;

use zerosearch::generate::{Ledger, Role};
use zerosearch::pipeline::{PipelineConfig, world_material};
use zerosearch::prelude::*;
use zerosearch::search::{Cached, Replay};
use zerosearch::simulator::SimulatorPrompt;
use zerosearch::train::read_ledger;

const STEPS: u64 = 2;

fn config() -> TrainConfig {
    let mut config = PipelineConfig::default().train;
    config.rollout.max_turns = 2;
    config.rollout.max_observation_tokens = 120;
    config.steps = STEPS;
    config.checkpoint_every = 1;
    config.questions_per_step = 2;
    config.samples_per_question = 2;
    config
}

fn trainer(folder: &Path, ledger: &Ledger, engine: impl SearchEngine + 'static) -> Trainer {
    let questions: Vec<Question> = world_material().unwrap().train.into_iter().step_by(100).collect();
    Trainer::builder(base(), questions, engine)
        .config(config())
        .ledger(ledger.clone())
        .logs(folder)
        .checkpoints(folder.join("checkpoints"))
        .build()
        .unwrap()
}

fn base() -> LanguageModel {
    LanguageModel::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base")).unwrap()
}

/// A step without times, and without the figures of the simulator, which a replay has not.
fn bits(report: &StepReport) -> (u64, Vec<(String, u64)>, String) {
    let kept = |name: &str| {
        let of_the_process =
            ["timing_s/", "cost/simulator", "rollout/kv_cache"].iter().any(|group| name.starts_with(group));
        !of_the_process && !["rollout/tokens_per_s", "rollout/idle_share"].contains(&name)
    };
    let metrics = report.metrics.iter().filter(|(name, _)| kept(name));
    let metrics = metrics.map(|(name, value)| (name.to_owned(), value.to_bits())).collect();
    (report.step, metrics, serde_json::to_string(&report.samples).unwrap())
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join(format!("checkpoints/global_step_{STEPS}/actor/model.safetensors"))).unwrap()
}

#[test]
fn a_recorded_run_repeats_without_the_simulator_and_the_ledger_has_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let prompt = SimulatorPrompt::sft().unwrap();
    let simulator = |ledger: &Ledger| {
        let completer = LocalCompleter::new(&base()).unwrap().with_account(ledger.account(Role::Simulator));
        let config = SimulationConfig { max_new_tokens: 40, ..SimulationConfig::default() };
        SimulatedEngine::new(completer, prompt.clone(), config)
    };

    let ledger = Ledger::new();
    let engine = Cached::simulated(simulator(&ledger), at("record.jsonl"), prompt.source()).unwrap();
    let mut recorded = trainer(&at("first"), &ledger, engine);
    let mut steps = Vec::new();
    while let Some(report) = recorded.next_step().unwrap() {
        steps.push(report);
    }
    let searches: f64 = steps.iter().filter_map(|report| report.metrics.get("cost/engine_calls")).sum();
    assert!(searches >= 2.0, "the policy does not search: {searches}");
    let used = read_ledger(at("first/ledger.json")).unwrap();
    let (engine, model, policy) = (used[&Role::Engine], used[&Role::Simulator], used[&Role::Policy]);
    assert_eq!((engine.calls as f64, model.calls, engine.failures), (searches, engine.calls, 0));
    assert_eq!(std::fs::read_to_string(at("record.jsonl")).unwrap().lines().count() as u64, engine.calls);
    assert!(model.tokens_out >= model.calls && model.tokens_in > 20 * model.calls, "{model:?}");
    assert!(
        policy.tokens_out > 0 && policy.calls >= 2 * STEPS * 4 / 2 && policy.device_seconds >= model.device_seconds
    );
    assert!(engine.device_seconds >= model.device_seconds && model.idle_seconds > 0.0, "{engine:?} {model:?}");

    let ledger = Ledger::new();
    let replay = Replay::simulated(at("record.jsonl"), prompt.source()).unwrap();
    let mut replayed = trainer(&at("second"), &ledger, replay);
    for report in &steps {
        let again = replayed.next_step().unwrap().unwrap();
        assert_eq!(bits(&again), bits(report));
    }
    assert!(weights(&at("second")) == weights(&at("first")));
    assert_eq!(ledger.usage(Role::Simulator).calls, 0);
    assert_eq!(read_ledger(at("second/ledger.json")).unwrap()[&Role::Engine].calls, engine.calls);

    // A resumed run goes on with the ledger that it finds.
    drop(replayed);
    let ledger = Ledger::new();
    let replay = Replay::simulated(at("record.jsonl"), prompt.source()).unwrap();
    assert!(trainer(&at("second"), &ledger, replay).is_finished());
    assert_eq!(ledger.usage(Role::Engine).calls, engine.calls);
}
