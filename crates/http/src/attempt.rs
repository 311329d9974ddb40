//! One attempt: the request is sent, redirects are followed, the answer is read.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::{Agent, Body};
use url::Url;

use crate::address::{endpoint, is_loopback};
use crate::excerpt::excerpt;
use crate::json::{Reported, is_passing, parse_json, reported_error};
use crate::redirect;
use crate::retry_after::named_pause;

/// The largest answer that is read, in bytes: far above any batch of documents, far below memory.
const LARGEST_ANSWER: u64 = 256 << 20;

/// Redirects of one request. Two or three happen; that many are a circle.
const REDIRECTS: usize = 10;

/// A request as the caller wants it.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: Option<&'a str>,
}

/// Why an attempt gave nothing.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) again: Again,
}

/// A value that is read from the text of a successful answer.
pub(crate) trait FromText: Sized {
    fn from_text(status: StatusCode, text: String) -> Result<Self, Failure>;
}

/// Any JSON value.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromText for Json<T> {
    fn from_text(status: StatusCode, text: String) -> Result<Self, Failure> {
        value(status, &text).map(Self)
    }
}

impl FromText for String {
    fn from_text(_: StatusCode, text: String) -> Result<Self, Failure> {
        Ok(text)
    }
}

/// Whether it is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Asking again would not change it.
    Never,
    /// After a pause of our own.
    Soon,
    /// After the pause that the server named.
    After(Duration),
}

impl Failure {
    pub(crate) fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), again: Again::Never }
    }

    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), again: Again::Soon }
    }
}

impl<'a> Call<'a> {
    /// Reads the address, with the parameters behind it.
    pub(crate) fn new(
        method: Method,
        address: &str,
        parameters: &[(&str, &str)],
        headers: &'a [(String, String)],
        body: Option<&'a str>,
    ) -> Result<Self, Failure> {
        let unreadable = || Failure::lasting("not an address: expected `http://host:port/path`");
        let mut url = Url::parse(address).map_err(|_| unreadable())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unreadable());
        }
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
            // The pairs of a form have `+` for a blank, and `%2B` for a plus.
            let query = url.query().unwrap_or_default().replace('+', "%20");
            url.set_query(Some(&query));
        }
        Ok(Self { method, url, headers, body })
    }

    /// Asks once and reads the answer, all within `timeout`.
    pub(crate) fn attempt<T: DeserializeOwned>(&self, agent: &Agent, timeout: Duration) -> Result<T, Failure> {
        self.attempt_as(agent, timeout).map(|Json(answer)| answer)
    }

    /// As [`attempt`](Self::attempt), for any kind of answer.
    pub(crate) fn attempt_as<T: FromText>(&self, agent: &Agent, timeout: Duration) -> Result<T, Failure> {
        let deadline = Instant::now() + timeout;
        let (mut method, mut url) = (self.method.clone(), self.url.clone());
        for _ in 0..=REDIRECTS {
            let failed = |error| failure(error, timeout);
            let mut response = self.send(agent, &method, &url, deadline).map_err(failed)?;
            let status = response.status();
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let answer = read(&mut response, timeout);
                let answer = match status.is_success() {
                    true => answer.and_then(|text| T::from_text(status, text)),
                    false => Err(refusal(&response, &answer.unwrap_or_default())),
                };
                return answer.map_err(|failure| self.after_redirect(failure, &url));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            (method, url) = redirect::next(&method, status, &url, location).map_err(|why| {
                let failure = Failure::lasting(format!("status {status}, a redirect that is not followed: {why}"));
                self.after_redirect(failure, &url)
            })?;
            tracing::debug!(from = endpoint(self.url.as_str()), to = endpoint(url.as_str()), "redirected");
        }
        let failure = Failure::lasting(format!("more than {REDIRECTS} redirects"));
        Err(self.after_redirect(failure, &url))
    }

    fn send(
        &self,
        agent: &Agent,
        method: &Method,
        url: &Url,
        deadline: Instant,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut bare = url.clone();
        // Only addresses that have no host have no place for these.
        let _ = bare.set_username("").and_then(|()| bare.set_password(None));
        let mut request = Request::builder().method(method).uri(bare.as_str());
        if redirect::trusts(&self.url, url) {
            for (name, value) in self.headers {
                request = request.header(name, value);
            }
            if let Some(value) = self.basic()
                && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            {
                request = request.header(header::AUTHORIZATION, value);
            }
        }
        let time = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match self.body.filter(|_| method == Method::POST) {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body)?;
                let request = agent.configure_request(request).timeout_global(Some(time));
                agent.run(if is_loopback(url) { request.proxy(None).build() } else { request.build() })
            }
            None => {
                let request = agent.configure_request(request.body(())?).timeout_global(Some(time));
                agent.run(if is_loopback(url) { request.proxy(None).build() } else { request.build() })
            }
        }
    }

    /// The header for a user's name and password in the address.
    fn basic(&self) -> Option<String> {
        let (name, password) = (self.url.username(), self.url.password().unwrap_or_default());
        if name.is_empty() && password.is_empty() {
            return None;
        }
        let mut pair: Vec<u8> = percent_decode_str(name).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(password));
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }

    fn after_redirect(&self, mut failure: Failure, url: &Url) -> Failure {
        if *url != self.url {
            let unsent = if redirect::trusts(&self.url, url) { "" } else { ", another server, which is sent no key" };
            failure.message.push_str(&format!(" (redirected to {}{unsent})", endpoint(url.as_str())));
        }
        failure
    }
}

