//! Sequences whose turns are sampled by a server, whatever it speaks.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn,
    WeightVersion,
};
use zerosearch_http::{HttpError, in_parallel};

use crate::wire::{remote, short_seed};

/// A server that samples one turn at a time, given the whole sequence so far.
pub(crate) trait TurnServer: Send + Sync {
    /// The request for a turn of at most `room` tokens after `tokens`.
    fn body(&self, tokens: &[TokenId], sampling: &Sampling, room: usize, options: &Options, seed: u64) -> Value;

    /// What was sampled, and why it ended.
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
    pub(crate) server: S,
    context: usize,
    pub(crate) options: Options,
    pub(crate) concurrency: usize,
    pub(crate) weights: WeightVersion,
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

impl<S: TurnServer> Turns<S> {
    pub(crate) fn new(server: S, context: usize, concurrency: usize) -> Self {
        Self {
            server,
            context,
            options: Options::default(),
            concurrency,
            weights: WeightVersion::default(),
            next: 0,
            sequences: BTreeMap::new(),
        }
    }

    /// What is left of the context, at most `max_new_tokens`.
    fn room(&self, sequence: &Sequence, turn: &Turn) -> usize {
        turn.max_new_tokens.min(self.context.saturating_sub(sequence.tokens.len()))
    }

    fn body(&self, sequence: &Sequence, turn: &Turn) -> Value {
        let Sequence { tokens, sampling, .. } = sequence;
        self.server.body(tokens, sampling, self.room(sequence, turn), &self.options, short_seed(turn.seed))
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

/// Makes a type with a field `turns` a [`Generator`].
macro_rules! generate_by_turns {
    ($type:ty) => {
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

            /// Ends a turn that has not been sent yet.
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
