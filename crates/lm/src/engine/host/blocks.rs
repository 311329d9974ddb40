//! The host's cache: how a block is divided, and where its numbers are.

use std::ops::Range;

use zerosearch_kernels::host::{KvBlocks, write_key, write_value};

use crate::ModelConfig;
use crate::cache::{BLOCK, BlockId};
use crate::engine::Rows;

/// How a block is divided: every layer's keys `[kv_heads, head_dim, 16]`, then its values `[kv_heads, 16, stride]`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// `head_dim` rounded up, so that a value is whole registers.
    stride: usize,
}

impl Layout {
    fn of(config: &ModelConfig) -> Self {
        let stride = config.head_dim.next_multiple_of(BLOCK);
        Self { layers: config.layers, kv_heads: config.kv_heads, head_dim: config.head_dim, stride }
    }

    fn layer(&self) -> usize {
        self.kv_heads * BLOCK * (self.head_dim + self.stride)
    }

    fn floats(&self) -> usize {
        self.layers * self.layer()
    }

    fn keys(&self, layer: usize, head: usize) -> Range<usize> {
        let start = layer * self.layer() + head * BLOCK * self.head_dim;
        start..start + BLOCK * self.head_dim
    }

    fn values(&self, layer: usize, head: usize) -> Range<usize> {
        let start = layer * self.layer() + BLOCK * (self.kv_heads * self.head_dim + head * self.stride);
        start..start + BLOCK * self.stride
    }

    /// One layer and head of blocks.
    pub(super) fn view<'a>(&self, blocks: &'a [&'a [f32]], layer: usize, head: usize) -> KvBlocks<'a> {
        KvBlocks {
            blocks,
            keys: self.keys(layer, head).start,
            values: self.values(layer, head).start,
            value_stride: self.stride,
        }
    }
}

/// The numbers of all blocks. A block that no sequence reads has no memory.
pub(super) struct Store {
    layout: Layout,
    blocks: Vec<Vec<f32>>,
}

/// The blocks that a step writes for one sequence, out of the store so that sequences are written side by side.
pub(super) struct Written {
    /// How many blocks of the sequence are before them.
    before: usize,
    blocks: Vec<Vec<f32>>,
}

impl Store {
    pub(super) fn new(config: &ModelConfig) -> Self {
        Self { layout: Layout::of(config), blocks: Vec::new() }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of one block.
    pub(super) fn block_bytes(&self) -> usize {
        self.layout.floats() * size_of::<f32>()
    }

    pub(super) fn copy(&mut self, from: BlockId, to: BlockId) {
        let copy = self.slot(from).clone();
        *self.slot(to) = copy;
    }

    pub(super) fn free(&mut self, block: BlockId) {
        *self.slot(block) = Vec::new();
    }

    /// Takes out the blocks that these rows write.
    pub(super) fn open(&mut self, rows: &Rows<'_>) -> Written {
        let before = rows.start / BLOCK;
        let floats = self.layout.floats();
        let take = |block: &BlockId| match std::mem::take(self.slot(*block)) {
            new if new.is_empty() => vec![0.0; floats],
            block => block,
        };
        let end = (rows.start + rows.tokens.len()).div_ceil(BLOCK);
        Written { before, blocks: rows.blocks[before..end].iter().map(take).collect() }
    }

    /// Puts them back.
    pub(super) fn close(&mut self, rows: &Rows<'_>, written: Written) {
        for (block, data) in rows.blocks[written.before..].iter().zip(written.blocks) {
            *self.slot(*block) = data;
        }
    }

    /// Every block of a sequence, those that are being written included.
    pub(super) fn blocks<'a>(&'a self, rows: &Rows<'_>, written: &'a Written) -> Vec<&'a [f32]> {
        let whole = rows.blocks[..written.before].iter().map(|block| &self.blocks[block.index()][..]);
        whole.chain(written.blocks.iter().map(|block| &block[..])).collect()
    }

    fn slot(&mut self, block: BlockId) -> &mut Vec<f32> {
        if self.blocks.len() <= block.index() {
            self.blocks.resize(block.index() + 1, Vec::new());
        }
        &mut self.blocks[block.index()]
    }
}

impl Written {
    /// Writes keys and values of one layer and position (`[kv_heads · head_dim]` each).
    pub(super) fn write(&mut self, layout: &Layout, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let block = &mut self.blocks[position / BLOCK - self.before];
        let heads = keys.chunks_exact(layout.head_dim).zip(values.chunks_exact(layout.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            write_key(&mut block[layout.keys(layer, head)], position % BLOCK, key);
            write_value(&mut block[layout.values(layer, head)], layout.stride, position % BLOCK, value);
        }
    }
}
