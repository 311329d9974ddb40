//! A policy on a server is trained as one in this process is: the same bits, also on several servers of which one is started again.

#[path = "../../remote/tests/fake/strict.rs"]
mod strict;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use zerosearch::ServedPolicy;
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Finish, Finished, Generator, Request, Sampling, Stream, Turn, WeightVersion, never};
use zerosearch::lm::{HostWeights, LoraConfig, ModelConfig};
use zerosearch::prelude::*;
use zerosearch::remote::{SglangGenerator, VllmGenerator};
use zerosearch::text::{SpecialTokens, train_bpe};

use strict::{Program, check_request};

const STEPS: u64 = 3;

/// Rewards what random text has in different amounts.
struct Letters;

impl RewardFn for Letters {
    fn name(&self) -> &str {
        "letters"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        let text = episode.policy_turns.concat();
        text.chars().filter(char::is_ascii_lowercase).count() as f32 / text.chars().count().max(1) as f32
    }
}

fn model() -> LanguageModel {
    let tags = ["<search>", "</search>", "<answer>", "</answer>"];
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    let text = "the capital of chad is n'djamena and the highest point of chad is emi koussi ".repeat(20);
    let codec = train_bpe(std::iter::once(text), 300, &tags, &special).unwrap();
    let config = ModelConfig::tiny_llama(codec.vocab_size(), 32, 2, 2, 1, 48);
    LanguageModel::new(config.clone(), HostWeights::init(&config, 1), codec)
}

fn config() -> TrainConfig {
    let rollout = RolloutConfig { max_turns: 2, max_new_tokens: 8, max_observation_tokens: 160, ..Default::default() };
    TrainConfig {
        seed: 3,
        steps: STEPS,
        questions_per_step: 2,
        samples_per_question: 3,
        rollout,
        algorithm: Grpo::default().into(),
        learning_rate: 1e-2,
        warmup_ratio: 0.0,
        ..TrainConfig::default()
    }
}

fn builder() -> TrainerBuilder {
    let questions: Vec<Question> = ["capital of chad", "highest point of chad", "who is there"]
        .map(|text| Question::new(text, text, vec!["emi koussi".into()]))
        .into();
    let document = Document { contents: "the capital of chad".into(), ..Document::default() };
    Trainer::builder(model(), questions, Bm25Index::new([document]).unwrap())
        .prompt(PromptTemplate::new("Question: {{ question }}").unwrap())
        .reward(Letters)
        .device(Device::flex())
        .config(config())
}

/// The seeds of all turns of such a run by the 31 bits of them that SGLang takes.
fn whole_seeds() -> HashMap<u64, u64> {
    let mut seeds = HashMap::new();
    for (step, question, sample, turn) in (0..STEPS * 12).map(|i| (i / 12, i / 6 % 2, i / 2 % 3, i % 2)) {
        let seed = Stream { seed: 3, purpose: "policy", step, question, sample, turn }.value();
        assert_eq!(seeds.insert((seed ^ (seed >> 32)) & 0x7fff_ffff, seed), None);
    }
    seeds
}

/// A server's side of the wire, decoded by the generator of this process. It takes what SGLang and vLLM document, and nothing else.
struct Server {
    program: Program,
    generator: Option<LocalGenerator>,
    /// The version or the adapter that it has loaded.
    loaded: String,
    eos: Vec<u32>,
    seeds: HashMap<u64, u64>,
    log: Vec<String>,
    /// The number of the request with which it is killed, and how many it then misses before it is there again.
    killed: Option<(usize, usize)>,
}

