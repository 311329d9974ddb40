//! Block tables: which blocks of an engine's cache hold a sequence's keys and values. Sequences share them until one of them writes, and
//! the [tree of prefixes](crate::prefix) keeps some that no sequence reads any more.

use std::collections::BTreeMap;

use zerosearch_kernels::host::KV_BLOCK;

use crate::engine::Engine;

/// Positions of one block.
pub(crate) const BLOCK: usize = KV_BLOCK;

/// Names a block in an engine's cache: the keys and values of [`BLOCK`] positions, in all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// How many of the blocks are the tree's, from the first on.
    in_tree: usize,
    /// Whether some of it was computed with weights that are no longer the engine's.
    is_stale: bool,
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

    /// The block that the next position is written to, where it exists.
    pub(crate) fn next(&self) -> Option<BlockId> {
        self.blocks.get(self.length / BLOCK).copied()
    }

    /// The whole blocks that are not in the tree yet.
    pub(crate) fn unknown(&self) -> std::ops::Range<usize> {
        self.in_tree..self.length / BLOCK
    }

    /// Notes that the tree holds every whole block.
    pub(crate) fn entered(&mut self) {
        self.in_tree = self.length / BLOCK;
    }

    /// Whether some of it was computed with weights that are no longer the engine's.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Notes that the engine's weights are others from now on.
    pub(crate) fn outlive_weights(&mut self) {
        self.is_stale = self.length > 0;
    }
}

/// A block's readers.
#[derive(Debug, Default)]
struct Block {
    /// How many sequences read it.
    readers: u32,
    /// Whether the tree holds it as well.
    is_kept: bool,
    /// When the last reader left, by the clock of [`Blocks`].
    left: u64,
}

/// Which blocks are in use, by how many sequences each, and which are held for sequences to come.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    /// The kept blocks without readers, by when the last of them left.
    recent: BTreeMap<u64, BlockId>,
    /// Counts readers that left.
    clock: u64,
    peak: usize,
}

impl Blocks {
    /// How many have memory.
    pub(crate) fn used(&self) -> usize {
        self.blocks.len() - self.free.len()
    }

    /// How many of them no sequence reads.
    pub(crate) fn recent(&self) -> usize {
        self.recent.len()
    }

    /// The most that sequences read at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Starts the peak anew at the blocks that sequences read now.
    pub(crate) fn reset_peak(&mut self) {
        self.peak = self.used() - self.recent();
    }

    /// Blocks that [`reserve`](Self::reserve) would take: new ones, and shared ones that must be copied before they are
    /// written.
    pub(crate) fn missing(&self, table: &BlockTable, tokens: usize) -> usize {
        let new = (table.length + tokens).div_ceil(BLOCK).saturating_sub(table.blocks.len());
        let copied = table.blocks[table.length / BLOCK..].iter().filter(|block| self.is_shared(**block));
        new + copied.count()
    }

    /// Makes room for `tokens` more positions, in blocks that no other sequence reads.
    pub(crate) fn reserve(&mut self, table: &mut BlockTable, tokens: usize, engine: &mut dyn Engine) {
        for block in &mut table.blocks[table.length / BLOCK..] {
            if self.is_shared(*block) {
                let copy = self.take();
                engine.copy_block(*block, copy);
                self.leave(std::mem::replace(block, copy), engine);
            }
        }
        while table.blocks.len() * BLOCK < table.length + tokens {
            table.blocks.push(self.take());
        }
    }

    /// The first `length` positions of a sequence, in the same blocks.
    pub(crate) fn share(&mut self, table: &BlockTable, length: usize) -> BlockTable {
        let length = length.min(table.length);
        let in_tree = table.in_tree.min(length / BLOCK);
        BlockTable { in_tree, ..self.read(&table.blocks[..length.div_ceil(BLOCK)], length) }
    }

    /// The first `length` positions of blocks that are all the tree's.
    pub(crate) fn read(&mut self, blocks: &[BlockId], length: usize) -> BlockTable {
        blocks.iter().for_each(|block| self.join(*block));
        BlockTable { blocks: blocks.to_vec(), length, in_tree: length / BLOCK, is_stale: false }
    }

    /// Has a sequence read another block with the same content in the place of its own.
    pub(crate) fn replace(&mut self, table: &mut BlockTable, index: usize, by: BlockId, engine: &mut dyn Engine) {
        if let Some(block) = table.blocks.get_mut(index).filter(|block| **block != by) {
            self.join(by);
            self.leave(std::mem::replace(block, by), engine);
        }
    }

