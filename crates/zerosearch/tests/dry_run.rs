//! A dry run beside a real one: bytes that the trainer allocates, files that it writes, seconds that it takes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;
use zerosearch::burn::tensor::Device;
use zerosearch::config::{RunConfig, Tables};
use zerosearch::device::DeviceName;
use zerosearch::dry_run::{DryRun, DryRunError, KvCache, Memory, MemoryPlan};
use zerosearch::generate::{Generator, Request, Sampling, Turn, never};
use zerosearch::lm::{Decoder, Gradients, HostWeights, ModelConfig, ScoredSequence};
use zerosearch::pipeline::PipelineConfig;
use zerosearch::prelude::*;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The allocator counts for the whole process: one test at a time, even after one that failed.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base")
}

fn file(more: &str) -> String {
    format!(
        "model = {:?}\nquestions = \"no/such/questions.jsonl\"\nout = \"o\"\ndevice = \"cpu\"\nengine = {{ kind = \"none\" }}\n{more}",
        base()
    )
}

fn tables(more: &str, assignments: &[&str]) -> Tables {
    let assignments: Vec<String> = assignments.iter().map(|assignment| assignment.to_string()).collect();
    Tables::parse("run.toml", &file(more), &assignments).unwrap()
}

fn dry_run(assignments: &[&str]) -> Result<DryRun, DryRunError> {
    DryRun::of(tables("", assignments), Path::new("no/such/folder"), None)
}

fn part(memory: &Memory, name: &str) -> u64 {
    memory.parts.iter().filter(|part| part.name.starts_with(name)).map(|part| part.largest()).sum()
}

#[test]
fn weights_are_the_bytes_of_the_files() {
    let _alone = alone();
    // The header of a safetensors file: names and shapes.
    let header = 16 << 10;
    let dry_run = dry_run(&[]).unwrap();
    let file = std::fs::metadata(base().join("model.safetensors")).unwrap().len();
    assert!((file - header..=file).contains(&dry_run.policy.stored_bytes), "{:?} of {file}", dry_run.policy);
    let weights = LanguageModel::read(base()).unwrap().weights;
    assert_eq!(dry_run.policy.parameters, weights.parameters() as u64);
    // A real model, where there is one.
    let real = base().join("../../target/models/smollm2-135m-instruct");
    if let Ok(file) = std::fs::metadata(real.join("model.safetensors")) {
        let dry_run = self::dry_run(&[&format!("model={:?}", real.canonicalize().unwrap())]).unwrap();
        assert!((file.len() - 64 * 1024..=file.len()).contains(&dry_run.policy.stored_bytes), "{:?}", dry_run.policy);
    }
}

/// A run of one step; the bytes that it holds when it is built, and after its step.
fn run(assignments: &[&str], logs: &Path) -> (u64, u64, Trainer) {
    let RunConfig { model, train, .. } = tables("", assignments).into_run().unwrap();
    let questions = ["capital of Chad", "capital of Peru"]
        .map(|text| Question::new(text, format!("What is the {text}?"), vec!["Lima".into()]));
    let before = ALLOCATOR.current_usage();
    let engine = zerosearch::config::EngineConfig::None.read().unwrap();
    let mut trainer = Trainer::builder(LanguageModel::read(model).unwrap(), questions.to_vec(), engine)
        .config(train)
        .device(Device::flex())
        .logs(logs)
        .checkpoints(logs.join("checkpoints"))
        .build()
        .unwrap();
    let built = ALLOCATOR.current_usage() - before;
    drop(trainer.next_step().unwrap().unwrap());
    (built as u64, (ALLOCATOR.current_usage() - before) as u64, trainer)
}

const SMALL: [&str; 7] = [
    "train.steps=1",
    "train.questions_per_step=2",
    "train.samples_per_question=2",
    "train.rollout.max_new_tokens=24",
    "train.learning_rate=1e-4",
    "train.warmup_ratio=0.0",
    "train.micro_batch_tokens=4096",
];

