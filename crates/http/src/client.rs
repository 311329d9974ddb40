//! One request, tried until it succeeds, is refused, or the attempts are used up.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::Method;

use crate::address::endpoint;
use crate::attempt::{Again, Call, Failure, FromText};

/// A call waits this long at the request of a server, whatever its policy: `Retry-After` counts in whole seconds.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(15);

/// How patiently a server is asked.
///
/// A call takes at most `attempts · timeout` plus the pauses, of which each is at most twice `longest_pause`.
/// A server that names the time to come back (`Retry-After` and its kin) is asked again then, however often it does, within
/// `attempts · timeout` since the call began, or 15 s if that is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time for one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Attempts in all, beside those after which the server named a time; 0 counts as 1, and 1 means that nothing is tried again.
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
    /// The address, without its query string and a password (keys travel there).
    pub endpoint: String,
    /// The problem, and the number of attempts.
    pub message: String,
}

impl HttpError {
    /// An error of the server at this address.
    pub fn new(address: &str, message: impl Into<String>) -> Self {
        Self { endpoint: endpoint(address), message: message.into() }
    }

    /// The status with which the server refused the request, if it did.
    pub fn status(&self) -> Option<u16> {
        self.message.strip_prefix("status ")?.get(..3)?.parse().ok()
    }
}

/// Sends and receives JSON. Cheap to clone; clones share their connections.
///
/// Time-outs, broken connections, answers that break off and the status 408, 425, 429 and 5xx are tried again; any other status
/// and an answer that is not the expected JSON are errors at once, because asking again would not change them. So is an error
/// in an answer whose status says success, unless it has one of these numbers. JSON is read as [`parse_json`](crate::parse_json) does.
///
/// Redirects are followed, and a POST stays one. Another server than the one that was named is sent no header
/// of [`with_header`](Self::with_header) and no password of the address. Messages show neither.
/// Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, …), and none for this machine.
#[derive(Clone)]
pub struct JsonClient {
    agent: Agent,
    retry: RetryPolicy,
    headers: Vec<(String, String)>,
}

impl JsonClient {
    /// A client with this patience.
    pub fn new(retry: RetryPolicy) -> Self {
        // An error's status is read together with what the server says about it, and a redirect repeats the body.
        let config =
            Agent::config_builder().http_status_as_error(false).max_redirects(0).max_redirects_will_error(false);
        Self { agent: config.build().into(), retry, headers: Vec::new() }
    }

    /// Sends this header with every request, for example `Authorization`. Blanks around the value are dropped: keys from files
    /// end with a line feed.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into().trim().into()));
        self
    }

    /// POSTs a body and reads the answer.
    ///
    /// # Errors
    /// [`HttpError`] when the server refuses, fails every attempt, or answers something else than a `T`.
    pub fn post<T: DeserializeOwned>(&self, url: &str, body: &(impl Serialize + ?Sized)) -> Result<T, HttpError> {
        let body = serde_json::to_string(body)
            .map_err(|error| HttpError::new(url, format!("the request is no JSON: {error}")))?;
        self.exchange(url, &[], Call::new(Method::POST, url, &[], &self.headers, Some(&body)))
    }

    /// GETs an address with these parameters and reads the answer.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn get<T: DeserializeOwned>(&self, url: &str, parameters: &[(&str, &str)]) -> Result<T, HttpError> {
        self.exchange(url, parameters, Call::new(Method::GET, url, parameters, &self.headers, None))
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        url: &str,
        parameters: &[(&str, &str)],
        call: Result<Call<'_>, Failure>,
    ) -> Result<T, HttpError> {
        let mut attempts = 0;
        call.and_then(|call| self.persist(&call, parameters, &mut attempts))
            .map_err(|failure| HttpError::new(url, self.without_keys(failure.message, parameters) + &tried(attempts)))
    }

    fn persist<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        parameters: &[(&str, &str)],
        attempts: &mut usize,
    ) -> Result<T, Failure> {
        let mut pauses = Pauses::new(self.retry);
        loop {
            *attempts += 1;
            let mut failure = match call.attempt(&self.agent, self.retry.timeout) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(pause) = pauses.next(&mut failure) else { return Err(failure) };
            let endpoint = endpoint(call.url.as_str());
            tracing::warn!(endpoint, ?pause, "{}; trying again", self.without_keys(failure.message, parameters));
            std::thread::sleep(pause);
        }
    }

    /// Asks once: a POST where there is a body, else a GET.
    pub(crate) fn once<T: FromText>(&self, url: &str, body: Option<&str>, timeout: Duration) -> Result<T, Failure> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let answer = Call::new(method, url, &[], &self.headers, body)?.attempt_as(&self.agent, timeout);
        answer.map_err(|failure| Failure { message: self.without_keys(failure.message, &[]), ..failure })
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// A server's words may repeat the key that it was sent.
    fn without_keys(&self, message: String, parameters: &[(&str, &str)]) -> String {
        let headers = self.headers.iter().filter_map(|(_, value)| value.split_whitespace().last());
        let keys = parameters.iter().filter(|(name, _)| name.contains("key")).map(|(_, value)| *value);
        headers.chain(keys).filter(|key| key.len() > 3).fold(message, |message, key| message.replace(key, "…"))
    }
}

/// The end of a message: after how many attempts, if there were several.
pub(crate) fn tried(attempts: usize) -> String {
    if attempts < 2 { String::new() } else { format!(" ({attempts} attempts)") }
}

/// The pauses of one call.
pub(crate) struct Pauses {
    retry: RetryPolicy,
    own: ExponentialBackoff,
    /// Added to the pauses that the server names, so that not all clients come back at once.
    spread: ExponentialBackoff,
    begun: Instant,
}

impl Pauses {
    pub(crate) fn new(retry: RetryPolicy) -> Self {
        let pauses = ExponentialBuilder::new().with_min_delay(retry.first_pause).with_max_delay(retry.longest_pause);
        let pauses = pauses.with_jitter();
        Self {
            retry,
            own: pauses.with_max_times(retry.attempts.saturating_sub(1)).build(),
            spread: pauses.without_max_times().build(),
            begun: Instant::now(),
        }
    }

    /// The pause before the next attempt; `None`, and perhaps why, where there is to be none.
    pub(crate) fn next(&mut self, failure: &mut Failure) -> Option<Duration> {
        let RetryPolicy { timeout, attempts, .. } = self.retry;
        let patience = timeout.saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX)).max(SHORTEST_PATIENCE);
        match failure.again {
            Again::Never => None,
            Again::Soon => self.own.next(),
            Again::After(_) if attempts < 2 => None,
            Again::After(named) if named <= patience.saturating_sub(self.begun.elapsed()) => {
                Some(named + self.spread.next().unwrap_or_default())
            }
            Again::After(named) => {
                let more =
                    format!("; the server asks to come back after {named:?}, and a call takes {patience:?} at most");
                failure.message.push_str(&more);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_not_tried_again() {
        for address in ["no address?key=secret", "ftp://host/secret?secret", "http://?secret", "http://h:99999?secret"]
        {
            let error = JsonClient::new(RetryPolicy::default()).post::<u8>(address, &1).unwrap_err();
            assert!(error.message.starts_with("not an address") && error.status().is_none(), "{error}");
            assert!(!error.message.contains("attempts") && !error.message.contains("secret"), "{error}");
        }
    }
}
