//! Which blocks of an engine's cache hold what a sequence has computed. Sequences share them until one of them writes.

use zerosearch_kernels::host::KV_BLOCK;

use crate::engine::Engine;

/// Positions of one block.
pub(crate) const BLOCK: usize = KV_BLOCK;

/// Names a block in an engine's cache: the keys and values of [`BLOCK`] positions, in all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(pub(crate) u32);

impl BlockId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The blocks of one sequence, in the order of its positions.
#[derive(Debug, Default)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    length: usize,
}

impl BlockTable {
    /// Positions that are computed.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// All blocks, those that are [reserved](Blocks::reserve) and not yet written included.
    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Counts what was written as computed.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

/// Which blocks are in use, and by how many sequences each.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    readers: Vec<u32>,
    free: Vec<BlockId>,
    peak: usize,
}

impl Blocks {
    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.readers.len() - self.free.len()
    }

    /// The most that were in use at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Starts the peak anew at the bytes in use now.
    pub(crate) fn reset_peak(&mut self) {
        self.peak = self.used();
    }

    /// Blocks that [`reserve`](Self::reserve) would take: new ones, and shared ones that must be copied before they are
    /// written.
    pub(crate) fn missing(&self, table: &BlockTable, tokens: usize) -> usize {
        let new = (table.length + tokens).div_ceil(BLOCK).saturating_sub(table.blocks.len());
        let copied = table.blocks[table.length / BLOCK..].iter().filter(|block| self.readers[block.index()] > 1);
        new + copied.count()
    }

    /// Makes room for `tokens` more positions, in blocks that no other sequence reads.
    pub(crate) fn reserve(&mut self, table: &mut BlockTable, tokens: usize, engine: &mut dyn Engine) {
        for block in &mut table.blocks[table.length / BLOCK..] {
            if self.readers[block.index()] > 1 {
                let copy = self.take();
                engine.copy_block(*block, copy);
                self.readers[block.index()] -= 1;
                *block = copy;
            }
        }
        while table.blocks.len() * BLOCK < table.length + tokens {
            table.blocks.push(self.take());
        }
    }

    /// The first `length` positions of a sequence, in the same blocks.
    pub(crate) fn share(&mut self, table: &BlockTable, length: usize) -> BlockTable {
        let length = length.min(table.length);
        let blocks = table.blocks[..length.div_ceil(BLOCK)].to_vec();
        blocks.iter().for_each(|block| self.readers[block.index()] += 1);
        BlockTable { blocks, length }
    }

    /// Gives up what a sequence has computed.
    pub(crate) fn release(&mut self, table: &mut BlockTable, engine: &mut dyn Engine) {
        for block in std::mem::take(table).blocks {
            self.readers[block.index()] -= 1;
            if self.readers[block.index()] == 0 {
                engine.free_block(block);
                self.free.push(block);
            }
        }
    }

    fn take(&mut self) -> BlockId {
        let block = self.free.pop().unwrap_or_else(|| {
            self.readers.push(0);
            BlockId((self.readers.len() - 1) as u32)
        });
        self.readers[block.index()] = 1;
        self.peak = self.peak.max(self.used());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::Remembering;

    #[test]
    fn a_shared_block_is_copied_by_the_first_that_writes_and_freed_by_the_last_that_leaves() {
        let (mut blocks, mut engine) = (Blocks::default(), Remembering::new());
        let mut first = BlockTable::default();
        blocks.reserve(&mut first, BLOCK + 5, &mut engine);
        first.advance(BLOCK + 5);
        let mut second = blocks.share(&first, BLOCK + 4);
        assert_eq!((second.blocks(), second.len(), blocks.used()), (first.blocks(), BLOCK + 4, 2));

        // The whole block stays shared, the one that is written does not.
        assert_eq!(blocks.missing(&second, 1), 1);
        blocks.reserve(&mut second, 1, &mut engine);
        assert_eq!(engine.copied, [(1, 2)]);
        assert_eq!((second.blocks(), blocks.used()), (&[BlockId(0), BlockId(2)][..], 3));
        assert_eq!((blocks.missing(&first, 1), blocks.missing(&second, BLOCK)), (0, 1));

        blocks.release(&mut first, &mut engine);
        assert_eq!((&engine.freed[..], blocks.used(), blocks.peak()), (&[1][..], 2, 3));
        blocks.reserve(&mut first, 1, &mut engine);
        assert_eq!(first.blocks(), [BlockId(1)], "what is free is taken again");
        blocks.release(&mut first, &mut engine);
        blocks.release(&mut second, &mut engine);
        assert_eq!((&engine.freed[..], blocks.used()), (&[1, 1, 0, 2][..], 0));
        blocks.reset_peak();
        assert_eq!(blocks.peak(), 0);
    }
}
