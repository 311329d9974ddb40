//! Engines, policies and judges as a file names them, against servers in this process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use zerosearch::burn::tensor::Device;
use zerosearch::config::{EngineConfig, Tables};
use zerosearch::generate::{Completer, Completion, CompletionRequest, GenerateError};
use zerosearch::prelude::*;
use zerosearch::search::{Quality, SimulationContext};
use zerosearch::simulator::{Interaction, SimulatorPrompt};

type Log = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers JSON with JSON, and what it was asked.
fn server(answer: impl Fn(&str, &Value) -> Value + Send + 'static) -> (String, Log) {
    let http = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", http.server_addr().to_ip().unwrap());
    let log = Log::default();
    let shared = log.clone();
    std::thread::spawn(move || {
        while let Ok(mut request) = http.recv() {
            let mut text = String::new();
            request.as_reader().read_to_string(&mut text).unwrap();
            let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
            shared.lock().unwrap().push((request.url().to_string(), body.clone()));
            let answer = answer(request.url(), &body).to_string();
            let _ = request.respond(tiny_http::Response::from_string(answer));
        }
    });
    (url, log)
}

fn tables(text: &str) -> Tables {
    Tables::parse("file.toml", text, &[]).unwrap()
}

fn found(engine: &EngineConfig, quality: Quality) -> Vec<String> {
    let answers = ["N'Djamena".to_string()];
    let told = SimulationContext { question: "Capital of Chad?", answers: &answers, quality, seed: 5 };
    let engine = engine.read_on(&Device::flex()).unwrap();
    let found = engine.search(&Query { text: "chad capital", top_k: 2, context: Some(told) }).unwrap();
    found.into_iter().map(|document| document.contents).collect()
}

#[test]
fn a_served_simulator_is_asked_as_its_keys_say() {
    for (backend, keys, path) in [
        ("openai", "mode = \"prompt\"\nsystem = \"Play.\"\nserved_model = \"m\"", "/v1/chat/completions"),
        ("sglang", "api = \"completions\"", "/v1/completions"),
        ("vllm", "api = \"chat\"\nserved_model = \"m\"\nconcurrency = 2", "/v1/chat/completions"),
    ] {
        let (url, log) = server(|path, _| match path {
            "/v1/models" => json!({"object": "list", "data": [{"id": "m", "object": "model"}]}),
            "/v1/completions" => json!({"choices": [{"text": "Doc 1: a\nDoc 2: b\nDoc 3: c"}]}),
            _ => json!({"choices": [{"message": {"content": "Doc 1: a\nDoc 2: b\nDoc 3: c"}}]}),
        });
        let text = format!("[engine]\nkind = \"simulator\"\nbackend = \"{backend}\"\nurls = [\"{url}\"]\n{keys}");
        assert_eq!(found(&tables(&text).engine.unwrap(), Quality::Useful), ["a", "b"]);
        let log = log.lock().unwrap();
        assert_eq!(log[0].0, "/v1/models");
        let (asked, body) = &log[1];
        assert_eq!((asked.as_str(), &body["model"]), (path, &json!("m")));
        let prompt =
            if keys.contains("prompt") { SimulatorPrompt::prompted() } else { SimulatorPrompt::sft() }.unwrap();
        let prompt =
            prompt.render("Capital of Chad?", &["N'Djamena".into()], "chad capital", Quality::Useful, 2).unwrap();
        let user = json!({"role": "user", "content": prompt});
        match (path, keys.contains("system")) {
            ("/v1/completions", _) => assert_eq!(body["prompt"], json!(prompt)),
            (_, true) => assert_eq!(body["messages"], json!([{"role": "system", "content": "Play."}, user])),
            (_, false) => assert_eq!(body["messages"], json!([user])),
        }
    }
}

#[test]
fn a_format_brings_its_simulators_system_message() {
    let text =
        "train.rollout.format = \"zerosearch\"\n[engine]\nkind = \"simulator\"\nbackend = \"vllm\"\nurls = [\"h:1\"]\n";
    let system = |text: &str| {
        let Some(EngineConfig::Simulated(simulator)) = tables(text).engine else { panic!("a simulator") };
        simulator.server.unwrap().system
    };
    assert_eq!(system(text), Some(String::new()));
    assert_eq!(system(&format!("{text}system = \"own\"")), Some("own".into()));
    assert_eq!(system(&format!("{text}api = \"completions\"")), None);
}

