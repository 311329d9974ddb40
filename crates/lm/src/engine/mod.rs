//! The forward pass behind the local generator: a step of rows in, drawn tokens out.
//!
//! Which sequences a step computes, which blocks of the cache are theirs and which uniform number a draw uses is decided
//! outside, in `scheduling`, `cache`, `prefix` and `generator`: an engine knows weights, blocks and arithmetic.

#[cfg(feature = "cube")]
mod gpu;
mod host;
mod source;

use std::collections::BTreeMap;

use burn::tensor::Device;
use zerosearch_generate::{GenerateError, SampledToken, Sampling, TokenId};
use zerosearch_kernels::WeightCopy;

pub(crate) use source::Source;

use crate::cache::BlockId;
use crate::network::Network;
use crate::{LmError, ModelConfig, WeightDtype};

/// The engine that decodes on a device, without weights.
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
pub(crate) fn engine_on(device: &Device, config: &ModelConfig, dtype: WeightDtype) -> Box<dyn Engine> {
    #[cfg(feature = "cube")]
    if let Some(gpu) = zerosearch_kernels::cube::Gpu::of(device) {
        return Box::new(gpu::GpuEngine::new(gpu, device, config, dtype));
    }
    Box::new(host::HostEngine::new(config, dtype))
}

/// Computes the tokens of many sequences at a time, and draws the next ones.
///
/// A sequence must get the same tokens whichever others are in the step, and however its tokens are cut into steps.
pub(crate) trait Engine: Send {
    /// The shape of the model.
    fn config(&self) -> &ModelConfig;

