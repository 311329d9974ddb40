//! Text completion by any server that speaks OpenAI's protocol.

use serde_json::{Map, Value, json};
use zerosearch_generate::{Account, Completer, Completion, CompletionRequest, GenerateError, Usage};
use zerosearch_http::{AttemptError, EndpointCounts, Fleet, HttpError, JsonClient, RetryPolicy, address, in_parallel};

use crate::openai_answer::{Answer, is_filtered};
use crate::wire::{CONCURRENCY, patient, remote, short_seed};

/// A server with `/v1/completions` or `/v1/chat/completions`: vLLM, SGLang, llama.cpp, and many more.
///
/// Requests are sent at once, within a bound; the server batches them. `top_k`, `min_p` and `min_tokens` are not in
/// OpenAI's protocol, though the engines named take them: they are sent only when they are set.
/// Seeds are shortened to 31 bits. An answer repeats only as far as the server honours the seed.
///
/// A model may say nothing: it refuses, a filter stops it, or its thoughts (`reasoning_content`) use up the tokens. Its
/// completion is then empty, and a warning says why; the other requests of the batch are not touched by it.
pub struct OpenAiServer {
    fleet: Fleet,
    retry: RetryPolicy,
    key: Option<String>,
    model: String,
    api: Api,
    system: Option<String>,
    concurrency: usize,
    account: Account,
}

#[derive(Clone, Copy)]
enum Api {
    Completions,
    Chat,
}

impl OpenAiServer {
    /// Continues the prompt as it stands. `url` is the server's address: a path in it (`/v1`, `/api/v3`, `/openai/deployments/m`)
    /// is taken as it is, `/v1` is put behind a bare host, and the path of the endpoint itself may stand there too.
    pub fn completions(url: &str, model: impl Into<String>) -> Self {
        Self::completions_at(&[url], model)
    }

    /// As [`completions`](Self::completions), by several servers with the same model. A request goes to the least busy one, and to
    /// another where that one fails.
    pub fn completions_at(urls: &[impl AsRef<str>], model: impl Into<String>) -> Self {
        Self::new(urls, "completions", Api::Completions, model.into())
    }

    /// Sends the prompt as one user message: the server puts its chat template around it.
    pub fn chat(url: &str, model: impl Into<String>) -> Self {
        Self::chat_at(&[url], model)
    }

