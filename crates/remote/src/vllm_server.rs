//! The requests to vLLM servers and their answers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use zerosearch_generate::{Finish, SampledToken, Sampling, TokenId};
use zerosearch_http::{AttemptError, Endpoint, Fleet, HttpError, JsonClient, address, excerpt};

use crate::current::Current;
use crate::turns::{Options, TurnServer};
use crate::wire::patient;

/// vLLM servers with the same base model.
pub(crate) struct VllmServer {
    fleet: Fleet,
    adapters: Current<Adapter>,
    /// Begins the names of this client's adapters. vLLM keeps caches by name, and outlives a run: no two runs may share one.
    prefix: String,
}

#[derive(Clone, PartialEq)]
struct Adapter {
    name: String,
    folder: String,
}

impl VllmServer {
    pub(crate) fn new(urls: &[impl AsRef<str>]) -> Self {
        let fleet = Fleet::new(urls.iter().map(|url| url.as_ref().to_string()), JsonClient::new(patient()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("zerosearch-{:x}-{:x}", now.as_nanos(), std::process::id());
        Self { adapters: Current::of(&fleet), fleet, prefix }
    }

    /// Has them load the adapter of a version, and forget the one before.
    pub(crate) fn load(&self, folder: &str, version: u64) -> Result<(), HttpError> {
        let before = self.adapters.newest();
        let adapter = Adapter { name: format!("{}-{version}", self.prefix), folder: folder.into() };
        if before.as_ref().is_some_and(|before| before.name == adapter.name) {
            // Other weights under the name of a version that was loaded: its caches must not be found.
            self.unload(&adapter.name);
        }
        self.adapters.refit(&self.fleet, adapter.clone(), load)?;
        if let Some(before) = before.filter(|before| before.name != adapter.name) {
            self.unload(&before.name);
        }
        Ok(())
    }

    /// Makes room. A server that does not have the adapter any more has nothing to forget.
    fn unload(&self, name: &str) {
        let body = json!({"lora_name": name});
        for answer in self.fleet.each(|server| match server.post_for_text(&at(server, "unload_lora_adapter"), &body) {
            Err(error) if matches!(error.status(), Some(400 | 404)) => Ok(String::new()),
            other => other,
        }) {
            if let Err(error) = answer.map_err(HttpError::from) {
                tracing::warn!("{error}; an old adapter may take up room there");
            }
        }
    }

    fn generate_at(&self, server: &Endpoint<'_>, body: &Value) -> Result<(Vec<SampledToken>, Finish), AttemptError> {
        self.adapters.ensure(server, load)?;
        let url = at(server, "completions");
        let mut answer = server.post::<Answer>(&url, body);
        if self.adapters.newest().is_some() && answer.as_ref().is_err_and(|error| error.status() == Some(404)) {
            // It does not know the adapter: it was started again since it loaded it.
            self.adapters.doubt(server);
            self.adapters.ensure(server, load)?;
            answer = server.post(&url, body);
        }
        if answer.as_ref().is_err_and(AttemptError::is_silence) {
            self.adapters.doubt(server);
        }
        sampled(&url, answer?)
    }
}

impl TurnServer for VllmServer {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Everything that decides the distribution is sent: for the rest vLLM takes the defaults of the model's
    /// `generation_config.json`.
    fn body(&self, tokens: &[TokenId], sampling: &Sampling, room: usize, options: &Options, seed: u64) -> Value {
        let mut body = json!({
            "prompt": tokens,
            "max_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            // The sampled token's alone.
            "logprobs": 0,
            "return_token_ids": true,
            // Tags may be special tokens, and are looked for in the text.
            "skip_special_tokens": false,
        });
        if let Some(adapter) = self.adapters.newest() {
            body["model"] = json!(adapter.name);
        }
        if !options.stop.is_empty() {
            body["stop"] = json!(options.stop);
            body["include_stop_str_in_output"] = json!(true);
        }
        if sampling.min_new_tokens > 0 {
            body["min_tokens"] = json!(sampling.min_new_tokens);
        }
        if options.seeds {
            body["seed"] = json!(seed);
        }
        body
    }

    fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError> {
        self.fleet.ask(|server| self.generate_at(server, body))
    }
}

/// The address of an endpoint under `/v1`.
fn at(server: &Endpoint<'_>, endpoint: &str) -> String {
    address(server.address(), |path| {
        let base = path.trim_end_matches('/').trim_end_matches("/completions").trim_end_matches("/v1");
        format!("{base}/v1/{endpoint}")
    })
}

fn load(server: &Endpoint<'_>, adapter: &Adapter) -> Result<(), AttemptError> {
    let Adapter { name, folder } = adapter;
    let url = at(server, "load_lora_adapter");
    let hint = match server.post_for_text(&url, &json!({"lora_name": name, "lora_path": folder})) {
        Ok(_) => return Ok(()),
        Err(error) => match (error.status(), HttpError::from(error.clone()).message) {
            // An answer that was lost: names are never used twice.
            (Some(400), said) if said.contains("already been loaded") => return Ok(()),
            (Some(404 | 405), said) if !said.contains("adapter") => format!(
                "{said}; start vLLM with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
            ),
            (Some(400..500), said) => format!(
                "cannot load the adapter in {folder}: {said}; it must see the folder under this path, and `--max-lora-rank` must not be \
                 below the adapter's rank"
            ),
            _ => return Err(error),
        },
    };
    Err(AttemptError::lasting(&url, hint))
}

/// The sampled tokens, and the reason of their end.
fn sampled(url: &str, answer: Answer) -> Result<(Vec<SampledToken>, Finish), AttemptError> {
    let unexpected = |message: String| AttemptError::lasting(url, format!("unexpected answer: {message}"));
    let choice = answer.choices.into_iter().next().ok_or_else(|| unexpected("no choices".into()))?;
    let finish = match (choice.finish_reason.as_deref(), &choice.stop_reason) {
        (Some("stop"), Value::String(_)) => Finish::Stop,
        // Null is the end-of-text token; a number one that the model's `generation_config.json` ends with as well.
        (Some("stop"), _) => Finish::EndOfText,
        (Some("length"), _) => Finish::Length,
        (Some(kind), _) => {
            return Err(AttemptError::passing(url, format!("the request ended with `{}`", excerpt(kind))));
        }
        (None, _) => return Err(unexpected("no finish reason".into())),
    };
    let missing = |name: &str, asked: &str| unexpected(format!("`{name}` is missing, although `{asked}` was sent"));
    let ids = choice.token_ids.ok_or_else(|| missing("token_ids", "return_token_ids"))?;
    let logprobs = choice.logprobs.ok_or_else(|| missing("logprobs", "logprobs"))?.token_logprobs;
    if ids.len() != logprobs.len() {
        return Err(unexpected(format!("{} `token_ids` and {} `token_logprobs`", ids.len(), logprobs.len())));
    }
    let tokens = ids.into_iter().zip(logprobs).map(|(id, logprob)| match logprob {
        Some(logprob) if logprob.is_finite() => Ok(SampledToken::new(id, logprob)),
        _ => Err(unexpected(format!("token {id} has no finite log-probability: {logprob:?}"))),
    });
    Ok((tokens.collect::<Result<_, _>>()?, finish))
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
    /// The stop string; a token's id; null at the end of text.
    #[serde(default)]
    stop_reason: Value,
    token_ids: Option<Vec<TokenId>>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    token_logprobs: Vec<Option<f32>>,
}
