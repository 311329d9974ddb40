//! The forward pass on a GPU, some tokens of many sequences at a time.

use zerosearch_kernels::cube::{
    Gpu, GpuBuffer, LinearOutput, PagedRows, attend, embed, rms_norm, rotate_and_append, select_rows,
};

use super::blocks::Store;
use super::weights::DeviceNetwork;
use crate::ModelConfig;
use crate::engine::Rows;

/// Cosines and sines of the first positions, `[positions, head_dim / 2]` each.
#[derive(Default)]
pub(super) struct RotaryTables {
    positions: usize,
    tables: Option<[GpuBuffer; 2]>,
}

impl RotaryTables {
    /// Makes them reach to a position, twice as far as they did where that is further.
    pub(super) fn reach(&mut self, gpu: &Gpu, config: &ModelConfig, end: usize) {
        if end > self.positions || self.tables.is_none() {
            let positions = end.next_power_of_two().max(256);
            let (cos, sin) = config.rotary_tables(0..positions);
            (self.positions, self.tables) = (positions, Some([gpu.upload(&cos), gpu.upload(&sin)]));
        }
    }
}

/// The sequences that a step computes and the blocks that it reads.
pub(super) struct Step<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) config: &'a ModelConfig,
    pub(super) store: &'a Store,
    pub(super) rotary: &'a RotaryTables,
    pub(super) rows: &'a [Rows<'a>],
}

impl Step<'_> {
    /// Takes every sequence's tokens through the network, keys and values into their blocks. The logits of the draws, in their
    /// order, `[draws, vocab]`.
    pub(super) fn run(&self, weights: &DeviceNetwork) -> GpuBuffer {
        let (gpu, c) = (self.gpu, self.config);
        let paged = self.paged();
        let rows = paged.rows;
        let tokens: Vec<u32> = self.rows.iter().flat_map(|rows| rows.tokens).copied().collect();
        let x = gpu.empty(rows * c.hidden_size);
        let normed = gpu.empty(rows * c.hidden_size);
        let qkv = gpu.empty(rows * (c.heads + 2 * c.kv_heads) * c.head_dim);
        let queries = gpu.empty(rows * c.heads * self.store.shape().padded());
        let attended = gpu.empty(rows * c.heads * c.head_dim);
        let gated = gpu.empty(rows * c.intermediate_size);
        embed(gpu, &weights.embedding, &gpu.upload_words(&tokens), rows, &x);
        let Some(tables) = &self.rotary.tables else { return gpu.empty(0) };
        for (index, layer) in weights.layers.iter().enumerate() {
            let cache = self.store.layer(index);
            rms_norm(gpu, &x, &layer.input_norm, c.rms_norm_eps as f32, rows, &normed);
            layer.qkv.forward(gpu, &normed, rows, LinearOutput::Store, &qkv);
            let (shape, norms) = (self.store.shape(), layer.head_norms.as_ref());
            rotate_and_append(gpu, shape, &paged, tables.each_ref(), norms, &qkv, &queries, cache);
            attend(gpu, shape, &paged, &queries, cache, &attended);
            layer.o.forward(gpu, &attended, rows, LinearOutput::Add, &x);
            rms_norm(gpu, &x, &layer.post_norm, c.rms_norm_eps as f32, rows, &normed);
            layer.gate_up.forward(gpu, &normed, rows, LinearOutput::Gated, &gated);
            layer.down.forward(gpu, &gated, rows, LinearOutput::Add, &x);
        }
        self.logits(weights, &x)
    }

    /// Every row's place in the caches.
    fn paged(&self) -> PagedRows {
        let (mut positions, mut sequences) = (Vec::new(), Vec::new());
        let width = self.rows.iter().map(|rows| rows.blocks.len()).max().unwrap_or(0);
        let mut tables = vec![0; width * self.rows.len()];
        for (sequence, rows) in self.rows.iter().enumerate() {
            positions.extend((rows.start..rows.start + rows.tokens.len()).map(|position| position as u32));
            sequences.resize(positions.len(), sequence as u32);
            let line = tables[sequence * width..].iter_mut();
            line.zip(rows.blocks).for_each(|(entry, block)| *entry = block.0);
        }
        PagedRows {
            rows: positions.len(),
            last: positions.iter().max().map_or(0, |last| *last as usize),
            positions: self.gpu.upload_words(&positions),
            sequences: self.gpu.upload_words(&sequences),
            tables: self.gpu.upload_words(&tables),
            width,
        }
    }

    fn logits(&self, weights: &DeviceNetwork, x: &GpuBuffer) -> GpuBuffer {
        let (gpu, c) = (self.gpu, self.config);
        let mut end = 0;
        let mut last = Vec::new();
        for rows in self.rows {
            end += rows.tokens.len();
            if rows.draw.is_some() {
                last.push(end as u32 - 1);
            }
        }
        let draws = last.len();
        let logits = gpu.empty(draws * c.vocab_size);
        if draws > 0 {
            let (chosen, normed) = (gpu.empty(draws * c.hidden_size), gpu.empty(draws * c.hidden_size));
            select_rows(gpu, x, c.hidden_size, &gpu.upload_words(&last), &chosen);
            rms_norm(gpu, &chosen, &weights.norm, c.rms_norm_eps as f32, draws, &normed);
            let head = weights.head.as_ref().unwrap_or(&weights.embedding);
            head.forward(gpu, &normed, draws, LinearOutput::Store, &logits);
        }
        logits
    }
}
