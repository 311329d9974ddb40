//! Decoding: against the CPU's, at several batches, and group rollouts of several turns.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Generator, Request, SampledToken, Sampling, SequenceId, Turn, never};
use zerosearch::lm::{HostWeights, LocalGenerator, ModelConfig, WeightDtype};

/// Tokens of a turn.
const NEW: usize = 32;
const QUESTIONS: u64 = 64;
const SAMPLES: u64 = 5;
const TURNS: u64 = 3;
const PROMPT: usize = 64;
const OBSERVATION: usize = 250;

/// A model with random weights.
pub(crate) struct Model {
    device: Device,
    dtype: WeightDtype,
    config: ModelConfig,
    weights: Arc<HostWeights>,
}

impl Model {
    pub(crate) fn new(device: &Device, dtype: WeightDtype, config: ModelConfig) -> Result<Self, Failure> {
        let weights = Arc::new(HostWeights::init(&config, 0));
        Ok(Self { device: device.clone(), dtype, config, weights })
    }

    fn generator(&self) -> Result<LocalGenerator, Failure> {
        Ok(LocalGenerator::on(&self.device, self.dtype, &self.config, &self.weights, &[])?)
    }

    /// Tokens that differ from one another and from those of another seed.
    fn tokens(&self, count: usize, seed: u64) -> Vec<u32> {
        (0..count as u64).map(|i| ((i * 31 + seed * 977 + 7) % self.config.vocab_size as u64) as u32).collect()
    }

    /// Decodes sequences behind a context of so many tokens. The roof is what the weights and the caches take to be read.
    pub(crate) fn decode(&mut self, batch: usize, context: usize, bandwidth: Option<f64>) -> Result<Value, Failure> {
        let began = Instant::now();
        let mut generator = self.generator()?;
        let loaded = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let mut ids = Vec::new();
        for seed in 0..batch as u64 {
            ids.push(start(&mut generator, &self.tokens(context, seed), seed, 1)?);
        }
        run(&mut generator)?;
        let prefilled = began.elapsed().as_secs_f64();
        // The first turn compiles and records.
        let mut seconds = Vec::new();
        for round in 0..4 {
            for id in &ids {
                generator.extend(*id, &[5], turn(id.0 + round, NEW))?;
            }
            let began = Instant::now();
            run(&mut generator)?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        let first = seconds.remove(0);
        let best = seconds.into_iter().fold(f64::INFINITY, f64::min);
        let rate = (batch * NEW) as f64 / best;
        let c = &self.config;
        let weight = if self.dtype == WeightDtype::F32 { 4 } else { 2 };
        let cached = batch * context * 2 * c.layers * c.kv_heads * c.head_dim * size_of::<f32>();
        let bytes = self.weights.parameters() * weight + cached;
        let roof = bandwidth.map(|bandwidth| bandwidth * 1e9 / bytes as f64 * batch as f64);
        Ok(json!({
            "tokens_per_second": rate,
            "share_of_the_roof": roof.map(|roof| rate / roof),
            "prefill_tokens_per_second": (batch * context) as f64 / prefilled,
            "seconds_to_load": loaded,
            "seconds_of_the_first_turn": first,
        }))
    }

    /// Questions with several samples each, whose sequences live on from turn to turn.
    pub(crate) fn rollouts(&mut self) -> Result<Value, Failure> {
        let tiny = self.config.hidden_size < 256;
        let questions = if tiny { 4 } else { QUESTIONS };
        let mut generator = self.generator()?.with_max_batch(256);
        let began = Instant::now();
        let mut alive = Vec::new();
        for question in 0..questions {
            let prompt = self.tokens(PROMPT, question);
            for sample in 0..SAMPLES {
                alive.push(start(&mut generator, &prompt, question * SAMPLES + sample, NEW)?);
            }
        }
        run(&mut generator)?;
        for at in 1..TURNS {
            for id in &alive {
                let seed = id.0 * 10 + at;
                generator.extend(*id, &self.tokens(OBSERVATION, seed), turn(seed, NEW))?;
            }
            run(&mut generator)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let sampled = questions * SAMPLES * TURNS * NEW as u64;
        Ok(json!({ "sampled_tokens_per_second": sampled as f64 / seconds, "questions": questions, "seconds": seconds }))
    }
}

/// Greedy continuations of a device and of the CPU, in f32 on both.
///
/// # Errors
/// When they are not the same.
pub(crate) fn parity(device: &Device) -> Result<Value, Failure> {
    let mut furthest: f32 = 0.0;
    for config in [ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80), ModelConfig::tiny_llama(2048, 128, 3, 4, 4, 256)] {
        let mut played: Vec<Vec<SampledToken>> = Vec::new();
        for device in [&Device::flex(), device] {
            let model = Model::new(device, WeightDtype::F32, config.clone())?;
            let mut generator = model.generator()?;
            for length in [1, 17, 300] {
                let prompt = model.tokens(length, 3);
                generator.start(Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(0, 16) })?;
            }
            let mut turns = run(&mut generator)?;
            turns.sort_by_key(|(id, _)| *id);
            played.push(turns.into_iter().flat_map(|(_, tokens)| tokens).collect());
        }
        for (found, expected) in played[1].iter().zip(&played[0]) {
            let distance = (found.logprob - expected.logprob).abs();
            if found.id != expected.id || distance > 1e-3 {
                let message = format!("the device draws {found:?} where the CPU draws {expected:?}");
                return Err(Failure::message(message));
            }
            furthest = furthest.max(distance);
        }
    }
    Ok(json!({ "same_tokens": true, "furthest_logprob": furthest }))
}

fn turn(seed: u64, max_new_tokens: usize) -> Turn {
    Turn { max_new_tokens, seed, stop: never(), deadline: None }
}

fn start(generator: &mut LocalGenerator, prompt: &[u32], seed: u64, new: usize) -> Result<SequenceId, Failure> {
    Ok(generator.start(Request { prompt, sampling: Sampling::default(), turn: turn(seed, new) })?)
}

/// Every turn under way, to its end.
fn run(generator: &mut LocalGenerator) -> Result<Vec<(u64, Vec<SampledToken>)>, Failure> {
    let mut all = Vec::new();
    loop {
        let finished = generator.poll()?;
        if finished.is_empty() {
            return Ok(all);
        }
        all.extend(finished.into_iter().map(|turn| (turn.id.0, turn.tokens)));
    }
}
