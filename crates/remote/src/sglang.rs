//! Token generation by an SGLang server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn,
    WeightVersion,
};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, in_parallel};

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
/// **Seeds** reach the server only with [`with_seeds`](Self::with_seeds); without them a rollout does
/// not repeat.
pub struct SglangGenerator {
    client: JsonClient,
    url: String,
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
            client: JsonClient::new(patient()),
            url: url.trim_end_matches('/').into(),
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
        self.client = JsonClient::new(retry);
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
    /// [`GenerateError::Remote`] names the call that failed; [`weights`](Generator::weights) is then unchanged.
    pub fn refit(&mut self, folder: &str, version: WeightVersion) -> Result<(), GenerateError> {
        self.call("pause_generation", &json!({})).map_err(remote)?;
        let updated = self.update(folder);
        let continued = self.call("continue_generation", &json!({}));
        // What went wrong first explains more.
        updated.map_err(remote)?;
        continued.map_err(remote)?;
        self.weights = version;
        Ok(())
    }

    fn update(&self, folder: &str) -> Result<(), HttpError> {
        let path = "update_weights_from_disk";
        let answer = self.call(path, &json!({"model_path": folder, "flush_cache": true}))?;
        if answer["success"] == json!(false) {
            let message = answer["message"].as_str().unwrap_or("no reason given");
            return Err(HttpError {
                endpoint: format!("{}/{path}", self.url),
                message: format!("cannot load {folder}: {message}"),
            });
        }
        Ok(())
    }

    fn call(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.client.post(&format!("{}/{path}", self.url), body)
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
        if self.seeds {
            parameters["sampling_seed"] = json!(short_seed(turn.seed));
        }
        json!({"input_ids": sequence.tokens, "sampling_params": parameters, "return_logprob": true})
    }

    fn generate(&self, body: &Value) -> Result<(Vec<SampledToken>, Finish), HttpError> {
        let url = format!("{}/generate", self.url);
        let answer: Answer = self.client.post(&url, body)?;
        let unexpected = |message: String| HttpError { endpoint: url.clone(), message };
        let tokens = answer
            .meta_info
            .output_token_logprobs
            .into_iter()
            .map(|(logprob, id, _)| match logprob {
                Some(logprob) if logprob.is_finite() => Ok(SampledToken { id, logprob }),
                _ => Err(unexpected(format!("token {id} has no finite log-probability: {logprob:?}"))),
            })
            .collect::<Result<_, _>>()?;
        let finish = match answer.meta_info.finish_reason {
            Some(FinishReason { kind, matched, .. }) if kind == "stop" => match matched {
                // A number is the end-of-text token, a string one of the stop strings.
                Some(Value::String(_)) => Finish::Stop,
                _ => Finish::EndOfText,
            },
            Some(FinishReason { kind, .. }) if kind == "length" => Finish::Length,
            Some(FinishReason { kind, message, .. }) => {
                let message = message.unwrap_or_else(|| "no reason given".into());
                return Err(unexpected(format!("the request ended with `{kind}`: {message}")));
            }
            None => return Err(unexpected("unexpected answer: no finish reason".into())),
        };
        Ok((tokens, finish))
    }

    /// Sends the waiting turns and puts the answers into their sequences. A sequence whose request
    /// failed stays as it was, so that polling again sends it again.
    fn decode(&mut self) -> Result<(), GenerateError> {
        let this = &*self;
        let waiting: Vec<(SequenceId, Value)> = this
            .sequences
            .iter()
            .filter_map(|(id, sequence)| match &sequence.state {
                State::Decoding(turn) if this.room(sequence, turn) > 0 => Some((*id, this.body(sequence, turn))),
                _ => None,
            })
            .collect();
        let answers = in_parallel(&waiting, this.concurrency, |(_, body)| this.generate(body));
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

    fn release(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    fn weights(&self) -> WeightVersion {
        self.weights
    }
}

#[derive(Deserialize)]
struct Answer {
    meta_info: MetaInfo,
}

#[derive(Deserialize)]
struct MetaInfo {
    output_token_logprobs: Vec<OutputToken>,
    finish_reason: Option<FinishReason>,
}

/// `[log-probability, token id, text]`, the text null unless it was asked for.
type OutputToken = (Option<f32>, TokenId, IgnoredAny);

#[derive(Deserialize)]
struct FinishReason {
    #[serde(rename = "type")]
    kind: String,
    matched: Option<Value>,
    message: Option<String>,
}