#[test]
fn servers_that_cannot_be_used_are_refused_when_the_file_is_read() {
    let (several, _) = server(|_, _| json!({"data": [{"id": "a"}, {"id": "b"}]}));
    for (keys, expected) in [
        (format!("urls = [\"{several}\"]"), "but [a, b]"),
        ("urls = [\"http://127.0.0.1:9\"]".into(), "http://127.0.0.1:9/v1/models"),
        (format!("urls = [\"{several}\"]\nkey_env = \"ZEROSEARCH_TEST_NO_SUCH_KEY\""), "ZEROSEARCH_TEST_NO_SUCH_KEY"),
        (format!("urls = [\"{several}\"]\nmodel = \"no/such/folder\""), "no/such/folder"),
    ] {
        let text = format!("[engine]\nkind = \"simulator\"\nbackend = \"openai\"\n{keys}");
        let message = tables(&text).engine.unwrap().read().err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn retrievers_of_both_dialects_and_a_recording_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    for dialect in ["search_r1", "zerosearch"] {
        let (url, log) = server(|_, body| match body.get("queries") {
            Some(_) => json!({"result": [[{"document": {"contents": "r1"}, "score": 1.0}]]}),
            None => json!([{"contents": "zs"}]),
        });
        let _ = std::fs::remove_file(&file);
        let text = format!(
            "[engine]\nkind = \"retriever\"\nurls = [\"{url}\"]\ndialect = \"{dialect}\"\n[engine.wrap]\ncache = {file:?}"
        );
        let engine = tables(&text).engine.unwrap();
        let expected = [if dialect == "search_r1" { "r1" } else { "zs" }];
        // The second process sends no request, and a replay does not even need the server.
        assert_eq!(
            (found(&engine, Quality::Noisy), found(&engine, Quality::Noisy)),
            (expected.map(String::from).into(), expected.map(String::from).into())
        );
        assert_eq!(log.lock().unwrap().len(), 1);
        let text = text.replace("cache", "replay").replace(&url, "http://127.0.0.1:9");
        assert_eq!(found(&tables(&text).engine.unwrap(), Quality::Useful), expected);
    }
}

#[test]
fn a_served_simulator_is_recorded_and_replayed_by_its_whole_context() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    let (url, log) = server(|path, _| match path {
        "/v1/models" => json!({"data": [{"id": "m"}]}),
        _ => json!({"choices": [{"message": {"content": "Doc 1: a\nDoc 2: b"}}]}),
    });
    let text = |keys: &str| {
        let engine = format!("[engine]\nkind = \"simulator\"\nbackend = \"openai\"\nurls = [\"{url}\"]\n");
        tables(&format!("{engine}[engine.wrap]\n{keys}")).engine.unwrap()
    };
    let record = text(&format!("record = {file:?}\nrate_limit = 100.0\nbudget = {{ calls = 2 }}"));
    assert_eq!(found(&record, Quality::Useful), ["a", "b"]);
    // A known answer costs nothing; the same query with the other keyword is another one.
    assert_eq!(
        (found(&record, Quality::Useful), found(&record, Quality::Noisy)),
        (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()])
    );
    let asked = |path: &str| log.lock().unwrap().iter().filter(|(asked, _)| asked == path).count();
    assert_eq!(asked("/v1/chat/completions"), 2);
    let models = asked("/v1/models");
    let replay = text(&format!("replay = {file:?}"));
    assert_eq!(found(&replay, Quality::Noisy), ["a", "b"]);
    assert_eq!((asked("/v1/chat/completions"), asked("/v1/models")), (2, models), "a replay asks nobody");
}

#[test]
fn a_judge_is_a_model_on_a_server_or_the_rule() {
    let (url, log) = server(|path, body| match path {
        "/v1/models" => json!({"data": [{"id": "judge"}]}),
        _ => {
            let text = body["messages"][0]["content"].as_str().unwrap();
            json!({"choices": [{"message": {"content": if text.contains("lake") { "No." } else { "Yes." }}}]})
        }
    });
    let interaction = |document: &str| Interaction {
        question: "Capital of Chad?".into(),
        golden_answers: vec!["N'Djamena".into()],
        query: "chad".into(),
        documents: vec![document.into()],
    };
    let interactions = ["Its seat of government is called so.", "A lake."].map(interaction);
    let labels = |text: &str| tables(text).judge.read_on(&Device::flex()).unwrap().judge(&interactions).unwrap();
    let served = format!("[judge]\nkind = \"llm\"\nbackend = \"openai\"\nurls = [\"{url}\"]");
    assert_eq!(labels(&served), [Quality::Useful, Quality::Noisy]);
    assert!(
        log.lock()
            .unwrap()
            .iter()
            .skip(1)
            .all(|(path, body)| path == "/v1/chat/completions" && body["model"] == "judge")
    );
    assert_eq!(labels("judge.kind = \"rule\""), [Quality::Noisy, Quality::Noisy]);
}