/// The text of an answer. What is not UTF-8 in it becomes U+FFFD.
fn read(response: &mut Response<Body>, timeout: Duration) -> Result<String, Failure> {
    // A decoded body has no such header any more.
    if let Some(encoding) = response.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let encoding = encoding.to_str().unwrap_or("?");
        return Err(Failure::lasting(format!("the answer is encoded with `{encoding}`, which was not asked for")));
    }
    let mut bytes = Vec::new();
    let reader = response.body_mut().with_config().reader();
    reader.take(LARGEST_ANSWER + 1).read_to_end(&mut bytes).map_err(|error| failure(error.into(), timeout))?;
    if bytes.len() as u64 > LARGEST_ANSWER {
        return Err(Failure::lasting(format!("the answer is larger than {} MiB", LARGEST_ANSWER >> 20)));
    }
    // Keeps the allocation of what is UTF-8.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn value<T: DeserializeOwned>(status: StatusCode, text: &str) -> Result<T, Failure> {
    let error = match parse_json(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let begins = excerpt(text);
    if text.trim().is_empty() {
        let again = if status == StatusCode::OK { Again::Soon } else { Again::Never };
        return Err(Failure { message: format!("an empty answer (status {status})"), again });
    }
    if error.is_eof() {
        return Err(Failure::passing(format!("the answer breaks off: {error}; it begins with `{begins}`")));
    }
    if let Some(Reported { message, code }) = parse_json::<Value>(text).ok().as_ref().and_then(reported_error) {
        let again = if code.is_some_and(is_passing) { Again::Soon } else { Again::Never };
        let code = code.map(|code| format!(" {code}")).unwrap_or_default();
        let message = format!("unexpected answer: the server reports an error{code}: {}", excerpt(&message));
        return Err(Failure { message, again });
    }
    let what = if error.is_data() { "unexpected answer" } else { "not the expected JSON" };
    Err(Failure::lasting(format!("{what}: {error}; the answer begins with `{begins}`")))
}

/// A status that is no success.
fn refusal(response: &Response<Body>, text: &str) -> Failure {
    let status = response.status();
    let said = excerpt(text);
    let message = format!("status {status}{}{said}", if said.is_empty() { "" } else { ": " });
    // An account that is used up answers 429 like one that asks too fast, and no pause helps it.
    let used_up = ["insufficient_quota", "run out of searches"].iter().any(|words| text.contains(words));
    let again = match named_pause(response.headers(), SystemTime::now()) {
        _ if used_up || !is_passing(status.as_u16()) => Again::Never,
        Some(pause) => Again::After(pause),
        None => Again::Soon,
    };
    Failure { message, again }
}

fn failure(error: ureq::Error, timeout: Duration) -> Failure {
    use ureq::Error as E;
    // Errors of a body's reader are wrapped.
    let error = match error {
        E::Io(error) => E::from(error),
        error => error,
    };
    let passing = match &error {
        E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) => true,
        // An answer with a body that cannot be decoded says so with these kinds; a network does not.
        E::Io(error) => !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput),
        _ => false,
    };
    let message = match error {
        E::Timeout(stage) => format!("no answer within {timeout:?} (time-out: {stage})"),
        // Its text would repeat the address with the query string.
        E::BadUri(_) => "not an address: expected `http://host:port/path`".into(),
        E::Io(error) => format!("the connection failed: {error}"),
        error => error.to_string(),
    };
    Failure { message, again: if passing { Again::Soon } else { Again::Never } }
}
