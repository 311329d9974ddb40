//! Several servers that answer alike, asked as if they were one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{address, endpoint};
use crate::attempt::{Again, Failure, Json};
use crate::client::{Pauses, tried};
use crate::endpoint::State;
use crate::{EndpointCounts, HttpError, JsonClient, in_parallel};

/// The time that a server has to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is down is looked after in steps of this length, so that the thread ends soon after the fleet.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// Servers that answer alike, such as replicas of one model, asked as if they were one. Cheap to clone; clones share
/// everything.
///
/// A request goes to the server with the fewest under way. One that fails is sent to the others at once, and only when all
/// have failed it is sent again after a pause, as often as the client's [`RetryPolicy`](crate::RetryPolicy) says. A refusal of
/// what was asked (a status of 4xx other than 408, 425 and 429) is final: the others would refuse it as well.
///
/// A server that cannot be reached, or fails three times in a row, gets no requests until its `GET /health` is answered with a status
/// below 500; a server without such a page says 404, which counts. Then it gets one request at a time, two, four, and so on. Where
/// all are down they are tried nevertheless.
///
/// With one address it does what the client does alone.
///
/// ```
/// use std::time::Duration;
/// use zerosearch_http::{Fleet, JsonClient, RetryPolicy};
///
/// let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
/// let addresses = ["http://127.0.0.1:9/retrieve", "http://127.0.0.1:7/retrieve"];
/// let fleet = Fleet::new(addresses.map(String::from), JsonClient::new(retry));
/// // Nobody listens on either port: the error says of each what it said.
/// let error = fleet.post::<serde_json::Value>(&["a query"]).unwrap_err().to_string();
/// assert!(error.contains("127.0.0.1:9/retrieve: ") && error.contains("127.0.0.1:7/retrieve: "), "{error}");
/// ```
#[derive(Clone)]
pub struct Fleet {
    client: JsonClient,
    servers: Arc<Servers>,
}

struct Servers {
    addresses: Vec<String>,
    states: Mutex<Vec<State>>,
}

/// One server of a fleet, while it is asked.
pub struct Endpoint<'f> {
    fleet: &'f Fleet,
    index: usize,
}

/// Why one attempt at one server gave nothing, and whether another may.
#[derive(Clone, Debug)]
pub struct AttemptError {
    error: HttpError,
    again: Again,
}

impl AttemptError {
    /// A failure that the other servers would repeat.
    pub fn lasting(address: &str, message: impl Into<String>) -> Self {
        Self { error: HttpError::new(address, message), again: Again::Never }
    }

    /// A failure of this server at this time.
    pub fn passing(address: &str, message: impl Into<String>) -> Self {
        Self { error: HttpError::new(address, message), again: Again::Soon }
    }

    /// The status with which the server refused the request, if it did.
    pub fn status(&self) -> Option<u16> {
        self.error.status()
    }

    /// Whether the server may be another one than before the request: it could not be reached, or did not answer.
    pub fn is_silence(&self) -> bool {
        self.again != Again::Never && self.status().is_none_or(|status| (502..=504).contains(&status))
    }
}

impl HttpError {
    /// One error that says what each server of a fleet said.
    pub fn of_all(errors: Vec<HttpError>) -> Self {
        all_failed(errors.into_iter().map(Some).collect(), "", 1)
    }
}

impl From<AttemptError> for HttpError {
    fn from(attempt: AttemptError) -> Self {
        attempt.error
    }
}

impl Endpoint<'_> {
    /// Its place among the fleet's addresses.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its address, as the fleet was given it.
    pub fn address(&self) -> &str {
        self.fleet.servers.addresses.get(self.index).map_or("", String::as_str)
    }

    /// POSTs a body to an address of this server, once.
    ///
    /// # Errors
    /// When the server refuses, does not answer, or answers something else than a `T`.
    pub fn post<T: DeserializeOwned>(&self, url: &str, body: &(impl Serialize + ?Sized)) -> Result<T, AttemptError> {
        let body = json(url, body)?;
        let client = &self.fleet.client;
        named(url, client.once(url, Some(&body), client.retry().timeout)).map(|Json(answer)| answer)
    }

    /// As [`post`](Self::post), for an answer that is a text.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn post_for_text(&self, url: &str, body: &(impl Serialize + ?Sized)) -> Result<String, AttemptError> {
        let body = json(url, body)?;
        let client = &self.fleet.client;
        named(url, client.once(url, Some(&body), client.retry().timeout))
    }

    /// GETs an address of this server, once.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, AttemptError> {
        let client = &self.fleet.client;
        named(url, client.once(url, None, client.retry().timeout)).map(|Json(answer)| answer)
    }
}

fn json(url: &str, body: &(impl Serialize + ?Sized)) -> Result<String, AttemptError> {
    serde_json::to_string(body).map_err(|error| AttemptError::lasting(url, format!("the request is no JSON: {error}")))
}

fn named<T>(url: &str, answer: Result<T, Failure>) -> Result<T, AttemptError> {
    answer.map_err(|Failure { message, again }| AttemptError { error: HttpError::new(url, message), again })
}