/// Keeps what a completer wrote, by prompt and by the bits of the seed that travel.
struct Recorder<C>(C, Arc<Mutex<HashMap<(String, u64), String>>>);

fn short(seed: u64) -> u64 {
    (seed ^ (seed >> 32)) & 0x7fff_ffff
}

impl<C: Completer> Completer for Recorder<C> {
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        let completions = self.0.complete(requests)?;
        let mut kept = self.1.lock().unwrap();
        for (request, completion) in requests.iter().zip(&completions) {
            kept.insert((request.prompt.clone(), short(request.seed)), completion.text.clone());
        }
        Ok(completions)
    }
}

#[test]
fn three_steps_against_a_served_simulator_are_those_against_a_local_one_to_the_bit() {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/base");
    let train = "[train]\nsteps = 3\nquestions_per_step = 2\nsamples_per_question = 2\nlearning_rate = 1e-4\nwarmup_ratio = 0.0\n\
         algorithm = { name = \"grpo\" }\n[train.rollout]\nmax_turns = 2\nmax_new_tokens = 64\nmax_observation_tokens = 90\ntop_k = 2\n";
    let engine = "[engine]\nkind = \"simulator\"\nsimulation.max_new_tokens = 16\n";
    let head = format!("model = {base:?}\nquestions = \"q.jsonl\"\nout = \"o\"\n");
    let local = tables(&format!("{head}{engine}model = {base:?}\n{train}")).into_run().unwrap();
    let model = LanguageModel::read(&local.model).unwrap();
    let questions: Vec<Question> = ["capital of Chad", "capital of Peru", "capital of Mali"]
        .map(|text| Question::new(text, format!("What is the {text}?"), vec!["Lima".into()]))
        .into();
    let trainer = |config: TrainConfig, engine: Box<dyn SearchEngine>| {
        Trainer::builder(model.clone(), questions.clone(), engine)
            .device(Device::flex())
            .config(config)
            .build()
            .unwrap()
    };

    let kept = Arc::default();
    let EngineConfig::Simulator { simulation, .. } = local.engine else { panic!("a local simulator") };
    let completer = Recorder(LocalCompleter::on(&model, &Device::flex()).unwrap(), Arc::clone(&kept));
    let recorded = SimulatedEngine::new(completer, SimulatorPrompt::for_model(base).unwrap(), simulation);
    let mut here = trainer(local.train, Box::new(recorded));
    let expected: Vec<StepReport> = std::iter::from_fn(|| here.next_step().unwrap()).collect();
    let searches = expected.iter().flat_map(|report| &report.samples).map(|sample| sample.rollout.calls().count());
    assert!(searches.sum::<usize>() > 2 && expected.len() == 3);

    let (url, log) = server(move |path, body| match path {
        "/v1/models" => json!({"data": [{"id": "simulator"}]}),
        _ => {
            let key = (body["prompt"].as_str().unwrap().to_string(), body["seed"].as_u64().unwrap());
            json!({"choices": [{"text": kept.lock().unwrap()[&key]}]})
        }
    });
    let served = format!("backend = \"vllm\"\nurls = [\"{url}\"]\napi = \"completions\"\nmodel = {base:?}\n");
    let served = tables(&format!("{head}{engine}{served}{train}")).into_run().unwrap();
    let mut there = trainer(served.train, served.engine.read_on(&Device::flex()).unwrap());
    for report in expected {
        assert_eq!(there.next_step().unwrap().unwrap().samples, report.samples);
    }
    assert!(log.lock().unwrap().len() > 3);
    assert!(here.into_model().unwrap().weights == there.into_model().unwrap().weights);
}