    /// As [`chat`](Self::chat), by several servers with the same model.
    pub fn chat_at(urls: &[impl AsRef<str>], model: impl Into<String>) -> Self {
        Self::new(urls, "chat/completions", Api::Chat, model.into())
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

    /// With at most this many requests under way at once (64 for each server by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Reports calls, tokens and time to this account of a ledger.
    #[must_use]
    pub fn with_account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// Whether a server is there: asks all for `/health`.
    ///
    /// # Errors
    /// [`GenerateError::Remote`] when none answers, with what each said.
    pub fn check(&self) -> Result<(), GenerateError> {
        self.fleet.check().map_err(remote)
    }

    /// Counts of each server so far, in the order of the addresses.
    pub fn endpoints(&self) -> Vec<EndpointCounts> {
        self.fleet.counts()
    }

    fn new(urls: &[impl AsRef<str>], endpoint: &str, api: Api, model: String) -> Self {
        let urls = urls.iter().map(|url| {
            address(url.as_ref(), |path| {
                let path = path.trim_end_matches('/');
                let pasted = path.strip_suffix("/chat/completions").or_else(|| path.strip_suffix("/completions"));
                let base = pasted.unwrap_or(if path.is_empty() { "/v1" } else { path });
                format!("{base}/{endpoint}")
            })
        });
        let fleet = Fleet::new(urls, JsonClient::new(patient()));
        let concurrency = CONCURRENCY * fleet.addresses().len().max(1);
        Self { fleet, retry: patient(), key: None, model, api, system: None, concurrency, account: Account::default() }
    }

    fn connect(mut self) -> Self {
        let mut client = JsonClient::new(self.retry);
        if let Some(key) = &self.key {
            client = client.with_header("Authorization", format!("Bearer {}", key.trim()));
        }
        self.fleet = self.fleet.with_client(client);
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
        let body = self.body(request);
        let asked = self.fleet.ask(|server| {
            let url = server.address();
            let answer: Answer = server.post(url, &body)?;
            let tokens = (answer.prompt_tokens(), answer.tokens());
            let text =
                answer.text().map_err(|message| AttemptError::lasting(url, format!("unexpected answer: {message}")))?;
            Ok((text, tokens))
        });
        let (text, (prompt, tokens)) = match asked {
            Ok(answer) => answer,
            // The refusal of one prompt, by a filter that stands before the model.
            Err(error) if is_filtered(&error) => {
                tracing::warn!("{error}; its completion is empty");
                return Ok(Completion { text: String::new(), tokens: 0 });
            }
            Err(error) => return Err(self.explained(error)),
        };
        let (tokens_in, tokens_out) = (prompt as u64, tokens as u64);
        self.account.add(Usage { tokens_in, tokens_out, ..Usage::default() });
        let text = text.unwrap_or_else(|why| {
            tracing::warn!("{}: a choice without text ({why}); its completion is empty", self.model);
            String::new()
        });
        Ok(Completion { text: before_stop(text, &request.stop), tokens })
    }

    /// With the setting that the error points to.
    fn explained(&self, mut error: HttpError) -> HttpError {
        let hint = match (error.status(), &self.key) {
            (Some(401 | 403), None) => "; no key was given".into(),
            (Some(401 | 403), Some(_)) => "; is the key right?".into(),
            (Some(404), _) => format!("; is the address right, and does it serve the model `{}`?", self.model),
            _ => String::new(),
        };
        error.message.push_str(&hint);
        error
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
        let answers = in_parallel(requests, self.concurrency, |request| {
            let _working = self.account.begin();
            self.complete_one(request)
        });
        let failures = answers.iter().filter(|answer| answer.is_err()).count() as u64;
        self.account.add(Usage { calls: requests.len() as u64, failures, ..Usage::default() });
        answers.into_iter().map(|answer| answer.map_err(remote)).collect()
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn counters(&self) -> Vec<(String, f64)> {
        EndpointCounts::counters(&self.endpoints())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, base, query) in [
            ("http://h:1", "http://h:1/v1", ""),
            ("http://h:1/", "http://h:1/v1", ""),
            ("http://h:1/v1", "http://h:1/v1", ""),
            ("http://h:1/v1/", "http://h:1/v1", ""),
            (" http://h:1\n", "http://h:1/v1", ""),
            ("http://h/api/paas/v4", "http://h/api/paas/v4", ""),
            ("http://h/api/v3/", "http://h/api/v3", ""),
            ("http://h/v1beta/openai/", "http://h/v1beta/openai", ""),
            ("http://h/proxy/8000/v1", "http://h/proxy/8000/v1", ""),
            ("http://h/v1/chat/completions", "http://h/v1", ""),
            ("http://h/v1/completions/", "http://h/v1", ""),
            ("http://h/chat/completions", "http://h", ""),
            (
                "http://h/openai/deployments/m?api-version=2024-06-01",
                "http://h/openai/deployments/m",
                "?api-version=2024-06-01",
            ),
            ("http://h?a=b", "http://h/v1", "?a=b"),
            ("localhost:8000", "http://localhost:8000/v1", ""),
            ("127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", ""),
            ("[::1]:8000", "http://[::1]:8000/v1", ""),
            ("http://me:secret@h/v1", "http://me:secret@h/v1", ""),
            ("api.example.com/v1", "https://api.example.com/v1", ""),
        ] {
            assert_eq!(OpenAiServer::completions(given, "m").fleet.addresses(), [format!("{base}/completions{query}")]);
            assert_eq!(OpenAiServer::chat(given, "m").fleet.addresses(), [format!("{base}/chat/completions{query}")]);
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
