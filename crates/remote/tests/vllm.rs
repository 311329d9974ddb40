//! A generator over vLLM's protocol, against a server in this process that takes nothing but what is documented.

mod fake;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fake::strict::Program;
use fake::{impatient, server, strict_server};
use serde_json::{Value, json};
use zerosearch_generate::{
    Finish, GenerateError, Generator, Request, SampledToken, Sampling, TokenId, Turn, WeightVersion, never,
};
use zerosearch_remote::VllmGenerator;

/// An answer in vLLM's form: these tokens, each with a log-probability made from its id.
fn answer(tokens: &[TokenId], finish: &str, stop: Value) -> Value {
    let logprobs: Vec<f32> = tokens.iter().map(|id| -(*id as f32) / 4.0).collect();
    let texts: Vec<String> = tokens.iter().map(|id| format!("<{id}>")).collect();
    let top: Vec<Value> = texts.iter().zip(&logprobs).map(|(text, logprob)| json!({text.as_str(): logprob})).collect();
    let logprobs =
        json!({"text_offset": vec![0; tokens.len()], "token_logprobs": logprobs, "tokens": texts, "top_logprobs": top});
    let choice = json!({"index": 0, "text": texts.concat(), "logprobs": logprobs, "finish_reason": finish, "stop_reason": stop,
        "token_ids": tokens, "prompt_logprobs": null, "prompt_token_ids": [1]});
    json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice],
        "service_tier": null, "system_fingerprint": null, "usage": {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1},
        "kv_transfer_params": null})
}

/// A model that counts on from the last token, for as long as it may.
fn count_on(body: &Value) -> Value {
    let last = body["prompt"].as_array().unwrap().last().unwrap().as_u64().unwrap() as TokenId;
    let count = body["max_tokens"].as_u64().unwrap() as TokenId;
    answer(&(last + 1..=last + count).collect::<Vec<_>>(), "length", json!(null))
}

/// vLLM with its adapters: completions are refused for a model that it does not have.
#[derive(Default)]
struct Vllm {
    adapters: BTreeMap<String, String>,
}

impl Vllm {
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let error = |status: u16, kind: &str, message: String| {
            (status, json!({"error": {"message": message, "type": kind, "param": null, "code": status}}))
        };
        let name = body["lora_name"].as_str().unwrap_or_default().to_string();
        match path {
            "POST /v1/load_lora_adapter" if self.adapters.contains_key(&name) => error(
                400,
                "InvalidUserInput",
                format!(
                    "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
                ),
            ),
            "POST /v1/load_lora_adapter" => {
                self.adapters.insert(name.clone(), body["lora_path"].as_str().unwrap().into());
                (200, json!(format!("Success: LoRA adapter '{name}' added successfully.")))
            }
            "POST /v1/unload_lora_adapter" if self.adapters.remove(&name).is_none() => {
                error(404, "NotFoundError", format!("The lora adapter '{name}' cannot be found."))
            }
            "POST /v1/unload_lora_adapter" => {
                (200, json!(format!("Success: LoRA adapter '{name}' removed successfully.")))
            }
            "POST /v1/completions" => match body["model"].as_str() {
                Some(model) if !self.adapters.contains_key(model) => {
                    error(404, "NotFoundError", format!("The model `{model}` does not exist."))
                }
                _ => (200, count_on(body)),
            },
            _ => (200, json!("")),
        }
    }
}

fn vllm() -> (String, fake::Log, Arc<Mutex<Vllm>>) {
    let state = Arc::new(Mutex::new(Vllm::default()));
    let shared = state.clone();
    let (url, log) = strict_server(Program::Vllm, move |_, path, body| shared.lock().unwrap().answer(path, body));
    (url, log, state)
}

fn turn(max_new_tokens: usize, stop_at: Option<TokenId>) -> Turn {
    let stop = stop_at.map_or_else(never, |stop| Box::new(move |id| id == stop));
    Turn { max_new_tokens, seed: 3, stop, deadline: None }
}

fn sample(generator: &mut VllmGenerator, prompt: &[TokenId], turn: Turn) -> Result<Vec<SampledToken>, GenerateError> {
    generator.start(Request { prompt, sampling: Sampling::default(), turn })?;
    Ok(generator.poll()?.remove(0).tokens)
}

#[test]
fn every_field_is_documented_and_tokens_come_back() {
    let (url, log, _) = vllm();
    let mut generator = VllmGenerator::new(&format!("{url}/v1"), 100).with_retry(impatient());
    generator.check().unwrap();
    let sampled = sample(&mut generator, &[5, 6], turn(2, None)).unwrap();
    assert_eq!(sampled, [SampledToken::new(7, -1.75), SampledToken::new(8, -2.0)]);
    let expected = json!({"prompt": [5, 6], "max_tokens": 2, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": 0, "return_token_ids": true,
        "skip_special_tokens": false});
    assert_eq!(log.lock().unwrap()[1], ("/v1/completions".to_string(), expected));

    let mut generator =
        VllmGenerator::new(&url, 100).with_retry(impatient()).with_seeds().with_stop_strings(["</search>"]);
    let sampling = Sampling { temperature: 0.5, top_k: 7, top_p: 0.75, min_p: 0.25, min_new_tokens: 3 };
    generator.start(Request { prompt: &[1], sampling, turn: turn(9, Some(4)) }).unwrap();
    let finished = generator.poll().unwrap().remove(0);
    assert_eq!((finished.tokens.len(), finished.finish), (3, Finish::Stop), "the stopping token is kept");
    let body = log.lock().unwrap()[2].1.clone();
    let sent = ["seed", "stop", "include_stop_str_in_output", "min_tokens", "top_k"].map(|name| body[name].clone());
    assert_eq!(sent, [json!(3), json!(["</search>"]), json!(true), json!(3), json!(7)]);
}

