//! The requests to an SGLang server and its answers.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use zerosearch_generate::{Finish, SampledToken, Sampling, TokenId};
use zerosearch_http::{AttemptError, Endpoint, Fleet, HttpError, JsonClient, address, excerpt, reported_error};

use crate::current::Current;
use crate::turns::{Options, TurnServer};
use crate::wire::patient;

/// SGLang servers with the same model.
pub(crate) struct SglangServer {
    fleet: Fleet,
    /// The folders that they have loaded. A folder's path is also the version that they answer with.
    weights: Current<String>,
}

impl SglangServer {
    pub(crate) fn new(urls: &[impl AsRef<str>]) -> Self {
        let fleet = Fleet::new(urls.iter().map(|url| url.as_ref().to_string()), JsonClient::new(patient()));
        Self { weights: Current::of(&fleet), fleet }
    }

    /// Has them load other weights.
    pub(crate) fn refit(&self, folder: &str) -> Result<(), HttpError> {
        self.weights.refit(&self.fleet, folder.to_string(), |server, folder| load(server, folder))
    }

    fn generate_at(&self, server: &Endpoint<'_>, body: &Value) -> Result<(Vec<SampledToken>, Finish), AttemptError> {
        self.weights.ensure(server, |server, folder| load_unless_there(server, folder))?;
        let mut answer = generate(server, body);
        if let (Ok(Answer { meta_info }), Some(newest)) = (&answer, self.weights.newest())
            && meta_info.weight_version.as_ref().is_some_and(|version| *version != newest)
        {
            // It was started again since, or another program gave it weights.
            self.weights.doubt(server);
            self.weights.ensure(server, |server, folder| load(server, folder))?;
            answer = generate(server, body);
        }
        if answer.as_ref().is_err_and(AttemptError::is_silence) {
            self.weights.doubt(server);
        }
        sampled(&at(server, "generate"), answer?.meta_info)
    }
}

impl TurnServer for SglangServer {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    fn body(&self, tokens: &[TokenId], sampling: &Sampling, room: usize, options: &Options, seed: u64) -> Value {
        let mut parameters = json!({
            "max_new_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": if sampling.top_k == 0 { -1 } else { i64::try_from(sampling.top_k).unwrap_or(-1) },
            "min_p": sampling.min_p,
        });
        if !options.stop.is_empty() {
            parameters["stop"] = json!(options.stop);
            parameters["no_stop_trim"] = json!(true);
        }
        if sampling.min_new_tokens > 0 {
            parameters["min_new_tokens"] = json!(sampling.min_new_tokens);
        }
        if options.seeds {
            parameters["sampling_seed"] = json!(seed);
        }
        json!({"input_ids": tokens, "sampling_params": parameters, "return_logprob": true})
    }

    fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError> {
        self.fleet.ask(|server| self.generate_at(server, body))
    }
}

/// The address of one of a server's own endpoints. Those of OpenAI's protocol, under `/v1`, are beside them.
fn at(server: &Endpoint<'_>, endpoint: &str) -> String {
    address(server.address(), |path| {
        let base = path.trim_end_matches('/').trim_end_matches("/generate").trim_end_matches("/v1");
        format!("{base}/{endpoint}")
    })
}

fn call(server: &Endpoint<'_>, path: &str, body: &Value) -> Result<Value, AttemptError> {
    server.post(&at(server, path), body)
}

/// Loads other weights, and continues the server even after a failure: a paused one answers no request.
fn load(server: &Endpoint<'_>, folder: &str) -> Result<(), AttemptError> {
    let updated = call(server, "pause_generation", &json!({})).and_then(|_| update(server, folder));
    let continued = call(server, "continue_generation", &json!({}));
    // The first failure explains more.
    updated?;
    continued?;
    Ok(())
}

/// As [`load`], where the server does not say that it has them. A pause ends what others sample there.
fn load_unless_there(server: &Endpoint<'_>, folder: &str) -> Result<(), AttemptError> {
    match server.get::<Value>(&at(server, "get_model_info")) {
        Ok(info) if info["weight_version"] == json!(folder) => Ok(()),
        Err(error) if error.is_silence() => Err(error),
        _ => load(server, folder),
    }
}

fn update(server: &Endpoint<'_>, folder: &str) -> Result<(), AttemptError> {
    let path = "update_weights_from_disk";
    let answer = call(server, path, &json!({"model_path": folder, "flush_cache": true, "weight_version": folder}))?;
    let reported = reported_error(&answer).map(|error| error.message);
    if answer["success"] == json!(false) || reported.is_some() {
        let message = reported.as_deref().or(answer["message"].as_str()).unwrap_or("no reason given");
        return Err(AttemptError::lasting(&at(server, path), format!("cannot load {folder}: {message}")));
    }
    Ok(())
}

fn generate(server: &Endpoint<'_>, body: &Value) -> Result<Answer, AttemptError> {
    server.post(&at(server, "generate"), body)
}

/// The sampled tokens, and the reason of their end.
fn sampled(url: &str, meta_info: MetaInfo) -> Result<(Vec<SampledToken>, Finish), AttemptError> {
    let unexpected = |message: String| AttemptError::lasting(url, message);
    let reason = meta_info.finish_reason;
    let finish = match reason["type"].as_str().or(reason.as_str()) {
        Some("stop") => match reason["matched"] {
            // A number is the end-of-text token, a string one of the stop strings.
            Value::String(_) => Finish::Stop,
            _ => Finish::EndOfText,
        },
        Some("length") => Finish::Length,
        Some(kind) => {
            let message = reason["message"].as_str().unwrap_or("no reason given");
            let message = format!("the request ended with `{}`: {}", excerpt(kind), excerpt(message));
            // A pause for new weights aborts what is under way; a request that was refused is aborted with its status.
            let is_refused = reason["status_code"].as_u64().is_some_and(|status| (400..500).contains(&status));
            return Err(if is_refused { unexpected(message) } else { AttemptError::passing(url, message) });
        }
        None => return Err(unexpected("unexpected answer: no finish reason".into())),
    };
    let sampled = match meta_info.output_token_logprobs {
        Some(sampled) => sampled,
        None if meta_info.completion_tokens == Some(0) => Vec::new(),
        None => {
            let message = "unexpected answer: `output_token_logprobs` is missing, although `return_logprob` was sent";
            return Err(unexpected(message.into()));
        }
    };
    let tokens = sampled.into_iter().map(|(logprob, id, _)| match logprob {
        Some(logprob) if logprob.is_finite() => Ok(SampledToken::new(id, logprob)),
        _ => Err(unexpected(format!("token {id} has no finite log-probability: {logprob:?}"))),
    });
    Ok((tokens.collect::<Result<_, _>>()?, finish))
}

#[derive(Deserialize)]
struct Answer {
    meta_info: MetaInfo,
}

#[derive(Deserialize)]
struct MetaInfo {
    output_token_logprobs: Option<Vec<OutputToken>>,
    completion_tokens: Option<usize>,
    /// `{"type": "stop", "matched": …}`, `{"type": "length", …}`, `{"type": "abort", "message": …}`.
    #[serde(default)]
    finish_reason: Value,
    /// The version that the newest weights were given.
    #[serde(default)]
    weight_version: Option<String>,
}

/// `[log-probability, token id, text]`, the text null unless it was asked for.
type OutputToken = (Option<f32>, TokenId, IgnoredAny);
