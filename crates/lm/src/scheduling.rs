//! Which sequences the local generator computes next, and whose cache makes room for theirs.

use std::collections::BTreeMap;

use zerosearch_generate::{Finish, Finished, SequenceId, TokenId};

use crate::LocalGenerator;
use crate::cache::BlockTable;
use crate::sequence::Sequence;

/// Tokens that one step computes at most beside those of sequences that decode: a long prompt does not keep the others
/// waiting, and activations stay small.
const PREFILL_TOKENS: usize = 512;

impl LocalGenerator {
    /// A sequence with this prompt whose cache a new one may share. The samples of a group arrive one after the
    /// other: looking at the newest sequence finds it.
    pub(crate) fn leader_for(&self, prompt: &[TokenId]) -> Option<SequenceId> {
        let (newest, sequence) = self.sequences.last_key_value()?;
        let id = sequence.leader.unwrap_or(*newest);
        let leader = self.sequences.get(&id)?;
        let computes = leader.turn.is_some() || leader.cache.len() >= leader.sharable();
        (leader.prompt() == prompt && prompt.len() > 1 && computes).then_some(id)
    }

    /// Gives followers their leader's cache of the prompt. A leader that went, or ended before it had computed its
    /// prompt, leaves its followers to themselves.
    pub(crate) fn share_prompts(&mut self) {
        let followers: Vec<(SequenceId, SequenceId)> =
            self.sequences.iter().filter_map(|(id, sequence)| Some((*id, sequence.leader?))).collect();
        for (id, leader) in followers {
            let found = match self.sequences.get(&leader) {
                Some(leader) if leader.cache.len() >= leader.sharable() => {
                    self.blocks.share(&leader.cache, leader.sharable())
                }
                Some(leader) if leader.turn.is_some() => continue,
                _ => BlockTable::default(),
            };
            if let Some(sequence) = self.sequences.get_mut(&id) {
                self.statistics.shared += found.len() as u64;
                sequence.leader = None;
                sequence.cache = found;
            }
        }
    }

    /// The sequences of the next step with how many of their tokens it computes, the oldest first; their caches have
    /// room for them. And the turns that ended because the memory cannot hold them even alone.
    pub(crate) fn choose(&mut self) -> (BTreeMap<SequenceId, usize>, Vec<Finished>) {
        let ready = self.sequences.iter().filter(|(_, s)| s.turn.is_some() && s.leader.is_none());
        let ready: Vec<SequenceId> = ready.map(|(id, _)| *id).collect();
        let (mut chosen, mut finished) = (BTreeMap::new(), Vec::new());
        let mut prefill = PREFILL_TOKENS;
        for id in ready {
            if chosen.len() == self.max_batch {
                break;
            }
            let pending = self.sequences.get(&id).map_or(0, Sequence::pending);
            let count = if pending == 1 { 1 } else { pending.min(prefill) };
            if count == 0 {
                continue;
            }
            let fits = self.make_room(id, count);
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            if fits {
                self.blocks.reserve(&mut sequence.cache, count, &mut *self.engine);
                prefill -= if pending == 1 { 0 } else { count };
                chosen.insert(id, count);
            } else if chosen.is_empty() {
                // Nobody before it uses memory, and those behind it have given theirs up.
                finished.extend(sequence.finish(id, Finish::Context));
                self.blocks.release(&mut sequence.cache, &mut *self.engine);
            } else {
                break;
            }
        }
        (chosen, finished)
    }

    /// Evicts caches until `count` more tokens of this sequence fit: first of sequences that wait for their next turn,
    /// then of those that came later, the youngest first. Whether they fit.
    fn make_room(&mut self, id: SequenceId, count: usize) -> bool {
        loop {
            let missing = self.sequences.get(&id).map_or(0, |sequence| self.blocks.missing(&sequence.cache, count));
            if (self.blocks.used() + missing).saturating_mul(self.engine.block_bytes()) <= self.cache_bytes {
                return true;
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
}
