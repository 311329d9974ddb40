//! The local [`Generator`]: continuous batching over sequences that keep their caches between turns.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, Stop, TokenId, Turn,
    WeightVersion,
};

use crate::engine::{Cache, Engine, Work};
use crate::sampler::sample;
use crate::{HostWeights, ModelConfig};

/// Decodes on the host. A sampled sequence depends on its prompt, its observations, its seeds and the
/// weights, and on nothing else: not on the batch, the slot or the number of threads.
pub struct LocalGenerator {
    engine: Engine,
    weights: WeightVersion,
    eos: Vec<TokenId>,
    max_batch: usize,
    next_id: u64,
    sequences: BTreeMap<SequenceId, Sequence>,
    statistics: Statistics,
}

/// What a generator has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tokens sampled.
    pub sampled: u64,
    /// Prompt and observation tokens computed.
    pub prefilled: u64,
    /// Prompt tokens whose cache came from another sequence of the group.
    pub shared: u64,
    /// Most bytes that the caches held at once.
    pub peak_cache_bytes: u64,
}

struct Sequence {
    cache: Cache,
    sampling: Sampling,
    /// Tokens that the cache does not hold yet. Empty only while waiting for the next turn.
    pending: Vec<TokenId>,
    /// A sequence with the same prompt whose cache is copied once it is computed.
    leader: Option<SequenceId>,
    turn: Option<Active>,
}

struct Active {
    rng: ChaCha8Rng,
    stop: Stop,
    limit: usize,
    tokens: Vec<SampledToken>,
}

impl LocalGenerator {
    /// Decodes with these weights; sampling any of `eos` ends a turn.
    pub fn new(config: &ModelConfig, weights: &HostWeights, eos: &[TokenId]) -> Self {
        Self {
            engine: Engine::new(config, weights),
            weights: WeightVersion(0),
            eos: eos.to_vec(),
            max_batch: 256,
            next_id: 0,
            sequences: BTreeMap::new(),
            statistics: Statistics::default(),
        }
    }

