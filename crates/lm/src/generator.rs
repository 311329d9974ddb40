//! The local [`Generator`]: continuous batching over sequences that keep their caches between turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, Statistics, Stop, TokenId,
    Turn, WeightVersion,
};
use zerosearch_kernels::host::Masses;

use crate::cache::{Cache, Pool};
use crate::engine::{Engine, Work};
use crate::sampler::sample;
use crate::{Decoder, HostWeights, LanguageModel, LmError, ModelConfig};

/// Decodes on the host. A sampled sequence depends on its prompt, its observations, its seeds and the
/// weights, and on nothing else: not on the batch, the slot, the memory or the number of threads.
pub struct LocalGenerator {
    pub(crate) engine: Engine,
    weights: WeightVersion,
    eos: Vec<TokenId>,
    pub(crate) max_batch: usize,
    pub(crate) cache_bytes: usize,
    next_id: u64,
    pub(crate) sequences: BTreeMap<SequenceId, Sequence>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) statistics: Statistics,
}

pub(crate) struct Sequence {
    /// Every token so far. The cache holds the first of them.
    pub(crate) tokens: Vec<TokenId>,
    prompt: usize,
    pub(crate) cache: Cache,
    sampling: Sampling,
    /// A sequence with the same prompt whose cache is shared once it is computed.
    pub(crate) leader: Option<SequenceId>,
    pub(crate) turn: Option<Active>,
}

pub(crate) struct Active {
    rng: ChaCha8Rng,
    stop: Stop,
    limit: usize,
    deadline: Option<Instant>,
    cancelled: bool,
    tokens: Vec<SampledToken>,
}

impl Sequence {
    /// Tokens that the cache does not hold yet.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    /// What it was started with.
    pub(crate) fn prompt(&self) -> &[TokenId] {
        &self.tokens[..self.prompt]
    }

    /// Those of its prompt that another sequence with the same prompt can take over: the last one it computes itself,
    /// which yields the logits of its first draw.
    pub(crate) fn sharable(&self) -> usize {
        self.prompt - 1
    }

    pub(crate) fn finish(&mut self, id: SequenceId, finish: Finish) -> Option<Finished> {
        self.turn.take().map(|turn| Finished { id, tokens: turn.tokens, finish })
    }
}