#[test]
fn masters_moments_reference_and_critic_are_what_the_trainer_allocates() {
    let _alone = alone();
    // The first run has what is made once for all: threads, the tokenizer's tables.
    let folder = tempfile::tempdir().unwrap();
    drop(run(&SMALL, &folder.path().join("warm")));
    for (name, more) in [
        ("grpo", vec!["train.algorithm.name=grpo"]),
        ("no_reference", vec!["train.algorithm={name=\"grpo\",kl={estimator=\"k3\",coefficient=0.0}}"]),
        ("ppo", vec!["train.algorithm.name=ppo"]),
        ("lora", vec!["train.algorithm.name=grpo", "train.lora.rank=8"]),
    ] {
        let assignments: Vec<&str> = SMALL.iter().copied().chain(more).collect();
        let dry_run = dry_run(&assignments).unwrap();
        let memory = &dry_run.memory;
        let logs = folder.path().join(name);
        let (built, stepped, trainer) = run(&assignments, &logs);
        let moments = part(memory, "AdamW moments");
        let weights: u64 = ["policy, f32", "adapters", "reference", "critic", "policy for sampling"]
            .iter()
            .map(|name| part(memory, name))
            .sum();
        // Beside them the trainer holds a tokenizer, a prompt template and the like.
        let rest = 6 << 20;
        println!("{name}: built {built} of {weights}, stepped {stepped} with {moments} more");
        assert!((weights..weights + rest).contains(&built), "{name}: built with {built}, computed {weights}");
        assert!((weights + moments..weights + moments + rest).contains(&stepped), "{name}: {stepped}");
        drop(trainer);
        // The optimizer's files hold the moments and a header.
        let checkpoint = logs.join("checkpoints/global_step_1");
        let size = |file: &str| std::fs::metadata(checkpoint.join(file)).map_or(0, |file| file.len());
        let files = size("actor_optimizer.safetensors") + size("critic_optimizer.safetensors");
        assert!((moments..moments + (64 << 10)).contains(&files), "{name}: {files} of {moments}");
        // A gradient is as large as either of its moments.
        assert_eq!(dry_run.memory.parts.iter().filter(|part| part.name == "gradients, f32").count(), 1);
        if name != "ppo" {
            assert_eq!(2 * part(memory, "gradients, f32"), moments);
        }
    }
}

#[test]
fn caches_are_what_the_generator_counts_and_adapters_what_a_run_begins_with() {
    let _alone = alone();
    // Heads of a width that the engine pads.
    let config = ModelConfig { head_dim: 12, ..ModelConfig::tiny_llama(64, 32, 3, 4, 2, 48) };
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::Value::Object(config.to_json()).to_string();
    std::fs::write(folder.path().join("config.json"), json).unwrap();
    let model = format!("model={:?}", folder.path());
    for (rank, target_modules) in [(3, vec!["q_proj", "down_proj"]), (5, vec!["k_proj", "o_proj", "gate_proj"])] {
        let lora = LoraConfig {
            rank,
            target_modules: target_modules.iter().map(|name| name.to_string()).collect(),
            ..LoraConfig::default()
        };
        let assignment = format!("train.lora={{rank={rank},target_modules={target_modules:?}}}");
        let dry_run = dry_run(&[&model, &assignment]).unwrap();
        assert_eq!(dry_run.trained_parameters, lora.initial(&config, 0).parameters() as u64);
    }
    for new in [3, 40] {
        let new_tokens = format!("train.rollout.max_new_tokens={new}");
        let rollouts = ["train.questions_per_step=3", "train.samples_per_question=1"];
        let dry_run = dry_run(&[&[model.as_str(), &new_tokens][..], &rollouts].concat()).unwrap();
        let mut generator = LocalGenerator::new(&config, &HostWeights::init(&config, 1), &[]).unwrap();
        for sequence in 0..3 {
            let turn = Turn { max_new_tokens: new, seed: 0, stop: never(), deadline: None };
            // No two begin alike, and share a cache.
            let prompt = (0..dry_run.lengths.prompt.tokens).map(|index| ((index + sequence) % 64) as u32);
            let prompt: Vec<u32> = prompt.collect();
            generator.start(Request { prompt: &prompt, sampling: Sampling::default(), turn }).unwrap();
        }
        while !generator.poll().unwrap().is_empty() {}
        assert_eq!(generator.statistics().peak_cache_bytes, part(&dry_run.memory, "KV cache of the policy"));
    }
}