impl Server {
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Value) {
        self.log.push(path.split(' ').next_back().unwrap().to_string());
        if let Some((at, missed)) = self.killed.filter(|(at, _)| self.log.len() > *at) {
            // All that it knew is gone with it.
            (self.generator, self.loaded) = (None, "default".into());
            self.killed = (self.log.len() < at + missed).then_some((at, missed));
            return (503, json!("connection refused"));
        }
        if let Err(why) = check_request(self.program, path, body) {
            return (422, json!({"error": {"message": why}}));
        }
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_string();
        match path {
            "POST /generate" => (200, self.generate(body)),
            "POST /update_weights_from_disk" => {
                let model = LanguageModel::read(field("model_path")).unwrap();
                self.load(&model, field("weight_version"));
                (
                    200,
                    json!({"success": true, "message": "Succeeded to update model weights.", "num_paused_requests": 0}),
                )
            }
            "GET /get_model_info" => (200, json!({"model_path": "base", "weight_version": self.loaded})),
            "POST /v1/completions" if field("model") == self.loaded => (200, self.complete(body)),
            "POST /v1/completions" => {
                (404, json!({"error": {"message": format!("The model `{}` does not exist.", field("model"))}}))
            }
            "POST /v1/load_lora_adapter" => {
                let base = model();
                let (lora, adapters) = LoraConfig::read(field("lora_path"), &base.config).unwrap();
                let mut weights = (*base.weights).clone();
                lora.merge(&mut weights, &adapters).unwrap();
                self.load(&base.with_weights(weights), field("lora_name"));
                (200, json!(format!("Success: LoRA adapter '{}' added successfully.", field("lora_name"))))
            }
            _ => (200, json!({})),
        }
    }

    fn load(&mut self, model: &LanguageModel, version: String) {
        self.eos = model.codec.eos_ids().to_vec();
        self.generator = Some(LocalGenerator::for_model(model).unwrap());
        self.loaded = version;
    }

    fn sample(&mut self, prompt: &Value, most: &Value, seed: &Value) -> Option<Finished> {
        let prompt: Vec<u32> = serde_json::from_value(prompt.clone()).unwrap();
        let turn = Turn {
            max_new_tokens: most.as_u64().unwrap() as usize,
            seed: self.seeds[&seed.as_u64().unwrap()],
            stop: never(),
            deadline: None,
        };
        let generator = self.generator.as_mut()?;
        let id = generator.start(Request { prompt: &prompt, sampling: Sampling::default(), turn }).unwrap();
        let finished = generator.poll().unwrap().remove(0);
        generator.release(id);
        Some(finished)
    }

    fn generate(&mut self, body: &Value) -> Value {
        let parameters = &body["sampling_params"];
        let finished = self.sample(&body["input_ids"], &parameters["max_new_tokens"], &parameters["sampling_seed"]);
        // A server that was started again samples with the weights of its command line.
        let (tokens, finish) = finished.map_or((Vec::new(), Finish::Length), |it| (it.tokens, it.finish));
        let tokens: Vec<Value> = tokens.iter().map(|token| json!([token.logprob, token.id, null])).collect();
        let reason = match finish {
            Finish::EndOfText => json!({"type": "stop", "matched": self.eos[0]}),
            _ => json!({"type": "length", "length": tokens.len()}),
        };
        json!({"text": "", "meta_info": {"output_token_logprobs": tokens, "finish_reason": reason, "weight_version": self.loaded}})
    }

    fn complete(&mut self, body: &Value) -> Value {
        let finished = self.sample(&body["prompt"], &body["max_tokens"], &body["seed"]).unwrap();
        let ids: Vec<u32> = finished.tokens.iter().map(|token| token.id).collect();
        let logprobs: Vec<f32> = finished.tokens.iter().map(|token| token.logprob).collect();
        let reason = if finished.finish == Finish::EndOfText { "stop" } else { "length" };
        json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": self.loaded, "choices": [{
            "index": 0, "text": "", "finish_reason": reason, "stop_reason": null, "token_ids": ids,
            "logprobs": {"text_offset": [], "token_logprobs": logprobs, "tokens": [], "top_logprobs": []}}],
            "usage": {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}})
    }
}

fn serve(program: Program, killed: Option<(usize, usize)>) -> (String, Arc<Mutex<Server>>) {
    let (loaded, seeds) = ("default".to_string(), whole_seeds());
    let server = Server { program, generator: None, loaded, eos: Vec::new(), seeds, log: Vec::new(), killed };
    let server = Arc::new(Mutex::new(server));
    let http = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", http.server_addr().to_ip().unwrap());
    let shared = server.clone();
    std::thread::spawn(move || {
        while let Ok(mut request) = http.recv() {
            let body: Value = serde_json::from_reader(request.as_reader()).unwrap_or_default();
            let path = format!("{} {}", request.method(), request.url());
            let (status, answer) = shared.lock().unwrap().answer(&path, &body);
            let _ = request.respond(tiny_http::Response::from_string(answer.to_string()).with_status_code(status));
        }
    });
    (url, server)
}

/// An update's figures, without those of the process that decodes.
fn figures(report: &StepReport) -> BTreeMap<String, f64> {
    let of_the_process = |name: &str| {
        name.starts_with("timing_s")
            || name.starts_with("rollout/kv_cache")
            || name.starts_with("policy/")
            || ["rollout/tokens_per_s", "rollout/idle_share"].contains(&name)
    };
    let figures = report.metrics.iter().filter(|(name, _)| !of_the_process(name));
    figures.map(|(name, value)| (name.to_string(), value)).collect()
}

