//! Several servers of one kind: who is asked, and what becomes of those that fail, were started again, or missed an update.

mod fake;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::strict::Program;
use fake::{impatient, strict_server};
use serde_json::{Value, json};
use zerosearch_generate::{
    Completer, CompletionRequest, Generator, Request, Sampling, TokenId, Turn, WeightVersion, never,
};
use zerosearch_remote::{OpenAiServer, RetryPolicy, SglangGenerator};

/// SGLang, whose model samples the number in the name of the folder that it has loaded, or 999 before.
struct Sglang {
    version: Mutex<String>,
    is_gone: AtomicBool,
    updates: AtomicUsize,
}

impl Sglang {
    fn start() -> (String, fake::Log, Arc<Self>) {
        let (version, is_gone) = (Mutex::new("default".to_string()), AtomicBool::new(false));
        let state = Arc::new(Self { version, is_gone, updates: AtomicUsize::new(0) });
        let shared = state.clone();
        let (url, log) = strict_server(Program::Sglang, move |_, path, body| shared.answer(path, body));
        (url, log, state)
    }

    fn answer(&self, path: &str, body: &Value) -> (u16, Value) {
        if self.is_gone.load(Ordering::SeqCst) {
            return (503, json!("Service Unavailable"));
        }
        let mut version = self.version.lock().unwrap();
        match path {
            "POST /generate" => {
                let token: TokenId = version.rsplit('/').next().unwrap().parse().unwrap_or(999);
                let meta = json!({"id": "x", "finish_reason": {"type": "length", "length": 1}, "prompt_tokens": 1, "completion_tokens": 1,
                    "weight_version": *version, "num_retractions": 0, "output_token_logprobs": [[-0.5, token, null]]});
                (200, json!({"text": "", "output_ids": [token], "meta_info": meta}))
            }
            "POST /update_weights_from_disk" => {
                *version = body["weight_version"].as_str().unwrap().to_string();
                self.updates.fetch_add(1, Ordering::SeqCst);
                (
                    200,
                    json!({"success": true, "message": "Succeeded to update model weights.", "num_paused_requests": 0}),
                )
            }
            "GET /get_model_info" => {
                (200, json!({"model_path": "m", "weight_version": *version, "is_generation": true}))
            }
            _ => (200, json!({"message": "ok", "status": "ok"})),
        }
    }
}

fn sampled(generator: &mut SglangGenerator, count: usize) -> BTreeSet<TokenId> {
    for seed in 0..count as u64 {
        let turn = Turn { max_new_tokens: 1, seed, stop: never(), deadline: None };
        generator.start(Request { prompt: &[1, 2], sampling: Sampling::default(), turn }).unwrap();
    }
    generator.poll().unwrap().iter().flat_map(|finished| finished.tokens.iter().map(|token| token.id)).collect()
}

/// Samples until this holds; all along every token is of these weights. Each server is asked sooner or later: of two that
/// are idle, the one that was asked less often.
fn sampled_until(generator: &mut SglangGenerator, token: TokenId, holds: impl Fn(&SglangGenerator) -> bool) {
    for _ in 0..100 {
        assert_eq!(sampled(generator, 8), BTreeSet::from([token]));
        if holds(generator) {
            return;
        }
    }
    panic!("not after 800 turns: {:?}", generator.endpoints());
}