#[test]
fn activations_are_what_a_training_pass_allocates() {
    let _alone = alone();
    let model = LanguageModel::read(base()).unwrap();
    let decoder = Decoder::trainable(&model.config, &*model.weights, &Device::flex()).unwrap();
    // Episodes of at most 1,000 tokens, and two of that length to a micro batch.
    let rows = 1000;
    let tokens: Vec<u32> = (0..=rows).map(|index| index % 2000).collect();
    let others: Vec<u32> = (0..=rows).map(|index| (index * 7 + 3) % 2000).collect();
    let positions: Vec<usize> = (1..=rows as usize).collect();
    let sequences = [&tokens, &others].map(|tokens| ScoredSequence { tokens, positions: &positions });
    let computed = dry_run(&[
        "train.micro_batch_tokens=2000",
        "train.rollout.max_new_tokens=700",
        "train.algorithm={name=\"grpo\",kl={estimator=\"k3\",coefficient=0.0}}",
    ])
    .unwrap()
    .memory;
    for (checkpointing, computed) in [(false, computed.activations_kept), (true, computed.activations_checkpointed)] {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let mut gradients = Gradients::default();
        let pass = decoder.pass(&sequences, checkpointing);
        let (logprobs, _) = pass.score(&sequences);
        pass.backward(logprobs.sum(), &mut gradients);
        let peak = (ALLOCATOR.peak_usage() - before) as u64;
        // The peak may come before or after most gradients are there.
        let gradients = 4 * model.weights.parameters() as u64;
        println!("checkpointing {checkpointing}: measured {peak} with gradients, computed {computed} without");
        assert!(peak <= computed + gradients, "checkpointing {checkpointing}: {peak}, computed {computed}");
        assert!(peak as f64 >= 0.95 * computed as f64, "checkpointing {checkpointing}: {peak}, computed {computed}");
    }
}

#[test]
fn a_finished_run_gives_rates_that_estimate_itself() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let assignments: Vec<&str> = SMALL.iter().copied().chain(["train.steps=2", "train.algorithm.name=grpo"]).collect();
    let (_, _, mut trainer) = run(&assignments, folder.path());
    while trainer.next_step().unwrap().is_some() {}
    drop(trainer.into_model().unwrap());
    let rows = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let mean = |name: &str| rows.iter().map(|row| row[name].as_f64().unwrap()).sum::<f64>() / rows.len() as f64;
    let tables =
        tables("rates = { price_per_hour = 3.0, price_per_1000_searches = 9.0, currency = \"USD\" }", &assignments);
    let dry_run = DryRun::of(tables, Path::new(""), Some(folder.path())).unwrap();
    let expected = dry_run.expected.unwrap();
    assert!((expected.step.policy_tokens - mean("cost/policy_tokens_out")).abs() < 1e-6, "{expected:?}");
    assert!(expected.step.policy_tokens <= dry_run.at_most.step.policy_tokens);
    assert!(expected.step.trained_tokens <= dry_run.at_most.step.trained_tokens);
    let estimate = dry_run.estimate.as_ref().unwrap();
    let (rollouts, update) = (mean("timing_s/rollout"), mean("timing_s/update") + mean("timing_s/refit"));
    assert!((estimate.rollouts_s.unwrap() / rollouts - 1.0).abs() < 1e-9, "{estimate:?}");
    assert!((estimate.update_s.unwrap() / update - 1.0).abs() < 1e-9, "{estimate:?}");
    let hours = 2.0 * (rollouts + update) / 3600.0;
    assert!((estimate.hours.unwrap() / hours - 1.0).abs() < 1e-9);
    assert!((estimate.devices_cost.unwrap() / (3.0 * hours) - 1.0).abs() < 1e-9);
    assert_eq!((estimate.searches_cost, estimate.is_expected), (Some(0.0), true));
    assert!(estimate.source.contains("(2 steps)"), "{estimate:?}");
    let report = dry_run.to_string();
    assert!(report.contains("expected, by the rates of") && report.contains(" USD"), "{report}");
}

