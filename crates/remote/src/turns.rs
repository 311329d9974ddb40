//! Sequences whose turns are sampled by a server, whatever it speaks.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn, Wake,
    WeightVersion,
};
use zerosearch_http::{Fleet, HttpError, JsonClient, RetryPolicy};

use crate::under_way::UnderWay;
use crate::wire::{CONCURRENCY, remote, short_seed};

/// A server that samples one turn at a time, given the whole sequence so far.
pub(crate) trait TurnServer: Send + Sync + 'static {
    /// The servers that share the turns.
    fn fleet(&self) -> &Fleet;

    fn fleet_mut(&mut self) -> &mut Fleet;

    /// The request for a turn of at most `room` tokens after `tokens`.
    fn body(&self, tokens: &[TokenId], sampling: &Sampling, room: usize, options: &Options, seed: u64) -> Value;

    /// The sampled tokens, and the reason of their end.
    fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError>;
}

/// Settings of a generator that each of its requests repeats.
#[derive(Default)]
pub(crate) struct Options {
    /// Strings at which the server stops.
    pub(crate) stop: Vec<String>,
    /// Whether the turn's seed is sent.
    pub(crate) seeds: bool,
}

/// Sequences whose turns are sampled by a server. It holds none of them for us: a turn sends the whole sequence again.
pub(crate) struct Turns<S> {
    pub(crate) server: Arc<S>,
    context: usize,
    pub(crate) options: Options,
    pub(crate) concurrency: usize,
    pub(crate) weights: WeightVersion,
    next: u64,
    sequences: BTreeMap<SequenceId, Sequence>,
    under_way: UnderWay<Answer>,
    /// Requests sent so far.
    sent: u64,
}

/// The outcome of a request.
struct Answer {
    id: SequenceId,
    request: u64,
    result: Result<(Vec<SampledToken>, Finish), HttpError>,
}

struct Sequence {
    tokens: Vec<TokenId>,
    sampling: Sampling,
    state: State,
}

enum State {
    /// Its turn is to be sent.
    Decoding(Turn),
    /// This request asks for its turn. Answers to earlier ones, of turns that were cancelled, are dropped.
    Sent(Turn, u64),
    /// Its turn ended and `poll` has not said so yet.
    Ended(Vec<SampledToken>, Finish),
    /// Waits for an observation.
    Waiting,
}

impl<S: TurnServer> Turns<S> {
    pub(crate) fn new(server: S, context: usize) -> Self {
        let concurrency = CONCURRENCY * server.fleet().addresses().len().max(1);
        Self {
            server: Arc::new(server),
            context,
            options: Options::default(),
            concurrency,
            weights: WeightVersion::default(),
            next: 0,
            sequences: BTreeMap::new(),
            under_way: UnderWay::new(),
            sent: 0,
        }
    }

    /// Asks with this patience. Nobody else has the server yet: no turn has been sent.
    pub(crate) fn set_retry(&mut self, retry: RetryPolicy) {
        if let Some(server) = Arc::get_mut(&mut self.server) {
            let fleet = server.fleet_mut();
            *fleet = fleet.clone().with_client(JsonClient::new(retry));
        }
    }

    /// Room left in the context, at most `max_new_tokens`.
    fn room(&self, sequence: &Sequence, turn: &Turn) -> usize {
        turn.max_new_tokens.min(self.context.saturating_sub(sequence.tokens.len()))
    }

    fn body(&self, sequence: &Sequence, turn: &Turn) -> Value {
        let Sequence { tokens, sampling, .. } = sequence;
        self.server.body(tokens, sampling, self.room(sequence, turn), &self.options, short_seed(turn.seed))
    }

