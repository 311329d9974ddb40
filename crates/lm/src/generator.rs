//! The local [`Generator`]: continuous batching over sequences that keep their caches between turns.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Device;
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SequenceId, Statistics, TokenId, Turn, Wake, WeightVersion,
};

use crate::cache::Blocks;
use crate::engine::{Engine, engine_on};
use crate::prefix::Prefixes;
use crate::sequence::{ActiveTurn, Sequence};
use crate::{Decoder, HostWeights, LanguageModel, LmError, ModelConfig, WeightDtype};

/// Decodes in this process, on the CPU or a GPU. A sampled sequence depends on its prompt, its observations, its seeds and the
/// weights, and on nothing else: not on the batch, the slot, the memory or the number of threads.
///
/// A prefix that sequences have in common is computed once: what one of them has computed serves the others while it lives
/// and, as long as there is memory for it, after its release.
pub struct LocalGenerator {
    pub(crate) engine: Box<dyn Engine>,
    weights: WeightVersion,
    eos: Vec<TokenId>,
    pub(crate) max_batch: usize,
    pub(crate) cache_bytes: usize,
    next_id: u64,
    pub(crate) sequences: BTreeMap<SequenceId, Sequence>,
    pub(crate) blocks: Blocks,
    pub(crate) prefixes: Prefixes,
    pub(crate) statistics: Statistics,
}