    /// Takes other weights, in the memory of the present ones. What the caches hold stays.
    ///
    /// # Errors
    /// When there is no memory for them.
    fn fill(&mut self, weights: &Network<Source<'_>>) -> Result<(), LmError>;

    /// The places of its weights, by name, for an optimizer of parameters on `device` to write, which it may do until the engine is
    /// told that they [are written](Self::take_written); nothing is computed meanwhile. `None` where it has none there.
    fn lend(&mut self, _device: &Device) -> Option<BTreeMap<String, WeightCopy>> {
        None
    }

    /// Takes the weights that were written into its memory.
    fn take_written(&mut self) {}

    /// Gives the memory of the weights back, until others are [taken](Self::fill).
    fn clear(&mut self);

    /// Whether there are weights to compute with.
    fn is_filled(&self) -> bool;

    /// Bytes of one block of the cache.
    fn block_bytes(&self) -> usize;

    /// Copies a block, whole, before one of its readers writes to the copy.
    fn copy_block(&mut self, from: BlockId, to: BlockId);

    /// Releases a block that no sequence reads any more. It may be written anew later.
    fn free_block(&mut self, block: BlockId);

    /// Takes every sequence's tokens through the network, their keys and values into the cache, and draws a token behind
    /// each that asks for one. The drawn tokens, in the order of the rows.
    ///
    /// # Errors
    /// When there are no weights, or the device fails.
    fn step(&mut self, rows: &[Rows<'_>]) -> Result<Vec<SampledToken>, GenerateError>;

    /// Whether it computes the step after the one that it is asked for while the host looks at the drawn tokens, of sequences whose
    /// [`next`](Rows::next) draw it knows.
    fn looks_ahead(&self) -> bool {
        false
    }
}

/// The next tokens of one sequence.
pub(crate) struct Rows<'a> {
    pub(crate) tokens: &'a [TokenId],
    /// The position of the first of them. All before it are in the cache.
    pub(crate) start: usize,
    /// The sequence's blocks, with room for the tokens. No other sequence reads those that are written.
    pub(crate) blocks: &'a [BlockId],
    /// How the token behind the last one is drawn, where there are no others to compute before it.
    pub(crate) draw: Option<Draw<'a>>,
    /// How the token behind the drawn one is drawn, should the sequence go on. The blocks have room for the drawn one.
    #[cfg_attr(not(feature = "cube"), allow(dead_code))]
    pub(crate) next: Option<Draw<'a>>,
}

/// How a token is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Draw<'a> {
    pub(crate) sampling: &'a Sampling,
    /// Tokens that must not come.
    pub(crate) banned: &'a [TokenId],
    /// In [0, 1), from the turn's own stream.
    pub(crate) uniform: f64,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use zerosearch_generate::stream_seed;

    use super::*;
    use crate::cache::BLOCK;

    /// An engine without a model: what its cache holds of a position depends on the token, on all before it and on how many
    /// times the weights had been replaced, and what it draws depends on all of the cache.
    pub(crate) struct Remembering {
        config: ModelConfig,
        weights: u64,
        blocks: BTreeMap<u32, [u64; BLOCK]>,
        pub(crate) block_bytes: usize,
        /// Counts the draws that were asked for as they had been announced, where it is told of them.
        pub(crate) came: Option<Arc<AtomicUsize>>,
        /// The uniform numbers of announced draws, by the block and the position of the token before.
        told: BTreeMap<(u32, usize), f64>,
        pub(crate) copied: Vec<(u32, u32)>,
        pub(crate) freed: Vec<u32>,
    }

    impl Remembering {
        pub(crate) fn new() -> Self {
            let config = ModelConfig::tiny_llama(1000, 8, 1, 1, 1, 8);
            Self {
                config,
                weights: 0,
                blocks: BTreeMap::new(),
                block_bytes: BLOCK,
                came: None,
                told: BTreeMap::new(),
                copied: Vec::new(),
                freed: Vec::new(),
            }
        }
    }

    impl Engine for Remembering {
        fn config(&self) -> &ModelConfig {
            &self.config
        }

        fn fill(&mut self, _: &Network<Source<'_>>) -> Result<(), LmError> {
            self.weights += 1;
            Ok(())
        }

        fn clear(&mut self) {}

        fn is_filled(&self) -> bool {
            true
        }

        fn block_bytes(&self) -> usize {
            self.block_bytes
        }

        fn copy_block(&mut self, from: BlockId, to: BlockId) {
            self.copied.push((from.0, to.0));
            if let Some(block) = self.blocks.get(&from.0) {
                self.blocks.insert(to.0, *block);
            }
        }

        fn free_block(&mut self, block: BlockId) {
            self.freed.push(block.0);
            self.blocks.remove(&block.0);
        }

        fn step(&mut self, rows: &[Rows<'_>]) -> Result<Vec<SampledToken>, GenerateError> {
            let held = |blocks: &BTreeMap<u32, [u64; BLOCK]>, rows: &Rows<'_>, position: usize| {
                blocks[&rows.blocks[position / BLOCK].0][position % BLOCK]
            };
            for rows in rows {
                for (position, token) in (rows.start..).zip(rows.tokens) {
                    let before = position.checked_sub(1).map_or(0, |before| held(&self.blocks, rows, before));
                    let block = self.blocks.entry(rows.blocks[position / BLOCK].0).or_default();
                    block[position % BLOCK] = stream_seed(&[before, u64::from(*token), self.weights]);
                }
            }
            let told = std::mem::take(&mut self.told);
            for rows in rows {
                let last = rows.start + rows.tokens.len() - 1;
                let place = |position: usize| (rows.blocks[position / BLOCK].0, position);
                if let (Some(came), Some(draw), Some(uniform)) = (&self.came, rows.draw, told.get(&place(last))) {
                    assert_eq!(draw.uniform, *uniform);
                    came.fetch_add(1, Ordering::Relaxed);
                }
                self.told.extend(rows.next.map(|next| (place(last + 1), next.uniform)));
            }
            let drawn = rows.iter().filter_map(|rows| {
                let draw = rows.draw?;
                let positions = 0..rows.start + rows.tokens.len();
                let context =
                    positions.fold(0, |hash, position| stream_seed(&[hash, held(&self.blocks, rows, position)]));
                let id = (context ^ draw.uniform.to_bits()) % self.config.vocab_size as u64;
                Some(SampledToken { id: id as TokenId, logprob: 0.0, sampling_logprob: None })
            });
            Ok(drawn.collect())
        }

        fn looks_ahead(&self) -> bool {
            self.came.is_some()
        }
    }
}
