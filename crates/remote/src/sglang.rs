//! A generator whose sequences are decoded by an SGLang server.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn,
    WeightVersion,
};
use zerosearch_http::{RetryPolicy, in_parallel};

use crate::sglang_server::SglangServer;
use crate::wire::{CONCURRENCY, patient, remote, short_seed};

/// A policy behind SGLang's `POST /generate`: token ids in, token ids and log-probabilities out.
///
/// The server holds no sequence for us: a turn sends the whole sequence again, and the server's prefix
/// cache spares the work. [`poll`](Generator::poll) sends all waiting turns at once, within a bound,
/// and returns when all are answered.
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
    server: SglangServer,
    context: usize,
    stop: Vec<String>,
    seeds: bool,
    concurrency: usize,
    weights: WeightVersion,
    next: u64,
    sequences: BTreeMap<SequenceId, Sequence>,
}

struct Sequence {
    tokens: Vec<TokenId>,
    sampling: Sampling,
    state: State,
}

enum State {
    /// Its turn is to be sent.
    Decoding(Turn),
    /// Its turn ended and `poll` has not said so yet.
    Ended(Vec<SampledToken>, Finish),
    /// Waits for an observation.
    Waiting,
}

impl SglangGenerator {
    /// A server at this address whose model's context holds `context` tokens. Nothing is sent yet.
    pub fn new(url: &str, context: usize) -> Self {
        Self {
            server: SglangServer::new(url, patient()),
            context,
            stop: Vec::new(),
            seeds: false,
            concurrency: CONCURRENCY,
            weights: WeightVersion::default(),
            next: 0,
            sequences: BTreeMap::new(),
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
        self.server = SglangServer::new(self.server.url(), retry);
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

    /// Sends the waiting turns and puts the answers into their sequences. A sequence whose request
    /// failed stays as it was, so that polling again sends it again.
    fn decode(&mut self) -> Result<(), GenerateError> {
        let now = Instant::now();
        for sequence in self.sequences.values_mut() {
            if matches!(&sequence.state, State::Decoding(turn) if turn.deadline.is_some_and(|deadline| deadline <= now))
            {
                sequence.state = State::Ended(Vec::new(), Finish::TimedOut);
            }
        }
        // The closures of the turns stay on this thread; only bodies travel to others.
        let (this, server) = (&*self, &self.server);
        let waiting: Vec<(SequenceId, Value)> = this
            .sequences
            .iter()
            .filter_map(|(id, sequence)| match &sequence.state {
                State::Decoding(turn) if this.room(sequence, turn) > 0 => Some((*id, this.body(sequence, turn))),
                _ => None,
            })
            .collect();
        let answers = in_parallel(&waiting, this.concurrency, |(_, body)| server.generate(body));
        let mut answers: BTreeMap<SequenceId, _> = waiting.into_iter().map(|(id, _)| id).zip(answers).collect();

        let mut failure = None;
        for (id, sequence) in &mut self.sequences {
            let State::Decoding(turn) = &mut sequence.state else { continue };
            let full = sequence.tokens.len() + turn.max_new_tokens > self.context;
            let limit = if full { Finish::Context } else { Finish::Length };
            let (mut tokens, finish) = match answers.remove(id) {
                None => (Vec::new(), limit),
                Some(Ok((tokens, Finish::Length))) => (tokens, limit),
                Some(Ok(answer)) => answer,
                Some(Err(error)) => {
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
        self.decode()?;
        let finished = self.sequences.iter_mut().filter_map(|(id, sequence)| {
            match std::mem::replace(&mut sequence.state, State::Waiting) {
                State::Ended(tokens, finish) => Some(Finished { id: *id, tokens, finish }),
                other => {
                    sequence.state = other;
                    None
                }
            }
        });
        Ok(finished.collect())
    }

    /// Ends a turn that has not been sent yet.
    fn cancel(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id)
            && matches!(sequence.state, State::Decoding(_))
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
