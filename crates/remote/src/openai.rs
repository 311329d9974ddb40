//! Text completion by any server that speaks OpenAI's protocol.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use zerosearch_generate::{Completer, Completion, CompletionRequest, GenerateError};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, in_parallel};

use crate::wire::{CONCURRENCY, patient, remote, short_seed};

/// A server with `/v1/completions` or `/v1/chat/completions`: vLLM, SGLang, llama.cpp, and many more.
///
/// Requests are sent at once, within a bound; the server batches them. `top_k`, `min_p` and `min_tokens` are not in
/// OpenAI's protocol, though the engines named take them: they are sent only when they are set.
/// Seeds are shortened to 31 bits. An answer repeats only as far as the server honours the seed.
pub struct OpenAiServer {
    client: JsonClient,
    retry: RetryPolicy,
    key: Option<String>,
    url: String,
    model: String,
    api: Api,
    system: Option<String>,
    concurrency: usize,
}

#[derive(Clone, Copy)]
enum Api {
    Completions,
    Chat,
}

impl OpenAiServer {
    /// Continues the prompt as it stands. `url` is the server's address, with or without `/v1`.
    pub fn completions(url: &str, model: impl Into<String>) -> Self {
        Self::new(url, "completions", Api::Completions, model.into())
    }

    /// Sends the prompt as one user message: the server puts its chat template around it.
    pub fn chat(url: &str, model: impl Into<String>) -> Self {
        Self::new(url, "chat/completions", Api::Chat, model.into())
    }

    /// Authorises requests with this key (`Authorization: Bearer …`).
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self.connect()
    }

    /// Begins every chat with this system message, also where it is empty: many chat templates put one of their own where there
    /// is none. Plain completions have none.
    #[must_use]
    pub fn with_system(mut self, message: impl Into<String>) -> Self {
        self.system = Some(message.into());
        self
    }

    /// With other time-outs and retries than the default: 3 attempts of 300 s.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self.connect()
    }

    /// With at most this many requests under way at once (64 by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    fn new(url: &str, path: &str, api: Api, model: String) -> Self {
        let host = url.trim_end_matches('/').trim_end_matches("/v1");
        let client = JsonClient::new(patient());
        Self {
            client,
            retry: patient(),
            key: None,
            url: format!("{host}/v1/{path}"),
            model,
            api,
            system: None,
            concurrency: CONCURRENCY,
        }
    }

    fn connect(mut self) -> Self {
        self.client = JsonClient::new(self.retry);
        if let Some(key) = &self.key {
            self.client = self.client.with_header("Authorization", format!("Bearer {key}"));
        }
        self
    }

    fn body(&self, request: &CompletionRequest) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        match self.api {
            Api::Completions => body.insert("prompt".into(), json!(request.prompt)),
            Api::Chat => {
                let system = self.system.iter().map(|message| json!({"role": "system", "content": message}));
                let messages = system.chain([json!({"role": "user", "content": request.prompt})]).collect::<Vec<_>>();
                body.insert("messages".into(), Value::Array(messages))
            }
        };
        body.insert("max_tokens".into(), json!(request.max_new_tokens));
        body.insert("temperature".into(), json!(request.sampling.temperature));
        body.insert("top_p".into(), json!(request.sampling.top_p));
        body.insert("seed".into(), json!(short_seed(request.seed)));
        if request.sampling.top_k > 0 {
            body.insert("top_k".into(), json!(request.sampling.top_k));
        }
        if request.sampling.min_p > 0.0 {
            body.insert("min_p".into(), json!(request.sampling.min_p));
        }
        if request.sampling.min_new_tokens > 0 {
            body.insert("min_tokens".into(), json!(request.sampling.min_new_tokens));
        }
        if !request.stop.is_empty() {
            body.insert("stop".into(), json!(request.stop));
        }
        Value::Object(body)
    }

    fn complete_one(&self, request: &CompletionRequest) -> Result<Completion, HttpError> {
        let answer: Answer = self.client.post(&self.url, &self.body(request))?;
        let unexpected =
            |message: &str| HttpError { endpoint: self.url.clone(), message: format!("unexpected answer: {message}") };
        let choice = answer.choices.into_iter().next().ok_or_else(|| unexpected("no choices"))?;
        let text =
            choice.text.or_else(|| choice.message?.content).ok_or_else(|| unexpected("a choice without text"))?;
        Ok(Completion {
            text: before_stop(text, &request.stop),
            tokens: answer.usage.unwrap_or_default().completion_tokens,
        })
    }
}

impl Completer for OpenAiServer {
    /// Completes every request. [`Completion::tokens`] is 0 where the server does not count them.
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        for request in requests {
            request.sampling.validate()?;
            if request.prompt.is_empty() {
                return Err(GenerateError::EmptyPrompt);
            }
        }
        let answers = in_parallel(requests, self.concurrency, |request| self.complete_one(request));
        answers.into_iter().map(|answer| answer.map_err(remote)).collect()
    }
}

/// Servers cut stop strings off themselves; one that does not know `stop` leaves them in.
fn before_stop(mut text: String, stop: &[String]) -> String {
    let first = stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min();
    if let Some(end) = first {
        text.truncate(end);
    }
    text
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    completion_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            assert_eq!(OpenAiServer::completions(url, "m").url, "http://h:1/v1/completions");
            assert_eq!(OpenAiServer::chat(url, "m").url, "http://h:1/v1/chat/completions");
        }
    }

    #[test]
    fn the_earliest_stop_string_ends_the_text() {
        let stop = ["\nQ:".to_string(), "END".to_string(), String::new()];
        assert_eq!(before_stop("a END b\nQ: c".into(), &stop), "a ");
        assert_eq!(before_stop("é\nQ:END".into(), &stop), "é");
        assert_eq!(before_stop("nothing".into(), &stop), "nothing");
    }
}
