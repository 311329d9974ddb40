//! The requests to an SGLang server and its answers.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use zerosearch_generate::{Finish, SampledToken, TokenId};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, address, excerpt, reported_error};

pub(crate) struct SglangServer {
    client: JsonClient,
    url: String,
}

impl SglangServer {
    pub(crate) fn new(url: &str, retry: RetryPolicy) -> Self {
        Self { client: JsonClient::new(retry), url: url.into() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Loads other weights. Continues whatever came of it: a paused server would answer nobody.
    pub(crate) fn refit(&self, folder: &str) -> Result<(), HttpError> {
        let updated = self.call("pause_generation", &json!({})).and_then(|_| self.update(folder));
        let continued = self.call("continue_generation", &json!({}));
        // What went wrong first explains more.
        updated?;
        continued?;
        Ok(())
    }

    fn update(&self, folder: &str) -> Result<(), HttpError> {
        let path = "update_weights_from_disk";
        let answer = self.call(path, &json!({"model_path": folder, "flush_cache": true}))?;
        let reported = reported_error(&answer).map(|error| error.message);
        if answer["success"] == json!(false) || reported.is_some() {
            let message = reported.as_deref().or(answer["message"].as_str()).unwrap_or("no reason given");
            return Err(HttpError::new(&self.at(path), format!("cannot load {folder}: {message}")));
        }
        Ok(())
    }

    fn call(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.client.post(&self.at(path), body)
    }

    /// The address of one of the server's own endpoints. Those of OpenAI's protocol, under `/v1`, are beside them.
    fn at(&self, endpoint: &str) -> String {
        address(&self.url, |path| {
            let base = path.trim_end_matches('/').trim_end_matches("/generate").trim_end_matches("/v1");
            format!("{base}/{endpoint}")
        })
    }

    /// What was sampled, and why it ended.
    pub(crate) fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError> {
        let url = self.at("generate");
        let Answer { meta_info } = self.client.post(&url, body)?;
        let unexpected = |message: String| HttpError::new(&url, message);
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
                return Err(unexpected(format!("the request ended with `{}`: {}", excerpt(kind), excerpt(message))));
            }
            None => return Err(unexpected("unexpected answer: no finish reason".into())),
        };
        let sampled = match meta_info.output_token_logprobs {
            Some(sampled) => sampled,
            None if meta_info.completion_tokens == Some(0) => Vec::new(),
            None => {
                let message =
                    "unexpected answer: `output_token_logprobs` is missing, although `return_logprob` was sent";
                return Err(unexpected(message.into()));
            }
        };
        let tokens = sampled.into_iter().map(|(logprob, id, _)| match logprob {
            Some(logprob) if logprob.is_finite() => Ok(SampledToken::new(id, logprob)),
            _ => Err(unexpected(format!("token {id} has no finite log-probability: {logprob:?}"))),
        });
        Ok((tokens.collect::<Result<_, _>>()?, finish))
    }
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
}

/// `[log-probability, token id, text]`, the text null unless it was asked for.
type OutputToken = (Option<f32>, TokenId, IgnoredAny);