    /// Puts the answers that have come into their sequences. A sequence whose request failed is to be sent again.
    fn receive(&mut self) -> Result<(), GenerateError> {
        let mut failure = None;
        for Answer { id, request, result } in self.under_way.take() {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            let mut turn = match std::mem::replace(&mut sequence.state, State::Waiting) {
                State::Sent(turn, asked) if asked == request => turn,
                other => {
                    sequence.state = other;
                    continue;
                }
            };
            let (mut tokens, finish) = match result {
                Ok((tokens, Finish::Length)) => (tokens, limit(sequence, &turn, self.context)),
                Ok(answer) => answer,
                Err(error) => {
                    sequence.state = State::Decoding(turn);
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let stopped = tokens.iter().position(|token| (turn.stop)(token.id));
            let finish = match stopped {
                Some(last) => {
                    tokens.truncate(last + 1);
                    Finish::Stop
                }
                None => finish,
            };
            sequence.tokens.extend(tokens.iter().map(|token| token.id));
            sequence.state = State::Ended(tokens, finish);
        }
        failure.map_or(Ok(()), |error| Err(remote(error)))
    }

    /// Sends turns, as many as may be under way, and ends those for which there is no time or no room.
    fn send(&mut self) -> Result<(), GenerateError> {
        let now = Instant::now();
        let waiting: Vec<SequenceId> =
            self.sequences.iter().filter(|(_, it)| it.is_unsent()).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(sequence) = self.sequences.get(&id) else { continue };
            let State::Decoding(turn) = &sequence.state else { continue };
            let ended = match turn.deadline.is_some_and(|deadline| deadline <= now) {
                true => Some(Finish::TimedOut),
                false => (self.room(sequence, turn) == 0).then(|| limit(sequence, turn, self.context)),
            };
            let body = match ended {
                None if self.under_way.count() < self.concurrency.max(1) => self.body(sequence, turn),
                None => continue,
                Some(_) => Value::Null,
            };
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            if let Some(finish) = ended {
                sequence.state = State::Ended(Vec::new(), finish);
            } else {
                self.sent += 1;
                let (server, request) = (Arc::clone(&self.server), self.sent);
                let sent = self.under_way.send(move || {
                    // The closures of the turns stay on the caller's thread; only bodies travel.
                    let result = catch_unwind(AssertUnwindSafe(|| server.generate(&body)));
                    let result = result.unwrap_or_else(|_| Err(HttpError::new("a request", "it panicked")));
                    Answer { id, request, result }
                });
                match sent {
                    Ok(()) => sequence.sent(request),
                    // Goes on with those that there are.
                    Err(_) if self.under_way.count() > 0 => {}
                    Err(error) => return Err(GenerateError::Engine(format!("no thread for a request: {error}"))),
                }
            }
        }
        Ok(())
    }

    /// Sends and receives: until all turns have ended, or else until one has or the signal is raised.
    fn decode(&mut self, wake: &Wake, until_all: bool) -> Result<Vec<Finished>, GenerateError> {
        self.under_way.announce_to(wake);
        loop {
            if until_all {
                wake.lower();
            }
            self.receive()?;
            self.send()?;
            let mut states = self.sequences.values().map(|sequence| &sequence.state);
            let is_open = states.clone().any(|state| matches!(state, State::Decoding(_) | State::Sent(..)));
            let has_ended = states.any(|state| matches!(state, State::Ended(..)));
            if !is_open || (!until_all && (has_ended || wake.is_raised())) {
                return Ok(self.ended());
            }
            wake.wait();
        }
    }

    fn ended(&mut self) -> Vec<Finished> {
        let ended = self.sequences.iter_mut().filter_map(|(id, sequence)| {
            match std::mem::replace(&mut sequence.state, State::Waiting) {
                State::Ended(tokens, finish) => Some(Finished { id: *id, tokens, finish }),
                other => {
                    sequence.state = other;
                    None
                }
            }
        });
        ended.collect()
    }
}

impl Sequence {
    fn is_unsent(&self) -> bool {
        matches!(self.state, State::Decoding(_))
    }

