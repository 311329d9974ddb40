//! Which sequences the local generator computes next, which wait for another's prefix, and whose cache makes room for theirs.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use zerosearch_generate::{Finish, Finished, SequenceId};

use crate::LocalGenerator;
use crate::cache::{BLOCK, BlockTable};
use crate::prefix::in_common;
use crate::sequence::Sequence;

/// Tokens that one step computes at most beside those of sequences that decode: a long prompt does not keep the others
/// waiting, and activations stay small.
const PREFILL_TOKENS: usize = 512;

/// The most bytes that are kept of released sequences where the caches have no bound.
const RECENT_BYTES: usize = 256 << 20;

impl LocalGenerator {
    /// The sequences of the next step with how many of their tokens it computes, the oldest first; their caches have
    /// room for them. And the turns that ended because the memory cannot hold them even alone.
    pub(crate) fn choose(&mut self) -> (BTreeMap<SequenceId, usize>, Vec<Finished>) {
        let ready = self.sequences.iter().filter(|(_, sequence)| sequence.turn.is_some());
        let ready: Vec<SequenceId> = ready.map(|(id, _)| *id).collect();
        let (mut chosen, mut finished) = (BTreeMap::new(), Vec::new());
        let mut prefill = PREFILL_TOKENS;
        for id in ready {
            if chosen.len() == self.max_batch {
                break;
            }
            let Some(found) = self.prefix_for(id, &chosen, prefill) else { continue };
            let shared = found.len();
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            if shared > 0 {
                sequence.cache = found;
            }
            let pending = sequence.pending();
            let count = if pending == 1 { 1 } else { pending.min(prefill) };
            if count > 0 && self.make_room(id, count) {
                // The drawn token has a place as well, where the engine looks ahead and nobody must give it up.
                let ahead = pending == 1 && self.engine.looks_ahead() && self.has_room(id, count + 1);
                let Some(sequence) = self.sequences.get_mut(&id) else { continue };
                self.blocks.reserve(&mut sequence.cache, count + usize::from(ahead), &mut *self.engine);
                sequence.leader = None;
                self.statistics.shared += shared as u64;
                prefill -= if pending == 1 { 0 } else { count };
                chosen.insert(id, count);
                continue;
            }
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            if shared > 0 {
                // Whoever waits holds nothing that it has not used yet.
                self.blocks.release(&mut sequence.cache, &mut *self.engine);
            }
            if count > 0 && chosen.is_empty() {
                // Nobody before it uses memory, and those behind it have given theirs up.
                finished.extend(sequence.finish(id, Finish::Context));
                self.blocks.release(&mut sequence.cache, &mut *self.engine);
            } else if count > 0 {
                break;
            }
        }
        (chosen, finished)
    }

    /// The longest prefix that the cache holds of a sequence that has computed nothing; an empty one of another. None if it
    /// waits: for a sequence of this step that computes a longer one, by a block at least or by all that is left, or for a
    /// later step because this one computes enough.
    ///
    /// A sequence waits only for an older one that this step computes, and holds no memory meanwhile. So the oldest never waits,
    /// and there is no deadlock.
    fn prefix_for(
        &mut self,
        id: SequenceId,
        chosen: &BTreeMap<SequenceId, usize>,
        prefill: usize,
    ) -> Option<BlockTable> {
        let sequence = self.sequences.get(&id)?;
        if !sequence.cache.blocks().is_empty() || sequence.pending() == 1 {
            return Some(BlockTable::default());
        }
        let held = |(id, common): (SequenceId, usize)| {
            let leader = self.sequences.get(&id)?;
            (leader.cache.len() >= common && !leader.cache.is_stale()).then_some((&leader.cache, common))
        };
        let led = sequence.leader.and_then(held);
        let still_led = led.is_none() && sequence.leader.is_some_and(|(leader, _)| chosen.contains_key(&leader));
        let wanted = sequence.sharable();
        let decodes = led.is_some_and(|(_, common)| common == wanted.len());
        if still_led || (prefill == 0 && !decodes) {
            return None;
        }
        let (blocks, length) = self.prefixes.find(wanted);
        let longest = led.map_or(0, |(_, common)| common).max(length);
        // The whole blocks of sequences that decode are in the tree.
        let computing = |leader: &Sequence| leader.pending() > 1 && !leader.cache.is_stale();
        let ahead = chosen.keys().filter_map(|id| Some((*id, self.sequences.get(id).filter(|s| computing(s))?)));
        let ahead = ahead.map(|(id, leader)| (in_common(&leader.tokens, wanted), Reverse(id))).max();
        let is_worth_it = |common: usize| common >= longest + BLOCK || (common == wanted.len() && common > longest);
        if let Some((common, Reverse(leader))) = ahead.filter(|(common, _)| is_worth_it(*common)) {
            self.sequences.get_mut(&id)?.leader = Some((leader, common));
            return None;
        }
        Some(match led {
            // Also what is not a whole block yet.
            Some((cache, common)) if common > length => self.blocks.share(cache, common),
            _ => self.blocks.read(&blocks, length),
        })
    }

