//! The engine on a GPU.

mod blocks;
mod forward;
mod weights;

use zerosearch_generate::{GenerateError, SampledToken, Sampling};
use zerosearch_kernels::cube::{DrawRule, Drawn, Gpu, Sampler};

use self::blocks::Store;
use self::forward::{RotaryTables, Step};
use self::weights::DeviceNetwork;
use super::{Draw, Engine, Rows, Source};
use crate::cache::BlockId;
use crate::network::Network;
use crate::{LmError, ModelConfig, WeightDtype};

/// Decodes on a GPU. Weights, caches and logits stay there; of a step, the drawn tokens come back.
pub(crate) struct GpuEngine {
    gpu: Gpu,
    config: ModelConfig,
    dtype: WeightDtype,
    /// None while their memory is given away.
    weights: Option<DeviceNetwork>,
    store: Store,
    rotary: RotaryTables,
}

impl GpuEngine {
    /// Without weights, until it is given [some](Engine::fill).
    pub(crate) fn new(gpu: Gpu, config: &ModelConfig, dtype: WeightDtype) -> Self {
        let (store, rotary) = (Store::new(config), RotaryTables::default());
        Self { gpu, config: config.clone(), dtype, weights: None, store, rotary }
    }
}

impl Engine for GpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn fill(&mut self, weights: &Network<Source<'_>>) -> Result<(), LmError> {
        let (gpu, config, dtype) = (&self.gpu, &self.config, self.dtype);
        self.weights.get_or_insert_with(|| DeviceNetwork::new(gpu, config, dtype)).fill(gpu, weights);
        Ok(())
    }

    fn clear(&mut self) {
        self.weights = None;
        self.store.clear_if_unused();
        self.gpu.give_memory_back();
    }

    fn is_filled(&self) -> bool {
        self.weights.is_some()
    }

    fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.store.copy(&self.gpu, from, to);
    }

    fn free_block(&mut self, block: BlockId) {
        self.store.free(block);
    }

    fn step(&mut self, rows: &[Rows<'_>]) -> Result<Vec<SampledToken>, GenerateError> {
        let failed = |error| GenerateError::Engine(format!("{error}"));
        let weights = self.weights.as_ref().ok_or_else(|| GenerateError::Engine("there are no weights".into()))?;
        self.store.hold(&self.gpu, rows);
        let end = rows.iter().map(|rows| rows.start + rows.tokens.len()).max().unwrap_or(0);
        self.rotary.reach(&self.gpu, &self.config, end);
        let step = Step { gpu: &self.gpu, config: &self.config, store: &self.store, rotary: &self.rotary, rows };
        let logits = step.run(weights);
        let draws: Vec<Draw<'_>> = rows.iter().filter_map(|rows| rows.draw).collect();
        let rules: Vec<DrawRule> = draws.iter().map(rule).collect();
        let sampler = Sampler { vocabulary: self.config.vocab_size };
        let drawn = sampler.draw(&self.gpu, &logits, &rules).map_err(failed)?;
        Ok(draws.iter().zip(drawn).map(|(draw, drawn)| token(draw, drawn)).collect())
    }
}

fn rule(draw: &Draw<'_>) -> DrawRule {
    let Draw { sampling, banned, uniform } = *draw;
    let Sampling { temperature, top_k, top_p, min_p, .. } = *sampling;
    let top_k = u32::try_from(top_k).unwrap_or(0);
    DrawRule { temperature, top_k, top_p, min_p, uniform: uniform as f32, banned: banned.to_vec() }
}

/// The drawn token as the host records it: the second log-probability only where it may differ from the first.
fn token(draw: &Draw<'_>, drawn: Drawn) -> SampledToken {
    let same = draw.banned.is_empty() && draw.sampling.is_untouched();
    let sampling_logprob = (!same).then_some(drawn.sampling_logprob);
    SampledToken { id: drawn.token, logprob: drawn.logprob, sampling_logprob }
}