    /// At most this many sequences decode at once; the others wait. It changes speed, never a token.
    pub fn with_max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch.max(1);
        self
    }

    /// Replaces the weights. Live sequences keep the caches that the old weights computed.
    pub fn refit(&mut self, weights: &HostWeights, version: WeightVersion) {
        self.engine = Engine::new(&self.engine.config().clone(), weights);
        self.weights = version;
    }

    /// Counts since the generator was made.
    pub fn statistics(&self) -> Statistics {
        self.statistics
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
            tokens: Vec::new(),
        }
    }

    /// Turns that end before a token is sampled: no room, or nothing asked for.
    fn finish_without_sampling(&mut self) -> Vec<Finished> {
        let context = self.engine.config().max_positions;
        let mut finished = Vec::new();
        for (id, sequence) in &mut self.sequences {
            let Some(turn) = &sequence.turn else { continue };
            let full = sequence.cache.len() + sequence.pending.len() >= context;
            if full || turn.tokens.len() >= turn.limit {
                let finish = if full { Finish::Context } else { Finish::Length };
                if let Some(turn) = sequence.turn.take() {
                    finished.push(Finished { id: *id, tokens: turn.tokens, finish });
                }
            }
        }
        finished
    }

    fn step(&mut self) -> Vec<Finished> {
        self.copy_from_leaders();
        let mut ids = Vec::new();
        let mut logprobs = Vec::new();
        {
            let ready =
                self.sequences.iter_mut().filter(|(_, s)| s.turn.is_some() && s.leader.is_none()).take(self.max_batch);
            let mut work = Vec::new();
            for (id, sequence) in ready {
                ids.push(*id);
                work.push(Work { cache: &mut sequence.cache, tokens: &sequence.pending, logprobs: Vec::new() });
            }
            self.statistics.prefilled += work.iter().map(|w| w.tokens.len() as u64 - 1).sum::<u64>();
            logprobs.extend(self.engine.forward(work));
        }
        let mut finished = Vec::new();
        for (id, logprobs) in ids.iter().zip(&logprobs) {
            // A follower needs its leader's cache as it is right after the prompt.
            let followers: Vec<SequenceId> =
                self.sequences.iter().filter(|(_, s)| s.leader == Some(*id)).map(|(id, _)| *id).collect();
            if !followers.is_empty()
                && let Some(leader) = self.sequences.get(id)
            {
                let (cache, last) = (leader.cache.clone(), leader.pending.last().copied());
                self.share(&followers, &cache, last);
            }
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            sequence.pending.clear();
            let Some(turn) = &mut sequence.turn else { continue };
            let token = if turn.tokens.len() < sequence.sampling.min_new_tokens {
                let mut open = logprobs.clone();
                for id in &self.eos {
                    if let Some(value) = open.get_mut(*id as usize) {
                        *value = f32::NEG_INFINITY;
                    }
                }
                sample(&open, &sequence.sampling, &mut turn.rng)
            } else {
                sample(logprobs, &sequence.sampling, &mut turn.rng)
            };
            turn.tokens.push(token);
            sequence.pending.push(token.id);
            self.statistics.sampled += 1;
            let stopped = (turn.stop)(token.id);
            let finish = if stopped {
                Some(Finish::Stop)
            } else if self.eos.contains(&token.id) {
                Some(Finish::EndOfText)
            } else {
                None
            };
            if let Some(finish) = finish
                && let Some(turn) = sequence.turn.take()
            {
                finished.push(Finished { id: *id, tokens: turn.tokens, finish });
            }
        }
        let bytes: usize = self.sequences.values().map(|sequence| sequence.cache.bytes()).sum();
        self.statistics.peak_cache_bytes = self.statistics.peak_cache_bytes.max(bytes as u64);
        finished
    }

    /// Gives followers the leader's cache less its last row: that token they compute themselves,
    /// which yields the log-probabilities of their first draw.
    fn share(&mut self, followers: &[SequenceId], cache: &Cache, last: Option<TokenId>) {
        for id in followers {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.leader = None;
                sequence.cache = cache.truncated(cache.len() - 1);
                sequence.pending = last.into_iter().collect();
                self.statistics.shared += cache.len() as u64 - 1;
            }
        }
    }

    /// A leader that was released before it was computed leaves its followers to themselves.
    fn copy_from_leaders(&mut self) {
        let orphans: Vec<SequenceId> = self
            .sequences
            .iter()
            .filter(|(_, s)| {
                s.leader.is_some_and(|leader| self.sequences.get(&leader).is_none_or(|l| l.cache.len() > 0))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in orphans {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.leader = None;
            }
        }
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
        // The samples of a group arrive one after the other: looking at the newest sequence finds them.
        let leader = self.sequences.last_key_value().and_then(|(id, newest)| match newest.leader {
            Some(leader) => self.sequences.get(&leader).map(|sequence| (leader, sequence)),
            None => Some((*id, newest)),
        });
        let leader = leader
            .filter(|(_, s)| {
                s.cache.len() == 0 && s.turn.is_some() && s.pending == request.prompt && request.prompt.len() > 1
            })
            .map(|(id, _)| id);
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let sequence = Sequence {
            cache: Cache::default(),
            sampling: request.sampling,
            pending: request.prompt.to_vec(),
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
                sequence.pending.extend_from_slice(observation);
                sequence.turn = Some(Self::active(turn));
                Ok(())
            }
            _ => Err(GenerateError::NotWaiting(id.0)),
        }
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        loop {
            let mut finished = self.finish_without_sampling();
            if self.sequences.values().any(|sequence| sequence.turn.is_some()) {
                finished.extend(self.step());
            } else if finished.is_empty() {
                return Ok(finished);
            }
            if !finished.is_empty() {
                finished.sort_by_key(|turn| turn.id);
                return Ok(finished);
            }
        }
    }

    fn release(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    fn weights(&self) -> WeightVersion {
        self.weights
    }
}
