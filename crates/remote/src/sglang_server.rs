//! The requests to an SGLang server and its answers.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use zerosearch_generate::{Finish, SampledToken, TokenId};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy};

pub(crate) struct SglangServer {
    client: JsonClient,
    url: String,
}

impl SglangServer {
    pub(crate) fn new(url: &str, retry: RetryPolicy) -> Self {
        Self { client: JsonClient::new(retry), url: url.trim_end_matches('/').into() }
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
        if answer["success"] == json!(false) {
            let message = answer["message"].as_str().unwrap_or("no reason given");
            return Err(HttpError {
                endpoint: format!("{}/{path}", self.url),
                message: format!("cannot load {folder}: {message}"),
            });
        }
        Ok(())
    }

    fn call(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.client.post(&format!("{}/{path}", self.url), body)
    }

    /// What was sampled, and why it ended.
    pub(crate) fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError> {
        let url = format!("{}/generate", self.url);
        let answer: Answer = self.client.post(&url, body)?;
        let unexpected = |message: String| HttpError { endpoint: url.clone(), message };
        let tokens = answer
            .meta_info
            .output_token_logprobs
            .into_iter()
            .map(|(logprob, id, _)| match logprob {
                Some(logprob) if logprob.is_finite() => Ok(SampledToken::new(id, logprob)),
                _ => Err(unexpected(format!("token {id} has no finite log-probability: {logprob:?}"))),
            })
            .collect::<Result<_, _>>()?;
        let finish = match answer.meta_info.finish_reason {
            Some(FinishReason { kind, matched, .. }) if kind == "stop" => match matched {
                // A number is the end-of-text token, a string one of the stop strings.
                Some(Value::String(_)) => Finish::Stop,
                _ => Finish::EndOfText,
            },
            Some(FinishReason { kind, .. }) if kind == "length" => Finish::Length,
            Some(FinishReason { kind, message, .. }) => {
                let message = message.unwrap_or_else(|| "no reason given".into());
                return Err(unexpected(format!("the request ended with `{kind}`: {message}")));
            }
            None => return Err(unexpected("unexpected answer: no finish reason".into())),
        };
        Ok((tokens, finish))
    }
}

#[derive(Deserialize)]
struct Answer {
    meta_info: MetaInfo,
}

#[derive(Deserialize)]
struct MetaInfo {
    output_token_logprobs: Vec<OutputToken>,
    finish_reason: Option<FinishReason>,
}

/// `[log-probability, token id, text]`, the text null unless it was asked for.
type OutputToken = (Option<f32>, TokenId, IgnoredAny);

#[derive(Deserialize)]
struct FinishReason {
    #[serde(rename = "type")]
    kind: String,
    matched: Option<Value>,
    message: Option<String>,
}