/// The known keys of a table, as the error on an unknown key lists them.
fn keys(table: &str) -> BTreeSet<String> {
    let assignment = match table {
        "" => "no_such_key=1".to_string(),
        table => format!("{table}.no_such_key=1"),
    };
    let kinds = ["engine.kind=web", "judge.kind=rule", "validation.engine={kind=\"none\"}", "validation.questions=q"];
    let needed = kinds.iter().filter(|kind| kind.starts_with(table) && !table.is_empty());
    let assignments: Vec<String> = needed.map(|kind| kind.to_string()).chain([assignment]).collect();
    let message = Tables::parse("page", "", &assignments).unwrap_err().to_string();
    let (_, expected) = message.split_once("expected").unwrap_or_else(|| panic!("{table}: {message}"));
    expected.lines().next().unwrap().split('`').skip(1).step_by(2).map(String::from).collect()
}

#[test]
fn the_page_names_every_key_and_no_other() {
    let page = include_str!("../../../docs/src/configuration.md");
    let (_, tables) = page.split_once("## The file").unwrap();
    // The first column of a table of keys, and every word in code for those that stand in a text.
    let first_column = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let words =
        |text: &str| -> Vec<String> { format!("`{text}").split('`').skip(1).step_by(2).map(String::from).collect() };
    let documented: BTreeSet<String> =
        first_column.flat_map(words).filter(|word| !word.starts_with('"') && word != "kind").collect();
    let anywhere: BTreeSet<&str> =
        tables.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let mut known = BTreeSet::new();
    for table in [
        "",
        "engine",
        "engine.wrap",
        "engine.wrap.budget",
        "server",
        "engine.simulation",
        "judge",
        "validation",
        "train",
        "train.rollout",
        "train.rollout.sampling",
        "train.optimizer",
        "train.lora",
        "collect",
        "tune",
        "tune.lessons",
        "tune.simulation",
        "tune.lora",
        "dry_run",
        "rates",
        "train.kl_reward",
        "train.importance_sampling",
    ] {
        let keys = keys(table);
        assert!(keys.len() > 1, "{table}: {keys:?}");
        for key in &keys {
            assert!(anywhere.contains(key.as_str()), "docs/src/configuration.md does not name `{key}` of [{table}]");
        }
        known.extend(keys);
    }
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(unknown.is_empty(), "docs/src/configuration.md names keys that do not exist: {unknown:?}");
}

#[test]
fn what_does_not_go_together_is_refused_with_its_line() {
    for (text, expected, line) in [
        ("[engine]\nkind = \"bm25\"\ncorpus = \"c\"\nmode = \"prompt\"", "`mode` does not go with kind = \"bm25\"", 4),
        ("[engine]\nkind = \"simulator\"\nbackend = \"openai\"", "`urls` is missing: backend = \"openai\"", 1),
        (
            "[engine]\nkind = \"simulator\"\nmodel = \"m\"\nurls = [\"h\"]",
            "`urls` does not go with backend = \"local\"",
            4,
        ),
        ("[engine]\nkind = \"simulator\"", "`model` is missing", 1),
        ("[engine]\nkind = \"simulator\"\nbackend = \"tgi\"", "expected one of `local`, `openai`, `sglang`, `vllm`", 3),
        ("[engine]\nkind = \"bm25\"\ncorpus = \"c\"\ndevice = \"cpu\"", "`device` does not go with kind = \"bm25\"", 4),
        (
            "[engine]\nkind = \"simulator\"\nbackend = \"vllm\"\nurls = [\"h\"]\ndevice = \"cpu\"",
            "`device` is where this process decodes a simulator",
            5,
        ),
        (
            "[engine]\nkind = \"simulator\"\nmodel = \"m\"\ndevice = \"cdua\"",
            "the device is \"cdua\", expected auto, cpu",
            4,
        ),
        ("further_devices = [\"cpu\", \"gpu\"]", "the device is \"gpu\", expected auto, cpu", 1),
        ("[engine]\nkind = \"bm24\"", "expected one of `simulator`, `bm25`", 2),
        ("[engine]\nkind = \"bm25\"\ncorpus = 1", "expected path string", 3),
        ("[engine]\nkind = \"bm25\"\ncorpsu = \"c\"", "unknown field `corpsu`, expected one of", 3),
        ("[engine]\nkind = \"none\"\ncorpus = \"c\"", "`corpus` does not go with kind = \"none\"", 3),
        (
            "[engine]\nkind = \"simulator\"\nbackend = \"vllm\"\nurls = [\"h\"]\napi = \"completions\"\nsystem = \"s\"",
            "`system` goes with api = \"chat\"",
            6,
        ),
        (
            "[engine]\nkind = \"web\"\nprovider = \"serper\"\n[engine.wrap]\nreplay = \"f\"\nrate_limit = 1.0",
            "`wrap.rate_limit` stands beside `wrap.replay`",
            1,
        ),
        (
            "[engine]\nkind = \"web\"\nprovider = \"serper\"\n[engine.wrap]\nbudget = { amount = 5.0 }",
            "`calls`, or `amount` and `price`",
            1,
        ),
        (
            "[judge]\nkind = \"rule\"\nmodel = \"m\"",
            "`model` does not go with kind = \"rule\", which takes no other key",
            3,
        ),
        ("[judge]\nkind = \"llm\"", "`model` is missing", 1),
        ("[policy]\nbackend = \"local\"\nurls = [\"h\"]", "`urls` does not go with backend = \"local\"", 3),
        ("[policy]\nbackend = \"sglang\"", "`urls` is missing: backend = \"sglang\"", 1),
        ("[policy]\nbackend = \"tgi\"", "unknown variant `tgi`", 1),
    ] {
        let message = Tables::parse("run.toml", text, &[]).unwrap_err().to_string();
        let place = format!("run.toml: TOML parse error at line {line},");
        assert!(
            message.starts_with(&place) && message.contains(expected),
            "{message}\nexpected: line {line}: {expected}"
        );
    }
    // A key of the file is found when there are assignments, too.
    let text = "[engine]\nkind = \"bm25\"\ncorpus = \"c\"\n";
    let message = Tables::parse("run.toml", &format!("{text}mode = \"sft\""), &["train.steps=1".into()]).unwrap_err();
    assert!(message.to_string().contains("line 4"), "{message}");
    let message = Tables::parse("run.toml", text, &["engine.mode=sft".into()]).unwrap_err();
    assert!(message.to_string().contains("`mode` does not go with kind = \"bm25\""), "{message}");
}