impl Fleet {
    /// The servers at these addresses, asked with this client's headers and patience.
    pub fn new(addresses: impl IntoIterator<Item = String>, client: JsonClient) -> Self {
        let addresses: Vec<String> = addresses.into_iter().collect();
        let states = Mutex::new(addresses.iter().map(|address| State::new(endpoint(address))).collect());
        Self { client, servers: Arc::new(Servers { addresses, states }) }
    }

    /// The same servers, asked with another client. What is known of them stays.
    #[must_use]
    pub fn with_client(mut self, client: JsonClient) -> Self {
        self.client = client;
        self
    }

    /// Its addresses, in their order.
    pub fn addresses(&self) -> &[String] {
        &self.servers.addresses
    }

    /// The servers, to ask each of them.
    pub fn endpoints(&self) -> Vec<Endpoint<'_>> {
        (0..self.addresses().len()).map(|index| Endpoint { fleet: self, index }).collect()
    }

    /// Counts of each server so far, in the order of the addresses.
    pub fn counts(&self) -> Vec<EndpointCounts> {
        self.servers.states().iter().map(|state| state.counts.clone()).collect()
    }

    /// POSTs a body to one of the addresses and reads the answer.
    ///
    /// # Errors
    /// [`HttpError`] when the request is refused, or all servers fail every attempt: it then says of each what it said.
    pub fn post<T: DeserializeOwned>(&self, body: &(impl Serialize + ?Sized)) -> Result<T, HttpError> {
        self.ask(|server| server.post(server.address(), body))
    }

    /// Asks one server, and others where it fails. `ask` may take several requests; it is told the server that they go to.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn ask<T>(&self, mut ask: impl FnMut(&Endpoint<'_>) -> Result<T, AttemptError>) -> Result<T, HttpError> {
        let count = self.addresses().len();
        let mut pauses = Pauses::new(self.client.retry());
        let mut said: Vec<Option<HttpError>> = vec![None; count];
        let mut attempts = 0;
        loop {
            let mut again = Again::Never;
            let mut asked = vec![false; count];
            while let Some(server) = self.least_busy(&asked) {
                asked[server.index] = true;
                attempts += 1;
                let mut failure = match self.attempt(&server, &mut ask) {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                };
                if failure.again == Again::Never {
                    failure.error.message.push_str(&tried(attempts));
                    return Err(failure.error);
                }
                again = sooner(again, failure.again);
                if count > 1 {
                    tracing::warn!(endpoint = failure.error.endpoint, "{}", failure.error.message);
                }
                said[server.index] = Some(failure.error);
            }
            let mut failure = Failure { message: String::new(), again };
            let Some(pause) = pauses.next(&mut failure) else {
                return Err(all_failed(said, &failure.message, attempts));
            };
            if let [Some(only)] = said.as_slice() {
                tracing::warn!(endpoint = only.endpoint, ?pause, "{}; trying again", only.message);
            }
            std::thread::sleep(pause);
        }
    }

    /// Asks all servers at once, and again after a pause where none gave an answer and one may. A server that is known to be down
    /// is not waited for where others are up. Results stand in the order of the addresses.
    pub fn each<T: Send>(
        &self,
        ask: impl Fn(&Endpoint<'_>) -> Result<T, AttemptError> + Sync,
    ) -> Vec<Result<T, AttemptError>> {
        let mut pauses = Pauses::new(self.client.retry());
        loop {
            let now = Instant::now();
            let down: Vec<bool> = self.servers.states().iter().map(|state| state.rank(now) == 2).collect();
            let all_down = down.iter().all(|down| *down);
            let servers = self.endpoints();
            let answers = in_parallel(&servers, servers.len(), |server| {
                if !all_down && down.get(server.index) == Some(&true) {
                    return Err(AttemptError::passing(server.address(), "is down"));
                }
                self.servers.begins(server.index);
                self.attempt(server, &mut |server| ask(server))
            });
            let mut again = Again::Never;
            for failure in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                again = sooner(again, failure.again);
            }
            let mut failure = Failure { message: String::new(), again };
            match pauses.next(&mut failure).filter(|_| answers.iter().all(Result::is_err)) {
                Some(pause) => std::thread::sleep(pause),
                None => return answers,
            }
        }
    }

    /// Whether a server is there: asks all for `GET /health`, once. Any status below 500 will do.
    ///
    /// # Errors
    /// When there is none, with what each said.
    pub fn check(&self) -> Result<(), HttpError> {
        let servers = self.endpoints();
        let said = in_parallel(&servers, servers.len(), |server| self.is_well(server.address()).err());
        if said.iter().any(Option::is_none) { Ok(()) } else { Err(all_failed(said, "", 1)) }
    }

    fn is_well(&self, given: &str) -> Result<(), HttpError> {
        let health = address(given, |_| "/health".into());
        match self.client.once::<String>(&health, None, HEALTH_TIMEOUT) {
            Err(failure) if is_ill(&failure) => Err(HttpError::new(given, failure.message)),
            _ => Ok(()),
        }
    }

    fn attempt<T>(
        &self,
        server: &Endpoint<'_>,
        ask: &mut impl FnMut(&Endpoint<'_>) -> Result<T, AttemptError>,
    ) -> Result<T, AttemptError> {
        // A panic in `ask` must not leave the server busy for ever.
        let under_way = UnderWay { servers: &self.servers, index: server.index, begun: Instant::now(), is_over: false };
        let answer = ask(server);
        let goes_down = under_way.ends(answer.as_ref().err());
        if goes_down && self.addresses().len() > 1 {
            self.look_after(server.index);
        }
        answer
    }

    /// The server that is asked next, and counts as asked from now on.
    fn least_busy(&self, asked: &[bool]) -> Option<Endpoint<'_>> {
        let now = Instant::now();
        let mut states = self.servers.states();
        let key = |state: &State| (state.rank(now), state.counts.busy, state.counts.requests);
        let open = states.iter_mut().enumerate().filter(|(index, _)| asked.get(*index) == Some(&false));
        let (index, state) = open.min_by_key(|(_, state)| key(state))?;
        state.begins();
        Some(Endpoint { fleet: self, index })
    }

    /// Checks the health of a server that went down, until it is healthy or the fleet is dropped.
    fn look_after(&self, index: usize) {
        let (Some(given), client) = (self.addresses().get(index), self.client.clone()) else { return };
        let health = address(given, |_| "/health".into());
        let servers = Arc::downgrade(&self.servers);
        let name = endpoint(given);
        let watch = move || {
            loop {
                let Some(rest) = with_state(&servers, index, State::rest) else { return };
                let until = Instant::now() + rest;
                while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    if servers.strong_count() == 0 {
                        return;
                    }
                    std::thread::sleep(left.min(LONGEST_NAP));
                }
                let is_well = client
                    .once::<String>(&health, None, HEALTH_TIMEOUT)
                    .map_or_else(|failure| !is_ill(&failure), |_| true);
                let is_up = with_state(&servers, index, |state| {
                    // A request that was tried as the last resort may have been answered meanwhile.
                    if is_well && !state.counts.is_up {
                        state.comes_back();
                    }
                    state.counts.is_up
                });
                if is_up != Some(false) {
                    tracing::info!(endpoint = name, "is back");
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("health".into()).spawn(watch);
        if let Err(error) = spawned {
            // Without a thread its recovery would never be noticed: it stays among those that get requests.
            tracing::warn!("no thread for health checks: {error}");
            with_state(&Arc::downgrade(&self.servers), index, State::comes_back);
        }
    }
}

impl Servers {
    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(&self, index: usize) {
        if let Some(state) = self.states().get_mut(index) {
            state.begins();
        }
    }
}

fn with_state<T>(servers: &Weak<Servers>, index: usize, change: impl FnOnce(&mut State) -> T) -> Option<T> {
    servers.upgrade()?.states().get_mut(index).map(change)
}

/// A request under way.
struct UnderWay<'f> {
    servers: &'f Servers,
    index: usize,
    begun: Instant,
    is_over: bool,
}

