//! The forward pass on a GPU, some tokens of many sequences at a time.

use zerosearch_kernels::cube::{
    CacheShape, DrawMemory, Gpu, GpuBuffer, Linear, LinearOutput, PagedRows, Sampler, SplitSums, attend, embed,
    rms_norm, rotate_and_append, select_rows,
};

use super::blocks::Store;
use super::weights::DeviceNetwork;
use crate::ModelConfig;

/// Cosines and sines of the first positions, `[positions, head_dim / 2]` each.
#[derive(Default)]
pub(super) struct RotaryTables {
    positions: usize,
    tables: Option<[GpuBuffer; 2]>,
}

impl RotaryTables {
    /// Makes them reach to a position, twice as far as they did where that is further. Whether they are others now.
    pub(super) fn reach(&mut self, gpu: &Gpu, config: &ModelConfig, end: usize) -> bool {
        let short = end > self.positions || self.tables.is_none();
        if short {
            let positions = end.next_power_of_two().max(256);
            let (cos, sin) = config.rotary_tables(0..positions);
            (self.positions, self.tables) = (positions, Some([gpu.upload(&cos), gpu.upload(&sin)]));
        }
        short
    }
}

/// A step as the kernels read it.
pub(super) struct StepInputs {
    /// The token of every row.
    pub(super) tokens: GpuBuffer,
    /// Every row's place in the caches.
    pub(super) paged: PagedRows,
    /// The rows behind which a token is drawn; `None`: all of them.
    pub(super) drawing: Option<GpuBuffer>,
    /// Rules of the draws, and the tokens that they ban (see [`Sampler::encode`]).
    pub(super) rules: [GpuBuffer; 2],
}

impl StepInputs {
    pub(super) fn draws(&self) -> usize {
        self.drawing.as_ref().map_or(self.paged.rows, GpuBuffer::len)
    }
}

/// Activations of a step.
pub(super) struct Workspace {
    x: GpuBuffer,
    normed: GpuBuffer,
    /// Inputs of a product, as tensor cores want them.
    rounded: GpuBuffer,
    qkv: GpuBuffer,
    queries: GpuBuffer,
    attended: GpuBuffer,
    splits: SplitSums,
    gated: GpuBuffer,
    chosen: GpuBuffer,
    logits: GpuBuffer,
    pub(super) drawn: DrawMemory,
}

impl Workspace {
    /// Memory for a step of so many rows up to position `last`, with so many draws.
    pub(super) fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        shape: CacheShape,
        rows: usize,
        last: usize,
        draws: usize,
    ) -> Self {
        let c = config;
        let widest = c.hidden_size.max(c.intermediate_size).max(c.heads * c.head_dim);
        Self {
            x: gpu.empty(rows * c.hidden_size),
            normed: gpu.empty(rows * c.hidden_size),
            rounded: Linear::rounded(gpu, rows, widest),
            qkv: gpu.empty(rows * (c.heads + 2 * c.kv_heads) * c.head_dim),
            queries: gpu.empty(rows * c.heads * shape.padded()),
            attended: gpu.empty(rows * c.heads * c.head_dim),
            splits: SplitSums::new(gpu, shape, rows, last),
            gated: gpu.empty(rows * c.intermediate_size),
            chosen: gpu.empty(draws * c.hidden_size),
            logits: gpu.empty(draws * c.vocab_size),
            drawn: Sampler { vocabulary: c.vocab_size }.memory(gpu, draws),
        }
    }
}

/// The model that a step runs through and the blocks that it reads.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a DeviceNetwork,
    pub(super) store: &'a Store,
    pub(super) rotary: &'a RotaryTables,
}

impl Pass<'_> {
    pub(super) fn sampler(&self) -> Sampler {
        Sampler { vocabulary: self.config.vocab_size }
    }

    /// Takes every row through the network, keys and values into their blocks, and draws the tokens that are asked for.
    /// Launches kernels, and does nothing else.
    pub(super) fn launch(&self, inputs: &StepInputs, work: &Workspace) {
        let Self { gpu, config: c, weights, .. } = *self;
        let Some(tables) = &self.rotary.tables else { return };
        let (shape, paged) = (self.store.shape(), &inputs.paged);
        let rows = paged.rows;
        embed(gpu, &weights.embedding, &inputs.tokens, rows, &work.x);
        for (index, layer) in weights.layers.iter().enumerate() {
            let cache = self.store.layer(index);
            rms_norm(gpu, &work.x, &layer.input_norm, c.rms_norm_eps as f32, rows, &work.normed);
            layer.qkv.forward(gpu, &work.normed, rows, LinearOutput::Store, &work.rounded, &work.qkv);
            let norms = layer.head_norms.as_ref();
            rotate_and_append(gpu, shape, paged, tables.each_ref(), norms, &work.qkv, &work.queries, cache);
            attend(gpu, shape, paged, &work.queries, cache, &work.splits, &work.attended);
            layer.o.forward(gpu, &work.attended, rows, LinearOutput::Add, &work.rounded, &work.x);
            rms_norm(gpu, &work.x, &layer.post_norm, c.rms_norm_eps as f32, rows, &work.normed);
            layer.gate_up.forward(gpu, &work.normed, rows, LinearOutput::Gated, &work.rounded, &work.gated);
            layer.down.forward(gpu, &work.gated, rows, LinearOutput::Add, &work.rounded, &work.x);
        }
        let draws = inputs.draws();
        if draws > 0 {
            let last = match &inputs.drawing {
                Some(drawing) => {
                    select_rows(gpu, &work.x, c.hidden_size, drawing, &work.chosen);
                    &work.chosen
                }
                None => &work.x,
            };
            rms_norm(gpu, last, &weights.norm, c.rms_norm_eps as f32, draws, &work.normed);
            let head = weights.head.as_ref().unwrap_or(&weights.embedding);
            head.forward(gpu, &work.normed, draws, LinearOutput::Store, &work.rounded, &work.logits);
            self.sampler().launch(gpu, &work.logits, draws, inputs.rules.each_ref(), &work.drawn);
        }
    }
}