impl LocalGenerator {
    /// Decodes with these weights; sampling any of `eos` ends a turn.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn new(config: &ModelConfig, weights: &HostWeights, eos: &[TokenId]) -> Result<Self, LmError> {
        let mut generator = Self::without_weights(config, eos);
        generator.refit(weights, WeightVersion(0))?;
        Ok(generator)
    }

    /// Decodes with a model; sampling any of its end-of-text tokens ends a turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_model(model: &LanguageModel) -> Result<Self, LmError> {
        Self::new(&model.config, &model.weights, model.codec.eos_ids())
    }

    /// Decodes with the weights of a decoder, its adapters merged; sampling any of `eos` ends a turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(decoder: &Decoder, eos: &[TokenId]) -> Result<Self, LmError> {
        let mut generator = Self::without_weights(decoder.config(), eos);
        generator.refit_from(decoder, WeightVersion(0))?;
        Ok(generator)
    }

    fn without_weights(config: &ModelConfig, eos: &[TokenId]) -> Self {
        Self {
            engine: Engine::new(config),
            weights: WeightVersion(0),
            eos: eos.to_vec(),
            max_batch: 256,
            cache_bytes: usize::MAX,
            next_id: 0,
            sequences: BTreeMap::new(),
            pool: Arc::default(),
            statistics: Statistics::default(),
        }
    }

    /// At most this many sequences decode at once; the others wait. It changes speed, never a token.
    pub fn with_max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch.max(1);
        self
    }

    /// The caches hold at most this many bytes. When they are full, sequences wait, and those that wait for a search or
    /// came last give their caches up and are computed again later: it changes speed, never a token. A sequence that does
    /// not fit even alone ends with [`Finish::Context`].
    pub fn with_cache_bytes(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = cache_bytes;
        self
    }

    /// Replaces the weights. Live sequences keep the caches that the old weights computed.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape; the present weights then stay.
    pub fn refit(&mut self, weights: &HostWeights, version: WeightVersion) -> Result<(), LmError> {
        self.engine.fill(&weights.sources(self.engine.config())?);
        self.weights = version;
        Ok(())
    }

    /// As [`refit`](Self::refit) with the weights of a decoder, its adapters merged, without a copy of all of them at once.
    ///
    /// # Errors
    /// When the decoder has another shape; the present weights then stay.
    pub fn refit_from(&mut self, decoder: &Decoder, version: WeightVersion) -> Result<(), LmError> {
        self.engine.fill(&decoder.sources(self.engine.config())?);
        self.weights = version;
        Ok(())
    }

    /// Gives the memory of the weights back, until others are put in place: what vLLM calls a sleep. A training step
    /// needs it for gradients and activations. Live sequences stay, but [`poll`](Generator::poll) fails meanwhile.
    pub fn release_weights(&mut self) {
        self.engine.clear();
    }

    /// Counts since the generator was made, or since they were taken.
    pub fn statistics(&self) -> Statistics {
        Statistics { peak_cache_bytes: self.pool.peak() as u64, ..self.statistics }
    }

    /// The counts so far, which begin anew.
    pub fn take_statistics(&mut self) -> Statistics {
        let taken = self.statistics();
        self.statistics = Statistics::default();
        self.pool.reset_peak();
        taken
    }

    fn check(&self, tokens: &[TokenId]) -> Result<(), GenerateError> {
        let vocabulary = self.engine.config().vocab_size;
        match tokens.iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => Err(GenerateError::UnknownToken { id: *id, vocabulary }),
            None => Ok(()),
        }
    }

    fn active(turn: Turn) -> Active {
        Active {
            rng: ChaCha8Rng::seed_from_u64(turn.seed),
            stop: turn.stop,
            limit: turn.max_new_tokens,
            deadline: turn.deadline,
            cancelled: false,
            tokens: Vec::new(),
        }
    }

    /// Turns that end before another token is sampled.
    fn finish_without_sampling(&mut self) -> Vec<Finished> {
        let context = self.engine.config().max_positions;
        let mut now = None;
        let mut finished = Vec::new();
        for (id, sequence) in &mut self.sequences {
            let Some(turn) = &sequence.turn else { continue };
            let late = turn.deadline.is_some_and(|deadline| *now.get_or_insert_with(Instant::now) >= deadline);
            let finish = if turn.cancelled {
                Finish::Cancelled
            } else if sequence.tokens.len() >= context {
                Finish::Context
            } else if turn.tokens.len() >= turn.limit {
                Finish::Length
            } else if late {
                Finish::TimedOut
            } else {
                continue;
            };
            finished.extend(sequence.finish(*id, finish));
        }
        finished
    }

    /// Computes some tokens of some sequences, and draws the next token of those that have computed all of theirs.
    fn step(&mut self) -> Vec<Finished> {
        self.share_prompts();
        let (chosen, mut finished) = self.choose();
        let mut work = Vec::new();
        let mut drawing = Vec::new();
        for (id, sequence) in &mut self.sequences {
            let Some(count) = chosen.get(id) else { continue };
            let Sequence { tokens, cache, sampling, turn, .. } = sequence;
            let range = cache.len()..cache.len() + count;
            let last = range.end == tokens.len();
            self.statistics.prefilled += (count - usize::from(last)) as u64;
            work.push(Work { cache, tokens: &tokens[range], logits: last });
            if let (true, Some(turn)) = (last, turn) {
                drawing.push((*id, sampling, turn));
            }
        }
        if work.is_empty() {
            return finished;
        }
        let logits = self.engine.forward(work);
        let rows = logits.par_chunks_exact(self.engine.config().vocab_size).zip(drawing);
        let eos = &self.eos;
        let drawn: Vec<(SequenceId, SampledToken)> = rows
            .map_init(Masses::default, |masses, (logits, (id, sampling, turn))| {
                let banned = if turn.tokens.len() < sampling.min_new_tokens { &eos[..] } else { &[] };
                (id, sample(logits, sampling, banned, &mut turn.rng, masses))
            })
            .collect();
        for (id, token) in drawn {
            self.statistics.sampled += 1;
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            sequence.tokens.push(token.id);
            let Some(turn) = &mut sequence.turn else { continue };
            turn.tokens.push(token);
            let finish = if (turn.stop)(token.id) {
                Finish::Stop
            } else if self.eos.contains(&token.id) {
                Finish::EndOfText
            } else {
                continue;
            };
            finished.extend(sequence.finish(id, finish));
        }
        finished
    }
}

impl Generator for LocalGenerator {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        request.sampling.validate()?;
        self.check(request.prompt)?;
        let context = self.engine.config().max_positions;
        if request.prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if request.prompt.len() >= context {
            return Err(GenerateError::PromptTooLong { length: request.prompt.len(), context });
        }
        let leader = self.leader_for(request.prompt);
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let sequence = Sequence {
            tokens: request.prompt.to_vec(),
            prompt: request.prompt.len(),
            cache: Cache::default(),
            sampling: request.sampling,
            leader,
            turn: Some(Self::active(request.turn)),
        };
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.check(observation)?;
        match self.sequences.get_mut(&id) {
            Some(sequence) if sequence.turn.is_none() => {
                sequence.tokens.extend_from_slice(observation);
                sequence.turn = Some(Self::active(turn));
                Ok(())
            }
            _ => Err(GenerateError::NotWaiting(id.0)),
        }
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        loop {
            let mut finished = self.finish_without_sampling();
            if finished.is_empty() && self.sequences.values().any(|sequence| sequence.turn.is_some()) {
                if self.engine.is_clear() {
                    return Err(GenerateError::Engine("the weights were released: call `refit` first".into()));
                }
                finished = self.step();
            } else if finished.is_empty() {
                return Ok(finished);
            }
            if !finished.is_empty() {
                finished.sort_by_key(|turn| turn.id);
                return Ok(finished);
            }
        }
    }

    fn cancel(&mut self, id: SequenceId) {
        if let Some(turn) = self.sequences.get_mut(&id).and_then(|sequence| sequence.turn.as_mut()) {
            turn.cancelled = true;
        }
    }

    fn release(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.weights
    }
}
