//! A policy on a server is trained as one in this process is: the same bits.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use zerosearch::ServedPolicy;
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Finish, Generator, Request, Sampling, Stream, Turn, WeightVersion, never};
use zerosearch::lm::{HostWeights, ModelConfig};
use zerosearch::prelude::*;
use zerosearch::remote::SglangGenerator;
use zerosearch::text::{SpecialTokens, train_bpe};

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

/// SGLang's side of the wire, decoded by the generator of this process.
struct Server {
    generator: Option<LocalGenerator>,
    eos: Vec<u32>,
    seeds: HashMap<u64, u64>,
    log: Vec<String>,
}

impl Server {
    fn answer(&mut self, path: &str, body: &Value) -> Value {
        self.log.push(path.to_string());
        match path {
            "/generate" => self.generate(body),
            "/update_weights_from_disk" => {
                let folder = Path::new(body["model_path"].as_str().unwrap());
                let model = LanguageModel::read(folder).unwrap();
                self.eos = model.codec.eos_ids().to_vec();
                self.generator = Some(LocalGenerator::for_model(&model).unwrap());
                json!({"success": true})
            }
            _ => json!({}),
        }
    }

    fn generate(&mut self, body: &Value) -> Value {
        let generator = self.generator.as_mut().expect("weights come before the first request");
        let prompt: Vec<u32> = serde_json::from_value(body["input_ids"].clone()).unwrap();
        let parameters = &body["sampling_params"];
        let turn = Turn {
            max_new_tokens: parameters["max_new_tokens"].as_u64().unwrap() as usize,
            seed: self.seeds[&parameters["sampling_seed"].as_u64().unwrap()],
            stop: never(),
            deadline: None,
        };
        let id = generator.start(Request { prompt: &prompt, sampling: Sampling::default(), turn }).unwrap();
        let finished = generator.poll().unwrap().remove(0);
        generator.release(id);
        let tokens: Vec<Value> = finished.tokens.iter().map(|token| json!([token.logprob, token.id, null])).collect();
        let reason = match finished.finish {
            Finish::EndOfText => json!({"type": "stop", "matched": self.eos[0]}),
            _ => json!({"type": "length"}),
        };
        json!({"meta_info": {"output_token_logprobs": tokens, "finish_reason": reason}})
    }
}

fn serve() -> (String, Arc<Mutex<Server>>) {
    let server = Server { generator: None, eos: Vec::new(), seeds: whole_seeds(), log: Vec::new() };
    let server = Arc::new(Mutex::new(server));
    let http = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", http.server_addr().to_ip().unwrap());
    let shared = server.clone();
    std::thread::spawn(move || {
        while let Ok(mut request) = http.recv() {
            let body: Value = serde_json::from_reader(request.as_reader()).unwrap();
            let answer = shared.lock().unwrap().answer(request.url(), &body);
            let _ = request.respond(tiny_http::Response::from_string(answer.to_string()));
        }
    });
    (url, server)
}

#[test]
fn three_steps_through_a_server_are_those_of_this_process_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (url, server) = serve();
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
        let figures = |report: &StepReport| -> BTreeMap<String, f64> {
            let of_the_process = |name: &str| {
                name.starts_with("timing_s")
                    || name.starts_with("rollout/kv_cache")
                    || ["rollout/tokens_per_s", "rollout/idle_share"].contains(&name)
            };
            let figures = report.metrics.iter().filter(|(name, _)| !of_the_process(name));
            figures.map(|(name, value)| (name.to_string(), value)).collect()
        };
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