#[test]
fn policy_and_generator_are_two_names_of_one_table() {
    let policy = tables("[policy]\nbackend = \"sglang\"\nurls = [\"http://h:1\"]\nseeds = false\n").policy;
    assert_eq!(policy, tables("[generator]\nkind = \"sglang\"\nurl = \"http://h:1\"\nseeds = false\n").policy);
    assert!(policy.0.is_some() && tables("policy.backend = \"local\"").policy.0.is_none());
    let both = "generator = { kind = \"sglang\", url = \"h\" }\npolicy = { backend = \"sglang\", url = \"h\" }";
    assert!(Tables::parse("f", both, &[]).unwrap_err().to_string().contains("stands beside `policy`"));
}

#[test]
fn what_is_printed_has_the_defaults_no_secret_and_is_read_back() {
    let text = "model = \"m\"\n[engine]\nkind = \"simulator\"\nbackend = \"vllm\"\nurls = [\"http://me:secret@h:1/v1\"]\n\
         key_env = \"KEY\"\n[policy]\nbackend = \"sglang\"\nurls = [\"http://h:2/\"]\n[validation]\nquestions = \"q\"\n\
         engine = { kind = \"retriever\", url = \"http://h:3/retrieve\" }\n";
    let printed = tables(text).effective().unwrap();
    for expected in [
        "mode = \"sft\"",
        "api = \"chat\"",
        "reward = \"f1\"",
        "device = \"auto\"",
        "dialect = \"search_r1\"",
        "format = \"default\"",
        "steps = 203",
        "kind = \"rule\"",
        "seeds = true",
        "key_env = \"KEY\"",
        "temperature = 0.8",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");
    assert_eq!(tables(&printed).effective().unwrap(), printed);
    let without = text.replace("me:secret@", "");
    assert_eq!(tables(&tables(&without).effective().unwrap()), tables(&without));
}

#[test]
fn without_an_engine_an_episode_has_one_turn_and_nothing_is_searched() {
    let run = tables("engine.kind = \"none\"");
    assert_eq!(run.train.rollout.max_turns, 1);
    assert!(run.engine_of_evaluation().unwrap().is_none());
    let simulated = tables("engine = { kind = \"simulator\", model = \"m\" }");
    assert!(simulated.engine_of_evaluation().unwrap_err().to_string().contains("a real engine"));
    let text = "engine = { kind = \"simulator\", model = \"m\" }\nvalidation = { questions = \"q\", engine = { kind = \"bm25\", corpus = \"c\" } }";
    assert!(matches!(tables(text).engine_of_evaluation().unwrap(), Some(EngineConfig::Bm25 { .. })));
}