#[test]
fn without_rates_no_time_is_named_and_a_file_of_them_is_enough() {
    let _alone = alone();
    let searching = "[dry_run]\npolicy_tokens = 100\nsearches = 2\nobservation_tokens = 200\nprompt_tokens = 50\n";
    let retriever = "engine={kind=\"retriever\",url=\"http://h:1\"}";
    let of = |rates: Option<&Path>| DryRun::of(tables(searching, &[retriever]), Path::new(""), rates).unwrap();
    let without = of(None);
    assert!(without.estimate.is_none());
    let report = without.to_string();
    assert!(
        report.contains("no rates") && report.contains("--rates") && !report.contains("time and cost, "),
        "{report}"
    );
    let expected = without.expected.unwrap();
    assert_eq!((expected.step.rollouts, expected.step.policy_tokens), (320.0, 32_000.0));
    assert_eq!((expected.step.trained_tokens, expected.step.searches), (320.0 * 550.0, 640.0));
    assert_eq!(expected.run.searches, 203.0 * 640.0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "decoded_tokens_per_s = 1000\ntrained_tokens_per_s = 4000\nprice_per_1000_searches = 9.2",
    )
    .unwrap();
    let estimate = of(Some(file.path())).estimate.unwrap();
    assert_eq!((estimate.rollouts_s, estimate.update_s), (Some(32.0), Some(44.0)));
    assert!((estimate.hours.unwrap() - 203.0 * 76.0 / 3600.0).abs() < 1e-9);
    assert!((estimate.searches_cost.unwrap() - 9.2 * 203.0 * 0.64).abs() < 1e-9);
    assert_eq!(estimate.devices_cost, None, "an hour has no price");
    assert_eq!(estimate.source, file.path().display().to_string());
}

#[test]
fn a_run_that_would_fail_is_refused_with_its_key() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for (assignments, expected) in [
        (&["train.learning_rate=0"][..], "`learning_rate` is 0"),
        (&["train.algorithm.name=grpo", "train.samples_per_question=1"], "samples_per_question is 1"),
        (&["train.curriculum={kind=\"constant\",probability=2.0}"], "2"),
        (&["engine={kind=\"simulator\",model=\"m\",simulation={max_new_tokens=0}}"], "max_new_tokens"),
        (&["engine={kind=\"retriever\",url=\"http://\"}"], "`engine` has the address \"http://\""),
        (&["engine={kind=\"simulator\",backend=\"vllm\",urls=[\"http://:80/x\"]}"], "`engine` has the address"),
        (&["policy={backend=\"vllm\",urls=[\"http://h:1\"]}"], "train.lora"),
        (&["server.top_k=0"], "top_k"),
        (&["dry_run.memory_gib=0"], "`dry_run.memory_gib` is 0"),
        (&["rates.decoded_tokens_per_s=-1"], "`rates.decoded_tokens_per_s` is -1"),
        (&["dry_run.searches=nan"], "`dry_run.searches` is NaN"),
        (&["model=no/such/Model-1B"], "sizes = { \"no/such/Model-1B\" = "),
    ] {
        let message = dry_run(assignments).unwrap_err().to_string();
        assert!(message.contains(expected), "{assignments:?}: {message}");
    }
    let message = DryRun::of(tables("", &[]), Path::new(""), Some(folder.path())).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl"), "{message}");
    let needs = dry_run(&["dry_run.memory_gib=0.01"]).unwrap().fits().unwrap_err().to_string();
    for expected in ["`dry_run.memory_gib` is 0.01", "MiB", "train.gradient_checkpointing", "train.lora"] {
        assert!(needs.contains(expected), "{needs}");
    }
    assert!(dry_run(&["dry_run.memory_gib=64"]).unwrap().fits().is_ok());
}

#[test]
fn files_and_keys_that_are_not_here_are_listed_and_no_server_is_asked() {
    let _alone = alone();
    let served = [
        "engine={kind=\"simulator\",backend=\"openai\",urls=[\"http://127.0.0.1:9\"],key_env=\"ZEROSEARCH_TEST_NO_SUCH_KEY\"}",
        "policy={backend=\"sglang\",urls=[\"http://127.0.0.1:9\"]}",
    ];
    let dry_run = dry_run(&served).unwrap();
    let missing = dry_run.missing.join("\n");
    assert!(
        missing.contains("no/such/questions.jsonl") && missing.contains("ZEROSEARCH_TEST_NO_SUCH_KEY"),
        "{missing}"
    );
    // Both are decoded elsewhere.
    assert!(dry_run.simulator.is_none());
    assert_eq!(part(&dry_run.memory, "policy for sampling") + part(&dry_run.memory, "KV cache"), 0);
    assert!(dry_run.at_most.step.simulator_tokens > 0.0);
}