impl LocalGenerator {
    /// Decodes on the CPU with these weights; sampling any of `eos` ends a turn.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn new(config: &ModelConfig, weights: &HostWeights, eos: &[TokenId]) -> Result<Self, LmError> {
        Self::on(&Device::flex(), WeightDtype::F32, config, weights, eos)
    }

    /// As [`new`](Self::new) on a device, with weights that are held in this type, and so rounded to it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(
        device: &Device,
        dtype: WeightDtype,
        config: &ModelConfig,
        weights: &HostWeights,
        eos: &[TokenId],
    ) -> Result<Self, LmError> {
        let mut generator = Self::with_engine(engine_on(device, config, dtype), eos);
        generator.refit(weights, WeightVersion(0))?;
        Ok(generator)
    }

    /// Decodes on the CPU with a model; sampling any of its end-of-text tokens ends a turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_model(model: &LanguageModel) -> Result<Self, LmError> {
        Self::new(&model.config, &model.weights, model.codec.eos_ids())
    }

    /// As [`for_model`](Self::for_model) on a device, with weights in [its type](WeightDtype::default_on).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_model_on(model: &LanguageModel, device: &Device) -> Result<Self, LmError> {
        Self::on(device, WeightDtype::default_on(device), &model.config, &model.weights, model.codec.eos_ids())
    }

    /// Decodes with the weights of a decoder, its adapters merged, on its device and in the type in which it multiplies by
    /// them; sampling any of `eos` ends a turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(decoder: &Decoder, eos: &[TokenId]) -> Result<Self, LmError> {
        let engine = engine_on(decoder.device(), decoder.config(), decoder.weight_dtype());
        let mut generator = Self::with_engine(engine, eos);
        generator.refit_from(decoder, WeightVersion(0))?;
        Ok(generator)
    }

    pub(crate) fn with_engine(engine: Box<dyn Engine>, eos: &[TokenId]) -> Self {
        Self {
            engine,
            weights: WeightVersion(0),
            eos: eos.to_vec(),
            max_batch: 256,
            cache_bytes: usize::MAX,
            next_id: 0,
            sequences: BTreeMap::new(),
            blocks: Blocks::default(),
            prefixes: Prefixes::default(),
            statistics: Statistics::default(),
        }
    }

    /// At most this many sequences decode at once; the others wait. It changes speed, never a token.
    pub fn with_max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch.max(1);
        self
    }

    /// The caches hold at most this many bytes. When they are full, those of released sequences make room, the least
    /// recently used first. Then sequences wait, and those that wait for a search or came last give their caches up and are
    /// computed again later: it changes speed, never a token. A sequence that does not fit even alone ends with
    /// [`Finish::Context`]. Without a bound, at most 256 MiB are kept of released sequences.
    pub fn with_cache_bytes(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = cache_bytes;
        self
    }

    /// Replaces the weights. Live sequences keep the caches that the old weights computed; no other sequence shares them.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape; the present weights then stay.
    pub fn refit(&mut self, weights: &HostWeights, version: WeightVersion) -> Result<(), LmError> {
        let sources = weights.sources(self.engine.config())?;
        self.engine.fill(&sources)?;
        self.now_at(version);
        Ok(())
    }

    /// As [`refit`](Self::refit) with the weights of a decoder, its adapters merged, without a copy of all of them at once.
    ///
    /// # Errors
    /// When the decoder has another shape; the present weights then stay.
    pub fn refit_from(&mut self, decoder: &Decoder, version: WeightVersion) -> Result<(), LmError> {
        let sources = decoder.sources(self.engine.config())?;
        self.engine.fill(&sources)?;
        self.now_at(version);
        Ok(())
    }

    /// Goes by other weights from now on.
    pub(crate) fn now_at(&mut self, version: WeightVersion) {
        self.weights = version;
        self.forget_prefixes();
    }

    /// Counts since the generator was made, or since they were taken.
    pub fn statistics(&self) -> Statistics {
        let peak_cache_bytes = (self.blocks.peak() * self.engine.block_bytes()) as u64;
        Statistics { peak_cache_bytes, ..self.statistics }
    }

    fn check(&self, tokens: &[TokenId]) -> Result<(), GenerateError> {
        let vocabulary = self.engine.config().vocab_size;
        match tokens.iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => Err(GenerateError::UnknownToken { id: *id, vocabulary }),
            None => Ok(()),
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
    fn step(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let (chosen, mut finished) = self.choose();
        let ahead = self.engine.looks_ahead().then(|| self.engine.config().max_positions);
        let (mut rows, mut drawing) = (Vec::new(), Vec::new());
        for (id, sequence) in &mut self.sequences {
            let Some(count) = chosen.get(id) else { continue };
            let next = sequence.rows(*count, &self.eos, ahead);
            self.statistics.prefilled += (count - usize::from(next.draw.is_some())) as u64;
            if next.draw.is_some() {
                drawing.push(*id);
            }
            rows.push(next);
        }
        if rows.is_empty() {
            return Ok(finished);
        }
        let drawn = self.engine.step(&rows)?;
        for (id, count) in chosen {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.cache.advance(count);
                self.prefixes.enter(&sequence.tokens, &mut sequence.cache, &mut self.blocks, &mut *self.engine);
            }
        }
        for (id, token) in drawing.into_iter().zip(drawn) {
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
        Ok(finished)
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
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.insert(id, Sequence::new(request.prompt, request.sampling, request.turn));
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.check(observation)?;
        match self.sequences.get_mut(&id) {
            Some(sequence) if sequence.turn.is_none() => {
                sequence.tokens.extend_from_slice(observation);
                sequence.turn = Some(ActiveTurn::new(turn));
                Ok(())
            }
            _ => Err(GenerateError::NotWaiting(id.0)),
        }
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        self.poll_until(&Wake::default())
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        loop {
            let mut finished = self.finish_without_sampling();
            if finished.is_empty() && self.sequences.values().any(|sequence| sequence.turn.is_some()) {
                if !self.engine.is_filled() {
                    return Err(GenerateError::Engine("the weights were released: call `refit` first".into()));
                }
                finished = self.step()?;
            } else if finished.is_empty() {
                return Ok(finished);
            }
            if !finished.is_empty() || wake.is_raised() {
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
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.blocks.release(&mut sequence.cache, &mut *self.engine);
            self.bound_recent();
        }
    }

    fn weight_version(&self) -> WeightVersion {
        self.weights
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use zerosearch_generate::{Sampling, never};

    use super::*;
    use crate::engine::tests::Remembering;

    /// Every token of two turns of nine sequences in groups of three, with an observation between the turns.
    fn play(engine: Remembering, cache_bytes: usize) -> (BTreeMap<SequenceId, Vec<TokenId>>, Statistics) {
        let mut generator = LocalGenerator::with_engine(Box::new(engine), &[]).with_cache_bytes(cache_bytes);
        let turn = |seed| Turn { max_new_tokens: 20, seed, stop: never(), deadline: None };
        for index in 0..9u64 {
            let prompt: Vec<TokenId> = (0..30 + index as u32 / 3 * 7).collect();
            let sampling = if index % 2 == 0 { Sampling::default() } else { Sampling::greedy() };
            generator.start(Request { prompt: &prompt, sampling, turn: turn(index) }).unwrap();
        }
        let mut tokens: BTreeMap<SequenceId, Vec<TokenId>> = BTreeMap::new();
        loop {
            let finished = generator.poll().unwrap();
            if finished.is_empty() {
                break;
            }
            for Finished { id, tokens: sampled, .. } in finished {
                let all = tokens.entry(id).or_default();
                all.extend(sampled.iter().map(|token| token.id));
                if all.len() == 20 {
                    generator.extend(id, &[7; 11], turn(100 + id.0)).unwrap();
                } else {
                    generator.release(id);
                }
            }
        }
        assert_eq!(generator.blocks.used(), generator.blocks.recent());
        (tokens, generator.statistics())
    }

    #[test]
    fn any_engine_is_told_where_each_sequence_left_what_it_computed() {
        let (expected, plenty) = play(Remembering::new(), usize::MAX);
        assert!(expected.len() == 9 && expected.values().all(|tokens| tokens.len() == 40));
        assert!(plenty.shared > 0 && plenty.evicted == 0, "{plenty:?}");
        let few = 9 * Remembering::new().block_bytes();
        let (found, little) = play(Remembering::new(), few);
        assert!(little.evicted > 0 && little.peak_cache_bytes <= few as u64, "{little:?}");
        assert_eq!(found, expected);
    }

    #[test]
    fn an_engine_that_looks_ahead_is_told_the_draws_that_it_is_asked_for_next() {
        let (expected, _) = play(Remembering::new(), usize::MAX);
        for (cache_bytes, at_least) in [(usize::MAX, 300), (9 * Remembering::new().block_bytes(), 20)] {
            let came = Arc::new(AtomicUsize::new(0));
            let mut engine = Remembering::new();
            engine.came = Some(came.clone());
            let (found, statistics) = play(engine, cache_bytes);
            assert_eq!(found, expected);
            assert!(statistics.peak_cache_bytes <= cache_bytes as u64, "{statistics:?}");
            // Of 360 tokens the first of each turn was drawn behind a prompt; with little memory, sequences wait for each other.
            assert!(came.load(Ordering::Relaxed) >= at_least, "{came:?}");
        }
    }
}