    fn sent(&mut self, request: u64) {
        self.state = match std::mem::replace(&mut self.state, State::Waiting) {
            State::Decoding(turn) => State::Sent(turn, request),
            other => other,
        };
    }
}

/// Why a turn ends that was given all the tokens that it may have.
fn limit(sequence: &Sequence, turn: &Turn, context: usize) -> Finish {
    if sequence.tokens.len() + turn.max_new_tokens > context { Finish::Context } else { Finish::Length }
}

impl<S: TurnServer> Generator for Turns<S> {
    /// Admits a sequence; ids outside the vocabulary are noticed by the server, in [`poll`](Generator::poll).
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        request.sampling.validate()?;
        if request.prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if request.prompt.len() >= self.context {
            return Err(GenerateError::PromptTooLong { length: request.prompt.len(), context: self.context });
        }
        let id = SequenceId(self.next);
        self.next += 1;
        let sequence = Sequence {
            tokens: request.prompt.to_vec(),
            sampling: request.sampling,
            state: State::Decoding(request.turn),
        };
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        match self.sequences.get_mut(&id) {
            Some(sequence) if matches!(sequence.state, State::Waiting) => {
                sequence.tokens.extend_from_slice(observation);
                sequence.state = State::Decoding(turn);
                Ok(())
            }
            _ => Err(GenerateError::NotWaiting(id.0)),
        }
    }

    /// # Errors
    /// [`GenerateError::Remote`] when a request failed. Turns that ended meanwhile are not lost: the
    /// next `poll` returns them and sends the failed ones again.
    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        self.decode(&Wake::default(), true)
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        self.decode(wake, false)
    }

    /// Ends a turn without tokens. An answer to it that comes later is dropped.
    fn cancel(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id)
            && matches!(sequence.state, State::Decoding(_) | State::Sent(..))
        {
            sequence.state = State::Ended(Vec::new(), Finish::Cancelled);
        }
    }

    fn release(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.weights
    }
}

/// Makes a type with a field `turns` a [`Generator`], with the settings that all such types have.
macro_rules! generate_by_turns {
    ($type:ty) => {
        impl $type {
            /// With strings at which the server stops, for example `</search>`. Their tokens are kept.
            #[must_use]
            pub fn with_stop_strings(mut self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
                self.turns.options.stop = stop.into_iter().map(Into::into).collect();
                self
            }

            /// With other time-outs and retries than the default: 3 attempts of 300 s.
            #[must_use]
            pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
                self.turns.set_retry(retry);
                self
            }

            /// With at most this many requests under way at once (64 for each server by default).
            #[must_use]
            pub fn with_concurrency(mut self, concurrency: usize) -> Self {
                self.turns.concurrency = concurrency;
                self
            }

            /// Whether a server is there: asks all for `/health`.
            ///
            /// # Errors
            /// [`GenerateError::Remote`] when none answers, with what each said.
            pub fn check(&self) -> Result<(), GenerateError> {
                self.turns.server.fleet().check().map_err(remote)
            }

            /// Counts of each server so far, in the order of the addresses.
            pub fn endpoints(&self) -> Vec<EndpointCounts> {
                self.turns.server.fleet().counts()
            }
        }

        impl Generator for $type {
            /// Admits a sequence; ids outside the vocabulary are noticed by the server, in [`poll`](Generator::poll).
            fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
                self.turns.start(request)
            }

            fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
                self.turns.extend(id, observation, turn)
            }

            /// # Errors
            /// [`GenerateError::Remote`] when a request failed. Turns that ended meanwhile are not lost: the
            /// next `poll` returns them and sends the failed ones again.
            fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
                self.turns.poll()
            }

            fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
                self.turns.poll_until(wake)
            }

            /// Ends a turn without tokens. An answer to it that comes later is dropped.
            fn cancel(&mut self, id: SequenceId) {
                self.turns.cancel(id);
            }

            fn release(&mut self, id: SequenceId) {
                self.turns.release(id);
            }

            fn weight_version(&self) -> WeightVersion {
                self.turns.weight_version()
            }
        }
    };
}
pub(crate) use generate_by_turns;
