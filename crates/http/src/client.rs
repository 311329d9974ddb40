//! One request, tried until it succeeds, is refused, or the attempts are used up.

use std::time::Duration;

use backon::{BlockingRetryable, ExponentialBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The largest answer that is read, in bytes: far above any batch of documents, far below memory.
const LARGEST_ANSWER: u64 = 256 << 20;

/// How patiently a server is asked.
///
/// A call takes at most `attempts · timeout` plus the pauses, of which each is at most twice `longest_pause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time for one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Attempts in all; 0 counts as 1.
    pub attempts: usize,
    /// The pause before the second attempt. It doubles each time, and a random part of up to its own
    /// length is added, so that many clients do not come back at the same instant.
    pub first_pause: Duration,
    /// Pauses stop doubling here.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// Five attempts of 30 s, pauses of 0.25 s to 8 s.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(8),
        }
    }
}

/// A server did not give a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint}: {message}")]
pub struct HttpError {
    /// The address, without its query string (keys travel there).
    pub endpoint: String,
    /// What went wrong, and after how many attempts.
    pub message: String,
}

/// Sends and receives JSON. Cheap to clone; clones share their connections.
///
/// Time-outs, broken connections, status 429 and 5xx are tried again; any other status and an answer
/// that is not the expected JSON are errors at once, because asking again would not change them.
#[derive(Clone)]
pub struct JsonClient {
    agent: Agent,
    retry: RetryPolicy,
    headers: Vec<(String, String)>,
}

/// What one attempt came to.
struct Failure {
    message: String,
    passing: bool,
}

impl JsonClient {
    /// A client with this patience.
    pub fn new(retry: RetryPolicy) -> Self {
        // An error's status is read below, together with what the server says about it.
        let config = Agent::config_builder().timeout_global(Some(retry.timeout)).http_status_as_error(false).build();
        Self { agent: config.into(), retry, headers: Vec::new() }
    }

    /// Sends this header with every request, for example `Authorization`.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// POSTs a body and reads the answer.
    ///
    /// # Errors
    /// [`HttpError`] when the server refuses, fails every attempt, or answers something else than a `T`.
    pub fn post<T: DeserializeOwned>(&self, url: &str, body: &(impl Serialize + ?Sized)) -> Result<T, HttpError> {
        let body = serde_json::to_string(body).map_err(|error| HttpError {
            endpoint: endpoint(url),
            message: format!("the request is no JSON: {error}"),
        })?;
        let text = self.exchange(url, || {
            let mut request = self.agent.post(url).content_type("application/json");
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            request.send(&body)
        })?;
        parse(url, &text)
    }

    /// GETs an address with these parameters and reads the answer.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn get<T: DeserializeOwned>(&self, url: &str, parameters: &[(&str, &str)]) -> Result<T, HttpError> {
        let text = self.exchange(url, || {
            let mut request = self.agent.get(url).query_pairs(parameters.iter().copied());
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            request.call()
        })?;
        parse(url, &text)
    }

    fn exchange(&self, url: &str, send: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<String, HttpError> {
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            self.attempt(&send)
        };
        let pauses = ExponentialBuilder::new()
            .with_min_delay(self.retry.first_pause)
            .with_max_delay(self.retry.longest_pause)
            .with_max_times(self.retry.attempts.saturating_sub(1))
            .with_jitter();
        let result = attempt
            .retry(pauses)
            .when(|failure| failure.passing)
            .notify(|failure, pause| {
                tracing::warn!(endpoint = endpoint(url), ?pause, "{}; trying again", failure.message)
            })
            .call();
        result.map_err(|failure| {
            let tried = if attempts == 1 { String::new() } else { format!(" ({attempts} attempts)") };
            HttpError { endpoint: endpoint(url), message: failure.message + &tried }
        })
    }

    fn attempt(&self, send: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<String, Failure> {
        let mut response = send().map_err(|error| self.failure(error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).lossy_utf8(true).read_to_string();
        if !status.is_success() {
            let said = text.map(|text| beginning(&text)).unwrap_or_default();
            let message = format!("status {status}{}{said}", if said.is_empty() { "" } else { ": " });
            return Err(Failure { message, passing: status.as_u16() == 429 || status.is_server_error() });
        }
        text.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use ureq::Error as E;
        let passing = match &error {
            E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) => true,
            // An answer with a body that cannot be decoded says so with these kinds; a network does not.
            E::Io(error) => !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput),
            _ => false,
        };
        let message = match error {
            E::Timeout(stage) => format!("no answer within {:?} (time-out: {stage})", self.retry.timeout),
            // Its text would repeat the address with the query string.
            E::BadUri(_) => "not an address: expected `http://host:port/path`".into(),
            E::Io(error) => format!("the connection failed: {error}"),
            error => error.to_string(),
        };
        Failure { message, passing }
    }
}

/// The address without what follows `?`, where keys may stand.
fn endpoint(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_string()
}

/// The first line or so of what a server said, for a message.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 200;
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = words.char_indices().nth(SHOWN) {
        words.truncate(cut);
        words.push('…');
    }
    words
}

fn parse<T: DeserializeOwned>(url: &str, text: &str) -> Result<T, HttpError> {
    serde_json::from_str(text).map_err(|error| HttpError {
        endpoint: endpoint(url),
        message: format!("not the expected JSON: {error}; the answer begins with `{}`", beginning(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_keys_and_long_pages_out() {
        assert_eq!(endpoint("http://h/search?api_key=secret"), "http://h/search");
        let page = format!("<html>\n  {}", "x".repeat(5000));
        let shown = beginning(&page);
        assert!(shown.starts_with("<html> x") && shown.chars().count() == 201, "{shown}");
    }

    #[test]
    fn what_is_no_address_is_not_tried_again() {
        let error = JsonClient::new(RetryPolicy::default()).post::<u8>("no address?key=secret", &1).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(!error.message.contains("attempts"), "{error}");
    }
}
