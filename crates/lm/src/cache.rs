//! Keys and values of sequences, in blocks of sixteen positions that sequences share until one of them writes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zerosearch_kernels::host::{KV_BLOCK, KvBlocks, write_key, write_value};

use crate::ModelConfig;

/// How a block is divided: every layer's keys `[kv_heads, head_dim, 16]`, then its values `[kv_heads, 16, stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// `head_dim` rounded up, so that a value is whole registers.
    stride: usize,
}

impl Layout {
    pub(crate) fn of(config: &ModelConfig) -> Self {
        let stride = config.head_dim.next_multiple_of(KV_BLOCK);
        Self { layers: config.layers, kv_heads: config.kv_heads, head_dim: config.head_dim, stride }
    }

    fn layer(&self) -> usize {
        self.kv_heads * KV_BLOCK * (self.head_dim + self.stride)
    }

    fn floats(&self) -> usize {
        self.layers * self.layer()
    }

    /// Bytes of one block.
    pub(crate) fn bytes(&self) -> usize {
        self.floats() * size_of::<f32>()
    }

    fn keys(&self, layer: usize, head: usize) -> Range<usize> {
        let start = layer * self.layer() + head * KV_BLOCK * self.head_dim;
        start..start + KV_BLOCK * self.head_dim
    }

    fn values(&self, layer: usize, head: usize) -> Range<usize> {
        let start = layer * self.layer() + KV_BLOCK * (self.kv_heads * self.head_dim + head * self.stride);
        start..start + KV_BLOCK * self.stride
    }
}

/// Counts the bytes of all blocks that are alive.
#[derive(Default)]
pub(crate) struct Pool {
    bytes: AtomicUsize,
    peak: AtomicUsize,
}

impl Pool {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// What is alive now is the peak so far.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.bytes(), Ordering::Relaxed);
    }
}

struct Block {
    data: Vec<f32>,
    pool: Arc<Pool>,
}

impl Block {
    fn new(data: Vec<f32>, pool: &Arc<Pool>) -> Self {
        let bytes = data.len() * size_of::<f32>();
        let now = pool.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        pool.peak.fetch_max(now, Ordering::Relaxed);
        Self { data, pool: Arc::clone(pool) }
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        Self::new(self.data.clone(), &self.pool)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.bytes.fetch_sub(self.data.len() * size_of::<f32>(), Ordering::Relaxed);
    }
}

/// What one sequence has computed.
#[derive(Default)]
pub(crate) struct Cache {
    blocks: Vec<Arc<Block>>,
    length: usize,
}

impl Cache {
    /// Positions.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The first `length` positions, sharing their blocks.
    pub(crate) fn prefix(&self, length: usize) -> Self {
        let length = length.min(self.length);
        Self { blocks: self.blocks[..length.div_ceil(KV_BLOCK)].to_vec(), length }
    }

    /// Blocks that [`reserve`](Self::reserve) would allocate: new ones, and a shared one that must be copied before it is written.
    pub(crate) fn blocks_missing(&self, tokens: usize) -> usize {
        let new = (self.length + tokens).div_ceil(KV_BLOCK).saturating_sub(self.blocks.len());
        let copied = self.blocks[self.length / KV_BLOCK..].iter().filter(|block| Arc::strong_count(block) > 1).count();
        new + copied
    }

    /// Makes room for `tokens` more positions, in blocks that no other sequence reads.
    pub(crate) fn reserve(&mut self, layout: &Layout, pool: &Arc<Pool>, tokens: usize) {
        for block in &mut self.blocks[self.length / KV_BLOCK..] {
            Arc::make_mut(block);
        }
        while self.blocks.len() * KV_BLOCK < self.length + tokens {
            self.blocks.push(Arc::new(Block::new(vec![0.0; layout.floats()], pool)));
        }
    }

    /// Writes keys and values of one layer (`[kv_heads · head_dim]` each) behind the last position: the first row
    /// `ahead` = 0 positions behind it, and so on. The room must have been reserved.
    pub(crate) fn write(&mut self, layout: &Layout, layer: usize, ahead: usize, keys: &[f32], values: &[f32]) {
        let position = self.length + ahead;
        let block = self.blocks.get_mut(position / KV_BLOCK).and_then(Arc::get_mut);
        let Some(block) = block else { return };
        let heads = keys.chunks_exact(layout.head_dim).zip(values.chunks_exact(layout.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            write_key(&mut block.data[layout.keys(layer, head)], position % KV_BLOCK, key);
            write_value(&mut block.data[layout.values(layer, head)], layout.stride, position % KV_BLOCK, value);
        }
    }

    /// Counts what was written as computed.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }

    /// Every block's data, for [`view`].
    pub(crate) fn blocks(&self) -> Vec<&[f32]> {
        self.blocks.iter().map(|block| &block.data[..]).collect()
    }
}

/// One layer and head of blocks.
pub(crate) fn view<'a>(blocks: &'a [&'a [f32]], layout: &Layout, layer: usize, head: usize) -> KvBlocks<'a> {
    KvBlocks {
        blocks,
        keys: layout.keys(layer, head).start,
        values: layout.values(layer, head).start,
        value_stride: layout.stride,
    }
}
