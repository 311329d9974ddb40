//! The engine on the host.

mod blocks;
mod forward;
mod sampler;
mod weights;

use rayon::prelude::*;
use zerosearch_generate::{GenerateError, SampledToken};
use zerosearch_kernels::host::Masses;

use self::blocks::Store;
use self::forward::{Activations, Step};
use self::sampler::sample;
use self::weights::PackedNetwork;
use super::{Draw, Engine, Rows, Source};
use crate::cache::BlockId;
use crate::network::Network;
use crate::{LmError, ModelConfig, WeightDtype};

/// Decodes on the CPU, with all threads.
pub(crate) struct HostEngine {
    config: ModelConfig,
    dtype: WeightDtype,
    /// None while their memory is given away.
    weights: Option<PackedNetwork>,
    store: Store,
    activations: Activations,
}

impl HostEngine {
    /// Without weights, until it is given [some](Engine::fill).
    pub(crate) fn new(config: &ModelConfig, dtype: WeightDtype) -> Self {
        let (config, store, activations) = (config.clone(), Store::new(config), Activations::default());
        Self { config, dtype, weights: None, store, activations }
    }
}

impl Engine for HostEngine {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn fill(&mut self, weights: &Network<Source<'_>>) -> Result<(), LmError> {
        self.weights.get_or_insert_with(|| PackedNetwork::new(&self.config, self.dtype)).fill(weights);
        Ok(())
    }

    fn clear(&mut self) {
        self.weights = None;
        self.activations = Activations::default();
    }

    fn is_filled(&self) -> bool {
        self.weights.is_some()
    }

    fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.store.copy(from, to);
    }

    fn free_block(&mut self, block: BlockId) {
        self.store.free(block);
    }

    fn step(&mut self, rows: &[Rows<'_>]) -> Result<Vec<SampledToken>, GenerateError> {
        let weights = self.weights.as_ref().ok_or_else(|| GenerateError::Engine("there are no weights".into()))?;
        let mut written: Vec<_> = rows.iter().map(|rows| self.store.open(rows)).collect();
        let step = Step { config: &self.config, store: &self.store, rows };
        step.run(weights, &mut written, &mut self.activations);
        rows.iter().zip(written).for_each(|(rows, written)| self.store.close(rows, written));
        let draws: Vec<Draw<'_>> = rows.iter().filter_map(|rows| rows.draw).collect();
        let logits = self.activations.logits.par_chunks_exact(self.config.vocab_size).zip(draws);
        Ok(logits.map_init(Masses::default, |masses, (logits, draw)| sample(logits, &draw, masses)).collect())
    }
}