    /// Whether `count` more tokens of this sequence fit beside all that is held.
    fn has_room(&self, id: SequenceId, count: usize) -> bool {
        self.sequences.get(&id).is_some_and(|sequence| {
            let blocks = self.blocks.used() + self.blocks.missing(&sequence.cache, count);
            blocks.saturating_mul(self.engine.block_bytes()) <= self.cache_bytes
        })
    }

    /// Makes room until `count` more tokens of this sequence fit. Prefixes that no sequence reads are dropped first, then
    /// caches evicted: of sequences that wait for their next turn, then of those that came later, the youngest first.
    /// Whether they fit.
    fn make_room(&mut self, id: SequenceId, count: usize) -> bool {
        loop {
            if self.has_room(id, count) {
                return true;
            }
            let Some(sequence) = self.sequences.get(&id) else { return false };
            let (prefixes, blocks) = (&mut self.prefixes, &mut self.blocks);
            if prefixes.drop_oldest(blocks, &mut *self.engine)
                || prefixes.leave_to(&sequence.cache, blocks, &mut *self.engine)
            {
                continue;
            }
            let held = || self.sequences.iter().rev().filter(|(_, sequence)| sequence.cache.len() > 0);
            let idle = held().find(|(_, sequence)| sequence.turn.is_none());
            let Some((victim, _)) = idle.or_else(|| held().next().filter(|(other, _)| **other > id)) else {
                return false;
            };
            let victim = *victim;
            if let Some(sequence) = self.sequences.get_mut(&victim) {
                self.statistics.evicted += sequence.cache.len() as u64;
                self.blocks.release(&mut sequence.cache, &mut *self.engine);
            }
        }
    }

    /// Drops prefixes that no sequence reads until the others are within the bound.
    pub(crate) fn bound_recent(&mut self) {
        loop {
            let (held, bound) = match self.cache_bytes {
                usize::MAX => (self.blocks.recent(), RECENT_BYTES),
                bytes => (self.blocks.used(), bytes),
            };
            if held.saturating_mul(self.engine.block_bytes()) <= bound
                || !self.prefixes.drop_oldest(&mut self.blocks, &mut *self.engine)
            {
                return;
            }
        }
    }

    /// Drops the prefixes that no sequence reads.
    pub(crate) fn drop_recent(&mut self) {
        while self.prefixes.drop_oldest(&mut self.blocks, &mut *self.engine) {}
    }

    /// Has the weights' successors compute every prefix anew. What live sequences have computed stays their own.
    pub(crate) fn forget_prefixes(&mut self) {
        self.prefixes.clear(&mut self.blocks, &mut *self.engine);
        for sequence in self.sequences.values_mut() {
            sequence.leader = None;
            sequence.cache.outlive_weights();
        }
    }
}
