//! Decoding: against the CPU's, at several batches, and group rollouts of several turns.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Generator, Request, SampledToken, Sampling};
use zerosearch::lm::{HostWeights, LocalGenerator, ModelConfig, WeightDtype};

use crate::turns::{GroupRollouts, run, start, tokens, turn};

/// Tokens of a turn.
const NEW: usize = 32;
const ROLLOUTS: GroupRollouts =
    GroupRollouts { questions: 64, samples: 5, turns: 3, prompt: 64, new: NEW, observation: 250 };

/// A model with random weights.
pub(crate) struct Model {
    device: Device,
    dtype: WeightDtype,
    config: ModelConfig,
    weights: Arc<HostWeights>,
}

impl Model {
    pub(crate) fn new(device: &Device, dtype: WeightDtype, config: ModelConfig) -> Self {
        let weights = Arc::new(HostWeights::init(&config, 0));
        Self { device: device.clone(), dtype, config, weights }
    }

    fn generator(&self) -> Result<LocalGenerator, Failure> {
        Ok(LocalGenerator::on(&self.device, self.dtype, &self.config, &self.weights, &[])?)
    }

    /// Decodes sequences behind a context of so many tokens. The roof is what the weights and the caches take to be read.
    pub(crate) fn decode(&self, batch: usize, context: usize, bandwidth: Option<f64>) -> Result<Value, Failure> {
        let began = Instant::now();
        let mut generator = self.generator()?;
        let loaded = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let mut ids = Vec::new();
        for seed in 0..batch as u64 {
            ids.push(start(&mut generator, &tokens(self.config.vocab_size, context, seed), seed, 1)?);
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
    pub(crate) fn rollouts(&self) -> Result<Value, Failure> {
        let tiny = self.config.hidden_size < 256;
        let rollouts = GroupRollouts { questions: if tiny { 4 } else { ROLLOUTS.questions }, ..ROLLOUTS };
        let mut generator = self.generator()?.with_max_batch(256);
        let began = Instant::now();
        rollouts.play(&mut generator, self.config.vocab_size)?;
        let seconds = began.elapsed().as_secs_f64();
        let rate = rollouts.sampled() as f64 / seconds;
        Ok(json!({ "sampled_tokens_per_second": rate, "questions": rollouts.questions, "seconds": seconds }))
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
            let model = Model::new(device, WeightDtype::F32, config.clone());
            let mut generator = model.generator()?;
            for length in [1, 17, 300] {
                let prompt = tokens(config.vocab_size, length, 3);
                generator.start(Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(0, 16) })?;
            }
            let mut turns = run(&mut generator)?;
            turns.sort_by_key(|turn| turn.id);
            played.push(turns.into_iter().flat_map(|turn| turn.tokens).collect());
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
