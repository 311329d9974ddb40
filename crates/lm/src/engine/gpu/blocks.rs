//! The cache in a GPU's memory.

use zerosearch_kernels::cube::{CacheShape, Gpu, GpuBuffer, copy_block};

use crate::ModelConfig;
use crate::cache::BlockId;
use crate::engine::Rows;

/// Blocks that the first growth makes room for.
const FIRST: usize = 64;

/// Keys and values of all blocks: one buffer of each for every layer, larger when a block beyond them is written.
pub(super) struct Store {
    shape: CacheShape,
    layers: Vec<[GpuBuffer; 2]>,
    layer_count: usize,
    /// Blocks that there is room for, beside a spare one.
    capacity: usize,
    /// Whether a sequence or the tree of prefixes holds a block.
    used: Vec<bool>,
}

impl Store {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let shape = CacheShape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim };
        Self { shape, layers: Vec::new(), layer_count: config.layers, capacity: 0, used: Vec::new() }
    }

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Keys and values of one layer.
    pub(super) fn layer(&self, layer: usize) -> [&GpuBuffer; 2] {
        self.layers[layer].each_ref()
    }

    /// Bytes of one block.
    pub(super) fn block_bytes(&self) -> usize {
        2 * self.layer_count * self.shape.block() * size_of::<f32>()
    }

    /// A block that no sequence has.
    pub(super) fn spare(&self) -> u32 {
        self.capacity as u32
    }

    /// Makes room for the blocks of these rows. Whether all of them moved.
    pub(super) fn hold(&mut self, gpu: &Gpu, rows: &[Rows<'_>]) -> bool {
        let blocks = rows.iter().flat_map(|rows| rows.blocks).map(|block| block.index());
        let Some(last) = blocks.clone().max() else { return false };
        if self.used.len() <= last {
            self.used.resize(last + 1, false);
        }
        blocks.for_each(|block| self.used[block] = true);
        self.reach(gpu, last + 1)
    }

    /// Copies a block. Whether all of them moved.
    pub(super) fn copy(&mut self, gpu: &Gpu, from: BlockId, to: BlockId) -> bool {
        let moved = self.reach(gpu, from.index().max(to.index()) + 1);
        for buffer in self.layers.iter().flatten() {
            copy_block(gpu, self.shape, buffer, from.index(), to.index());
        }
        moved
    }

    pub(super) fn free(&mut self, block: BlockId) {
        if let Some(used) = self.used.get_mut(block.index()) {
            *used = false;
        }
    }

    /// Frees the memory if no sequence's keys and values are in it.
    pub(super) fn clear_if_unused(&mut self) {
        if !self.used.contains(&true) {
            (self.layers, self.capacity) = (Vec::new(), 0);
        }
    }

    /// Makes room for this many blocks, half as many again as there were where that is more. Whether all of them moved.
    fn reach(&mut self, gpu: &Gpu, blocks: usize) -> bool {
        if blocks <= self.capacity {
            return false;
        }
        let capacity = blocks.max(self.capacity * 3 / 2).max(FIRST);
        let words = (capacity + 1) * self.shape.block();
        // One layer after another, so that only one has its memory twice.
        self.layers.resize_with(self.layer_count, || [gpu.empty(0), gpu.empty(0)]);
        for buffer in self.layers.iter_mut().flatten() {
            let larger = gpu.zeros(words);
            gpu.copy(buffer, &larger);
            *buffer = larger;
        }
        self.capacity = capacity;
        true
    }
}