#[test]
fn no_server_samples_with_weights_that_are_not_the_newest() {
    let [(first, _, one), (second, log, other)] = [Sglang::start(), Sglang::start()];
    let mut generator = SglangGenerator::at(&[&first, &second], 100).with_retry(impatient()).with_seeds();
    generator.check().unwrap();
    generator.refit("/weights/1", WeightVersion(1)).unwrap();
    assert_eq!(sampled(&mut generator, 8), BTreeSet::from([1]));
    // An update each, and at least one of the eight turns: how many more depends on who answers faster.
    let requests: Vec<u64> = generator.endpoints().iter().map(|counts| counts.requests).collect();
    assert!(requests.iter().sum::<u64>() == 10 && requests.iter().all(|count| *count >= 2), "{requests:?}");

    // One misses an update, and is given it when it is back.
    other.is_gone.store(true, Ordering::SeqCst);
    generator.refit("/weights/2", WeightVersion(2)).unwrap();
    assert_eq!(sampled(&mut generator, 8), BTreeSet::from([2]));
    other.is_gone.store(false, Ordering::SeqCst);
    while !generator.endpoints().iter().all(|counts| counts.is_up) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(*other.version.lock().unwrap(), "/weights/1");
    assert_eq!(sampled(&mut generator, 8), BTreeSet::from([2]));
    assert_eq!(*other.version.lock().unwrap(), "/weights/2");

    // One is started again between two requests, with the weights of its command line.
    *one.version.lock().unwrap() = "default".into();
    sampled_until(&mut generator, 2, |_| *one.version.lock().unwrap() == "/weights/2");

    // One that fails for a moment and still has them is not made to load them again.
    let updates = other.updates.load(Ordering::SeqCst);
    let failures = generator.endpoints()[1].failures;
    other.is_gone.store(true, Ordering::SeqCst);
    sampled_until(&mut generator, 2, |generator| generator.endpoints()[1].failures > failures);
    other.is_gone.store(false, Ordering::SeqCst);
    while !generator.endpoints().iter().all(|counts| counts.is_up) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(sampled(&mut generator, 8), BTreeSet::from([2]));
    assert_eq!(other.updates.load(Ordering::SeqCst), updates);
    assert!(log.lock().unwrap().iter().any(|(path, _)| path == "/get_model_info"));
}

#[test]
fn a_fleet_that_is_gone_is_named_whole() {
    let [(first, _, one), (second, _, other)] = [Sglang::start(), Sglang::start()];
    let mut generator = SglangGenerator::at(&[&first, &second], 100).with_retry(impatient());
    [one, other].iter().for_each(|server| server.is_gone.store(true, Ordering::SeqCst));
    for error in [generator.check().unwrap_err(), generator.refit("/weights/1", WeightVersion(1)).unwrap_err()]
        .map(|e| e.to_string())
    {
        assert!(error.contains(&first) && error.contains(&second) && error.contains("all 2 servers failed"), "{error}");
    }
    assert_eq!(generator.weight_version(), WeightVersion(0));
    let turn = Turn { max_new_tokens: 1, seed: 0, stop: never(), deadline: None };
    generator.start(Request { prompt: &[1], sampling: Sampling::default(), turn }).unwrap();
    let error = generator.poll().unwrap_err().to_string();
    assert!(error.contains(&format!("{first}/generate: status 503")) && error.contains("(4 attempts)"), "{error}");
}

#[test]
fn completions_are_strict_openai_and_do_not_depend_on_who_answers() {
    let ill = Arc::new(AtomicUsize::new(0));
    let start = |fails: bool| {
        let ill = ill.clone();
        strict_server(Program::OpenAi, move |_, path, body| {
            if fails && ill.fetch_add(1, Ordering::SeqCst) < 5 {
                return (500, json!({"error": {"message": "CUDA error"}}));
            }
            let text = format!("{} {}", body["messages"][0]["content"].as_str().unwrap(), body["seed"]);
            assert_eq!(path, "POST /v1/chat/completions");
            (
                200,
                json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}], "usage": {"completion_tokens": 2}}),
            )
        })
    };
    let request = |seed: u64| CompletionRequest {
        prompt: format!("q{seed}"),
        sampling: Sampling::default(),
        max_new_tokens: 8,
        seed,
        stop: vec!["\n".into()],
    };
    let requests: Vec<_> = (0..24).map(request).collect();
    let patient = RetryPolicy { attempts: 3, ..impatient() };
    let ((alone, _), (first, _), (second, _)) = (start(false), start(false), start(true));
    let expected = OpenAiServer::chat(&alone, "m").with_retry(patient).complete(&requests).unwrap();
    let fleet = OpenAiServer::chat_at(&[&first, &second], "m").with_key("secret").with_retry(patient);
    assert_eq!(fleet.complete(&requests).unwrap(), expected);
    let counts = fleet.endpoints();
    assert!(counts[1].failures > 0 && counts[0].failures == 0, "{counts:?}");
    let counters = fleet.counters();
    let name = format!("{}/failures", first.trim_start_matches("http://"));
    assert!(counters.contains(&(name, 0.0)), "{counters:?}");
}