    /// Gives up what a sequence has computed.
    pub(crate) fn release(&mut self, table: &mut BlockTable, engine: &mut dyn Engine) {
        // The last one first: of kept blocks each then leaves before the one that it continues.
        for block in std::mem::take(table).blocks.into_iter().rev() {
            self.leave(block, engine);
        }
    }

    /// Holds a block when its last reader leaves, until it is [dropped](Self::drop_kept).
    pub(crate) fn keep(&mut self, block: BlockId) {
        self.blocks[block.index()].is_kept = true;
    }

    /// Holds a block no longer than it has readers.
    pub(crate) fn drop_kept(&mut self, block: BlockId, engine: &mut dyn Engine) {
        let state = &mut self.blocks[block.index()];
        state.is_kept = false;
        if state.readers == 0 {
            self.recent.remove(&state.left);
            self.free(block, engine);
        }
    }

    /// The kept block whose last reader left before those of all others.
    pub(crate) fn oldest(&self) -> Option<BlockId> {
        self.recent.first_key_value().map(|(_, block)| *block)
    }

    /// Whether a sequence and the tree read it, and no other sequence.
    pub(crate) fn is_kept_for_one(&self, block: BlockId) -> bool {
        let state = &self.blocks[block.index()];
        state.is_kept && state.readers == 1
    }

    /// Whether it would be another's loss if one reader wrote to it.
    fn is_shared(&self, block: BlockId) -> bool {
        let state = &self.blocks[block.index()];
        state.is_kept || state.readers > 1
    }

    fn join(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.index()];
        if state.readers == 0 {
            self.recent.remove(&state.left);
        }
        state.readers += 1;
        self.count();
    }

    fn leave(&mut self, block: BlockId, engine: &mut dyn Engine) {
        let state = &mut self.blocks[block.index()];
        state.readers -= 1;
        if state.readers == 0 && state.is_kept {
            self.clock += 1;
            state.left = self.clock;
            self.recent.insert(self.clock, block);
        } else if state.readers == 0 {
            self.free(block, engine);
        }
    }

    fn free(&mut self, block: BlockId, engine: &mut dyn Engine) {
        engine.free_block(block);
        self.free.push(block);
    }

    fn take(&mut self) -> BlockId {
        let block = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            BlockId((self.blocks.len() - 1) as u32)
        });
        self.blocks[block.index()].readers = 1;
        self.count();
        block
    }

    fn count(&mut self) {
        self.peak = self.peak.max(self.used() - self.recent());
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
        assert_eq!((&engine.freed[..], blocks.used()), (&[1, 1, 2, 0][..], 0));
        blocks.reset_peak();
        assert_eq!(blocks.peak(), 0);
    }

    #[test]
    fn a_kept_block_outlives_its_readers_and_the_ends_of_sequences_are_the_oldest() {
        let (mut blocks, mut engine) = (Blocks::default(), Remembering::new());
        let mut table = BlockTable::default();
        blocks.reserve(&mut table, 2 * BLOCK, &mut engine);
        table.advance(2 * BLOCK);
        let ids = table.blocks().to_vec();
        ids.iter().for_each(|block| blocks.keep(*block));
        assert!(blocks.is_kept_for_one(ids[0]) && blocks.oldest().is_none());
        blocks.release(&mut table, &mut engine);
        assert_eq!((blocks.used(), blocks.recent(), blocks.oldest()), (2, 2, Some(ids[1])));
        blocks.reset_peak();

        // Whoever reads the second one's beginning copies it before it writes, and leaves it as it was.
        let mut reader = blocks.read(&ids, BLOCK + 3);
        assert_eq!((blocks.recent(), blocks.missing(&reader, 1)), (0, 1));
        blocks.reserve(&mut reader, 1, &mut engine);
        assert_eq!((&engine.copied[..], blocks.recent(), blocks.peak()), (&[(1, 2)][..], 1, 3));
        blocks.drop_kept(ids[1], &mut engine);
        blocks.drop_kept(ids[0], &mut engine);
        assert_eq!((&engine.freed[..], blocks.used(), blocks.recent()), (&[1][..], 2, 0));
        blocks.release(&mut reader, &mut engine);
        assert_eq!((&engine.freed[..], blocks.used()), (&[1, 2, 0][..], 0));
    }
}