impl UnderWay<'_> {
    /// Returns whether the server goes down with this failure.
    fn ends(mut self, failure: Option<&AttemptError>) -> bool {
        self.is_over = true;
        let mut states = self.servers.states();
        let Some(state) = states.get_mut(self.index) else { return false };
        match failure {
            None => {
                // Also of a server that was asked as the last resort.
                state.answered(self.begun.elapsed());
                false
            }
            Some(failure) => state.failed(failure.again, !failure.is_silence(), Instant::now()),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(state) = self.servers.states().get_mut(self.index)
        {
            state.failed(Again::Never, true, Instant::now());
        }
    }
}

/// Whether there was no answer, or an error of the server.
fn is_ill(failure: &Failure) -> bool {
    let answers = failure.again == Again::Never || failure.message.starts_with("status ");
    !answers || failure.message.starts_with("status 5")
}

/// The earlier of two times to ask again.
fn sooner(one: Again, other: Again) -> Again {
    match (one, other) {
        (Again::Never, other) => other,
        (Again::After(one), Again::After(other)) => Again::After(one.min(other)),
        _ => Again::Soon,
    }
}

/// One error that says what each server said.
fn all_failed(said: Vec<Option<HttpError>>, more: &str, attempts: usize) -> HttpError {
    let said: Vec<HttpError> = said.into_iter().flatten().collect();
    let tried = tried(attempts);
    match said.as_slice() {
        [] => {
            HttpError { endpoint: "no address".into(), message: "expected the address of at least one server".into() }
        }
        [only] => HttpError { endpoint: only.endpoint.clone(), message: format!("{}{more}{tried}", only.message) },
        _ => {
            let count = said.len();
            let endpoints: Vec<&str> = said.iter().map(|error| error.endpoint.as_str()).collect();
            let each: Vec<String> = said.iter().map(HttpError::to_string).collect();
            let message = format!("all {count} servers failed{more}{tried}: {}", each.join("; "));
            HttpError { endpoint: endpoints.join(", "), message }
        }
    }
}