#[test]
fn three_steps_through_a_server_are_those_of_this_process_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (url, server) = serve(Program::Sglang, None);
    let model = model();
    let sglang = SglangGenerator::new(&url, model.config.max_positions).with_seeds();
    let served = ServedPolicy::new(sglang, &model, folder.path().join("served"));
    let mut remote = builder().generator(served).build().unwrap();
    let mut local = builder().build().unwrap();
    for step in 1..=STEPS {
        let (remote, local) = (remote.next_step().unwrap().unwrap(), local.next_step().unwrap().unwrap());
        assert_eq!(remote.samples, local.samples, "step {step}");
        assert!(local.samples.iter().any(|sample| sample.rollout.turns.len() > 1));
        let versions = remote.samples.iter().flat_map(|sample| sample.rollout.trajectory.versions());
        assert!(versions.map(|(version, _)| version).all(|version| version == WeightVersion(step - 1)));
        assert_eq!(figures(&remote), figures(&local), "step {step}");
    }
    assert!(remote.next_step().unwrap().is_none());
    let trained = remote.into_model().unwrap();
    assert!(trained.weights == local.into_model().unwrap().weights);
    assert!(trained.weights != model.weights);

    // The newest weights alone are kept, and the server has them.
    let kept: Vec<_> =
        std::fs::read_dir(folder.path().join("served")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, ["version_3"]);
    assert!(LanguageModel::read(folder.path().join("served/version_3")).unwrap().weights == trained.weights);
    let log = server.lock().unwrap().log.clone();
    let count = |path: &str| log.iter().filter(|asked| *asked == path).count() as u64;
    assert_eq!(count("/update_weights_from_disk"), STEPS + 1);
    assert_eq!((count("/pause_generation"), count("/continue_generation")), (STEPS + 1, STEPS + 1));
}

#[test]
fn a_server_that_is_gone_is_an_error_that_names_it_and_the_step_can_be_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let sglang = SglangGenerator::new("http://127.0.0.1:9", model.config.max_positions).with_seeds();
    let retry = zerosearch::remote::RetryPolicy { attempts: 1, ..Default::default() };
    let served = ServedPolicy::new(sglang.with_retry(retry), &model, folder.path());
    let mut trainer = builder().generator(served).build().unwrap();
    for _ in 0..2 {
        let message = trainer.next_step().unwrap_err().to_string();
        assert!(message.contains("127.0.0.1:9"), "{message}");
    }
    assert_eq!(trainer.steps_done(), 0);
}

/// So patient that a server which is killed is waited for.
fn patient() -> zerosearch::remote::RetryPolicy {
    let pause = std::time::Duration::from_millis(20);
    zerosearch::remote::RetryPolicy { attempts: 20, first_pause: pause, longest_pause: pause, ..Default::default() }
}

#[test]
fn a_server_that_is_killed_in_a_step_and_started_again_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let mut local = builder().build().unwrap();
    let expected: Vec<_> = (0..STEPS).map(|_| local.next_step().unwrap().unwrap()).collect();
    // One of two, and the only one there is: with the weights of its command line, until it is given the newest.
    for (others, missed) in [(1, 1), (0, 4)] {
        let (url, killed) = serve(Program::Sglang, Some((7, missed)));
        let urls: Vec<String> =
            std::iter::once(url).chain((0..others).map(|_| serve(Program::Sglang, None).0)).collect();
        let sglang = SglangGenerator::at(&urls, model.config.max_positions).with_seeds().with_retry(patient());
        let served = ServedPolicy::new(sglang, &model, folder.path().join(others.to_string()));
        let mut remote = builder().generator(served).build().unwrap();
        let mut failures = 0.0;
        for local in &expected {
            let remote = remote.next_step().unwrap().unwrap();
            assert_eq!(remote.samples, local.samples);
            assert_eq!(figures(&remote), figures(local));
            let counters = remote.metrics.iter().filter(|(name, _)| name.ends_with("/failures"));
            failures += counters.map(|(_, count)| count).sum::<f64>();
        }
        assert!(killed.lock().unwrap().killed.is_none() && failures >= 1.0, "{failures} failures");
    }
}

#[test]
fn adapters_are_trained_through_vllm_to_the_bit_and_whole_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let config = || TrainConfig { lora: Some(LoraConfig { rank: 4, ..LoraConfig::default() }), ..config() };
    let (first, _) = serve(Program::Vllm, None);
    let (second, killed) = serve(Program::Vllm, Some((5, 1)));
    let vllm = VllmGenerator::at(&[first, second], model.config.max_positions).with_seeds().with_retry(patient());
    let served = ServedPolicy::vllm(vllm, &model, folder.path().join("served"));
    served.check().unwrap();
    let mut remote = builder().config(config()).generator(served).build().unwrap();
    let mut local = builder().config(config()).build().unwrap();
    for _ in 0..STEPS {
        let (remote, local) = (remote.next_step().unwrap().unwrap(), local.next_step().unwrap().unwrap());
        assert_eq!(remote.samples, local.samples);
        assert_eq!(figures(&remote), figures(&local));
    }
    assert!(killed.lock().unwrap().killed.is_none());
    assert!(remote.into_model().unwrap().weights == local.into_model().unwrap().weights);

    let vllm = VllmGenerator::new("http://127.0.0.1:9", model.config.max_positions);
    let mut whole = builder().generator(ServedPolicy::vllm(vllm, &model, folder.path())).build().unwrap();
    let message = whole.next_step().unwrap_err().to_string();
    assert!(message.contains("train.lora") && message.contains("/v1/load_lora_adapter"), "{message}");
}