#[test]
fn every_version_is_an_adapter_of_its_own_and_the_one_before_is_forgotten() {
    let (url, log, state) = vllm();
    let mut generator = VllmGenerator::new(&url, 100).with_retry(impatient());
    let mut names = Vec::new();
    for version in 0..3 {
        generator.load_adapter(&format!("/adapters/{version}"), WeightVersion(version)).unwrap();
        assert_eq!(generator.weight_version(), WeightVersion(version));
        sample(&mut generator, &[1], turn(1, None)).unwrap();
        let adapters = state.lock().unwrap().adapters.clone();
        let (name, folder) = adapters.iter().next().unwrap();
        assert_eq!((adapters.len(), folder.as_str()), (1, format!("/adapters/{version}").as_str()));
        assert_eq!(log.lock().unwrap().iter().rfind(|(path, _)| path == "/v1/completions").unwrap().1["model"], **name);
        names.push(name.clone());
    }
    names.dedup();
    assert_eq!(names.len(), 3);

    // A server that was started again has the base model alone: it is given the adapter before it samples.
    state.lock().unwrap().adapters.clear();
    sample(&mut generator, &[1], turn(1, None)).unwrap();
    assert_eq!(state.lock().unwrap().adapters.get(&names[2]).unwrap(), "/adapters/2");

    // Another client never finds caches under its own names.
    let mut other = VllmGenerator::new(&url, 100).with_retry(impatient());
    other.load_adapter("/adapters/2", WeightVersion(2)).unwrap();
    assert_eq!(state.lock().unwrap().adapters.len(), 2);
}

#[test]
fn an_adapter_that_cannot_be_loaded_is_refused_with_what_to_do() {
    for (status, body, expected) in [
        (404, json!({"detail": "Not Found"}), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (
            400,
            json!({"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16.", "code": 400}}),
            "`--max-lora-rank`",
        ),
        (
            404,
            json!({"error": {"message": "Loading lora failed: No adapter found for /a", "code": 404}}),
            "see the folder",
        ),
        (500, json!({"error": {"message": "out of memory"}}), "out of memory"),
    ] {
        let (url, _) = server(move |_, _, _| (status, body.clone()));
        let mut generator = VllmGenerator::new(&url, 100).with_retry(impatient());
        let error = generator.load_adapter("/a", WeightVersion(1)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{url}/v1/load_lora_adapter: ")) && error.contains(expected), "{error}");
        assert_eq!(generator.weight_version(), WeightVersion(0));
    }
}

#[test]
fn why_a_turn_ended_and_answers_that_cannot_be_trained_on() {
    for (finish, stop, expected) in [
        ("stop", json!(null), Finish::EndOfText),
        ("stop", json!(151645), Finish::EndOfText),
        ("stop", json!("</search>"), Finish::Stop),
        ("length", json!(null), Finish::Length),
    ] {
        let (url, _) = strict_server(Program::Vllm, move |_, _, _| (200, answer(&[2, 3], finish, stop.clone())));
        let mut generator = VllmGenerator::new(&url, 100).with_retry(impatient());
        generator.start(Request { prompt: &[1], sampling: Sampling::default(), turn: turn(2, None) }).unwrap();
        assert_eq!(generator.poll().unwrap()[0].finish, expected);
    }
    let changed = |name: &str, value: Value| {
        let mut body = answer(&[2, 3], "length", json!(null));
        body["choices"][0][name] = value;
        body
    };
    for (body, expected) in [
        (changed("token_ids", json!(null)), "`token_ids` is missing, although `return_token_ids` was sent"),
        (changed("logprobs", json!(null)), "`logprobs` is missing"),
        (changed("token_ids", json!([2])), "1 `token_ids` and 2 `token_logprobs`"),
        (changed("logprobs", json!({"token_logprobs": [-1.0, null]})), "token 3 has no finite log-probability"),
        (changed("finish_reason", json!("abort")), "ended with `abort` (2 attempts)"),
        (changed("finish_reason", json!(null)), "no finish reason"),
        (json!({"choices": []}), "no choices"),
    ] {
        let (url, _) = server(move |_, _, _| (200, body.clone()));
        let mut generator = VllmGenerator::new(&url, 100).with_retry(impatient());
        let error = sample(&mut generator, &[1], turn(2, None)).unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(expected), "{error}");
    }
}