#[test]
fn a_generator_that_does_not_sleep_keeps_its_memory_during_an_update() {
    let [asleep, awake] = ["true", "false"].map(|sleep| dry_run(&[&format!("train.sleep={sleep}")]).unwrap().memory);
    assert!(awake.peak_bytes > asleep.peak_bytes);
    for name in ["policy for sampling", "KV cache of the policy"] {
        let held = |memory: &Memory| {
            let part = memory.parts.iter().find(|part| part.name.starts_with(name)).unwrap();
            [part.rollouts, part.update, part.step]
        };
        let [while_sampling, ..] = held(&asleep);
        assert!(while_sampling > 0);
        assert_eq!(held(&asleep), [while_sampling, 0, 0]);
        assert_eq!(held(&awake), [while_sampling; 3]);
    }
}

#[test]
fn a_plan_bounds_the_cache_and_refuses_what_cannot_fit() {
    let _alone = alone();
    let all = dry_run(&[]).unwrap();
    let ((certain, _), peak) = (all.memory.certain(), all.memory.peak_bytes);
    assert!(certain < peak, "{:?}", all.memory);
    for free in [None, Some(peak), Some(u64::MAX)] {
        assert_eq!(all.clone().plan(free).unwrap().kv_cache, KvCache::AsConfigured, "{free:?}");
    }
    let (mut bounded, mut too_large) = (0, 0);
    for free in (certain..peak).step_by(((peak - certain) / 50) as usize) {
        let plan = all.clone().plan(Some(free)).unwrap();
        let line = plan.to_string();
        match plan.kv_cache {
            KvCache::Bounded(bytes) => {
                bounded += 1;
                let mut train = TrainConfig::default();
                plan.apply(&mut train);
                assert_eq!(train.kv_cache_memory_bytes, Some(bytes));
                let smaller = dry_run(&[&format!("train.kv_cache_memory_bytes={bytes}")]).unwrap();
                assert!(smaller.memory.peak_bytes <= free, "{free}: {:?}", smaller.memory);
                assert!(line.contains("KV cache is bounded to"), "{line}");
            }
            KvCache::TooLarge => {
                too_large += 1;
                assert!(line.contains("however short its rollouts are"), "{line}");
            }
            KvCache::AsConfigured => panic!("{free} of {peak}"),
        }
    }
    assert!(bounded > 0 && too_large > 0, "{bounded} bounded, {too_large} too large");
    let refused = all.plan(Some(certain - 1)).unwrap_err().to_string();
    for expected in ["cpu has", "MiB free", "policy, f32 masters", "It would fall with", "`train.lora`"] {
        assert!(refused.contains(expected), "{refused}");
    }
    assert!(!refused.contains("kv_cache_memory_bytes"), "{refused}");
    // The file's word counts before the machine's.
    let given = dry_run(&["dry_run.memory_gib=0.001"]).unwrap();
    let refused = given.plan(Some(u64::MAX)).unwrap_err().to_string();
    assert!(refused.contains("`dry_run.memory_gib` is 0.001"), "{refused}");
    // A value out of range is refused by the run itself, in its own words.
    assert_eq!(MemoryPlan::of(&tables("", &["train.learning_rate=0"]), Path::new("")).unwrap(), None);
}

#[test]
fn a_pipeline_is_planned_with_its_simulator() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base");
    let config = PipelineConfig::default();
    let questions = [Question::new("1", "Who?", vec!["Ada".into()])];
    let plan = |model: &Path| MemoryPlan::of_pipeline(&config, model, &questions, DeviceName::Cpu).unwrap();
    let memory = plan(&model).unwrap().memory;
    let masters = part(&memory, "policy, f32 masters");
    assert!(masters > 4_000_000 * 4 && part(&memory, "simulator, f32") >= masters, "{memory:?}");
    assert!(part(&memory, "KV cache of the simulator") > 0, "{memory:?}");
    // The pipeline says what is wrong with a folder.
    assert_eq!(plan(Path::new("no/such/model")), None);
}
