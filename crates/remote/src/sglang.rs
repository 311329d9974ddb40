//! A generator whose sequences are decoded by an SGLang server.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn, Wake,
    WeightVersion,
};
use zerosearch_http::{HttpError, RetryPolicy};

use crate::sglang_server::SglangServer;
use crate::under_way::UnderWay;
use crate::wire::{CONCURRENCY, patient, remote, short_seed};

/// A policy behind SGLang's `POST /generate`: token ids in, token ids and log-probabilities out.
///
/// The server holds no sequence for us: a turn sends the whole sequence again, and the server's prefix
/// cache spares the work. All waiting turns are sent at once, within a bound, each in a thread of its own.
/// [`poll`](Generator::poll) returns when all are answered, [`poll_until`](Generator::poll_until) as soon as one is or the
/// signal is raised, while the others stay under way.
///
/// **Stops.** A [`Turn::stop`] cannot travel over the network: it is asked about the returned tokens,
/// and what was sampled after the stopping token is dropped, as if it had never been. To save that
/// work, name the strings that end a turn in [`with_stop_strings`](Self::with_stop_strings); the
/// closure still decides where the turn ends.
///
/// **Log-probabilities.** SGLang reports them after the temperature. They are what
/// [`SampledToken::logprob`] promises at temperature 1 and when greedy; for any other temperature start
/// the server with `SGLANG_RETURN_ORIGINAL_LOGPROB=1`.
///
/// **Deadlines** are looked at before a turn is sent; a request under way runs into its own time-out.
///
/// **Seeds** reach the server only with [`with_seeds`](Self::with_seeds); without them a rollout does
/// not repeat.
pub struct SglangGenerator {
    server: Arc<SglangServer>,
    context: usize,
    stop: Vec<String>,
    seeds: bool,
    concurrency: usize,
    weights: WeightVersion,
    next: u64,
    sequences: BTreeMap<SequenceId, Sequence>,
    under_way: UnderWay<Answer>,
    /// Requests sent so far.
    sent: u64,
}

/// What came of a request.
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

impl SglangGenerator {
    /// A server at this address whose model's context holds `context` tokens. Nothing is sent yet.
    pub fn new(url: &str, context: usize) -> Self {
        Self {
            server: Arc::new(SglangServer::new(url, patient())),
            context,
            stop: Vec::new(),
            seeds: false,
            concurrency: CONCURRENCY,
            weights: WeightVersion::default(),
            next: 0,
            sequences: BTreeMap::new(),
            under_way: UnderWay::new(),
            sent: 0,
        }
    }

    /// With strings at which the server stops, for example `</search>`. Their tokens are kept.
    #[must_use]
    pub fn with_stop_strings(mut self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sends each turn's seed (as `sampling_seed`, shortened to 31 bits). The server honours it when
    /// started with `--enable-deterministic-inference`; versions that do not know it refuse the request.
    #[must_use]
    pub fn with_seeds(mut self) -> Self {
        self.seeds = true;
        self
    }

    /// With other time-outs and retries than the default: 3 attempts of 300 s.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.server = Arc::new(SglangServer::new(self.server.url(), retry));
        self
    }

    /// With at most this many requests under way at once (64 by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Makes the server load a Hugging Face folder (a path on the server's machine) as `version`, and
    /// forget its prefix cache: `/pause_generation`, `/update_weights_from_disk`, `/continue_generation`.
    ///
    /// Turns that are sent from now on are sampled with the new weights. The server continues even
    /// when the update fails, with the weights it had.
    ///
    /// # Errors
    /// [`GenerateError::Remote`] names the call that failed; [`weight_version`](Generator::weight_version) is then unchanged.
    pub fn refit(&mut self, folder: &str, version: WeightVersion) -> Result<(), GenerateError> {
        self.server.refit(folder).map_err(remote)?;
        self.weights = version;
        Ok(())
    }

    /// What is left of the context, at most `max_new_tokens`.
    fn room(&self, sequence: &Sequence, turn: &Turn) -> usize {
        turn.max_new_tokens.min(self.context.saturating_sub(sequence.tokens.len()))
    }

    fn body(&self, sequence: &Sequence, turn: &Turn) -> Value {
        let sampling = &sequence.sampling;
        let mut parameters = json!({
            "max_new_tokens": self.room(sequence, turn),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": if sampling.top_k == 0 { -1 } else { i64::try_from(sampling.top_k).unwrap_or(-1) },
            "min_p": sampling.min_p,
        });
        if !self.stop.is_empty() {
            parameters["stop"] = json!(self.stop);
            parameters["no_stop_trim"] = json!(true);
        }
        if sampling.min_new_tokens > 0 {
            parameters["min_new_tokens"] = json!(sampling.min_new_tokens);
        }
        if self.seeds {
            parameters["sampling_seed"] = json!(short_seed(turn.seed));
        }
        json!({"input_ids": sequence.tokens, "sampling_params": parameters, "return_logprob": true})
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
                    let result = result.unwrap_or_else(|_| Err(HttpError::new(server.url(), "the request panicked")));
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

impl Generator for SglangGenerator {
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

    /// Ends a turn without tokens. What the server may still answer to it is dropped.
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
