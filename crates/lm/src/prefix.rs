//! The tree of prefixes that the cache holds, of live and of released sequences.
//!
//! Its nodes are whole blocks, each below the block that it continues, by the tokens in it. A sequence enters its blocks as it
//! fills them, and a new one finds the longest prefix that it has in common with any of them: the instructions of
//! all prompts, the prompt of its group, its own past if it is started anew. This is RadixAttention (Zheng et al. 2024,
//! arXiv:2312.07104) over the blocks of a cache.
//!
//! A sequence that reads a node reads all nodes above it. The last reader of a node therefore leaves it after those below
//! it, and dropping the node that was left first never takes away what another continues.

use std::collections::BTreeMap;

use zerosearch_generate::TokenId;

use crate::cache::{BLOCK, BlockId, BlockTable, Blocks};
use crate::engine::Engine;

/// A node's place: the block that it continues, if any, and its tokens.
type Place = (Option<BlockId>, [TokenId; BLOCK]);

/// Prefixes by their tokens. All of them were computed with the engine's present weights.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    nodes: BTreeMap<Place, BlockId>,
    places: BTreeMap<BlockId, Place>,
}

impl Prefixes {
    /// How many of these tokens the cache holds, from the first on, and the blocks that they are in. The last block may
    /// go on with other tokens.
    pub(crate) fn find(&self, tokens: &[TokenId]) -> (Vec<BlockId>, usize) {
        let (whole, _) = tokens.as_chunks::<BLOCK>();
        let mut blocks: Vec<BlockId> = Vec::new();
        for chunk in whole {
            match self.nodes.get(&(blocks.last().copied(), *chunk)) {
                Some(block) => blocks.push(*block),
                None => break,
            }
        }
        let length = blocks.len() * BLOCK;
        let partly = self.nearest(blocks.last().copied(), &tokens[length..]);
        blocks.extend(partly.map(|(block, _)| block));
        (blocks, length + partly.map_or(0, |(_, common)| common))
    }

    /// The node below `above` that begins with most of these tokens, and with how many. It lies next to their place.
    fn nearest(&self, above: Option<BlockId>, tokens: &[TokenId]) -> Option<(BlockId, usize)> {
        let mut padded = [0; BLOCK];
        padded.iter_mut().zip(tokens).for_each(|(place, token)| *place = *token);
        let place = (above, padded);
        let neighbours = [self.nodes.range(..place).next_back(), self.nodes.range(place..).next()];
        let below = neighbours.into_iter().flatten().filter(|((parent, _), _)| *parent == above);
        let common = below.map(|((_, node), block)| (*block, in_common(node, tokens)));
        common.filter(|(_, common)| *common > 0).max_by_key(|(_, common)| *common)
    }

    /// Enters the blocks that a sequence with these tokens has filled since the last time. Where another sequence has computed
    /// the same, it reads that one's block from now on.
    pub(crate) fn enter(
        &mut self,
        tokens: &[TokenId],
        table: &mut BlockTable,
        blocks: &mut Blocks,
        engine: &mut dyn Engine,
    ) {
        if table.is_stale() {
            return;
        }
        let (whole, _) = tokens.as_chunks::<BLOCK>();
        for index in table.unknown() {
            let above = index.checked_sub(1).map(|above| table.blocks()[above]);
            let place = (above, whole[index]);
            match self.nodes.get(&place) {
                Some(known) => blocks.replace(table, index, *known, engine),
                None => {
                    let block = table.blocks()[index];
                    self.nodes.insert(place, block);
                    self.places.insert(block, place);
                    blocks.keep(block);
                }
            }
        }
        table.entered();
    }

    /// Gives the memory of the node back that was left first. Whether there was one without readers.
    pub(crate) fn drop_oldest(&mut self, blocks: &mut Blocks, engine: &mut dyn Engine) -> bool {
        let oldest = blocks.oldest();
        if let Some(block) = oldest {
            self.remove(block, blocks, engine);
        }
        oldest.is_some()
    }

    /// Hands the block that a sequence writes next over to it, so that it needs no copy. Whether only the tree held it besides.
    /// There must be no nodes without readers: one could lie below it.
    pub(crate) fn leave_to(&mut self, table: &BlockTable, blocks: &mut Blocks, engine: &mut dyn Engine) -> bool {
        let next = table.next().filter(|block| blocks.is_kept_for_one(*block));
        if let Some(block) = next {
            self.remove(block, blocks, engine);
        }
        next.is_some()
    }

    /// Forgets everything. Blocks with readers are theirs alone.
    pub(crate) fn clear(&mut self, blocks: &mut Blocks, engine: &mut dyn Engine) {
        self.nodes.clear();
        for block in std::mem::take(&mut self.places).into_keys() {
            blocks.drop_kept(block, engine);
        }
    }

    fn remove(&mut self, block: BlockId, blocks: &mut Blocks, engine: &mut dyn Engine) {
        if let Some(place) = self.places.remove(&block) {
            self.nodes.remove(&place);
        }
        blocks.drop_kept(block, engine);
    }
}

/// The length of the longest common prefix.
pub(crate) fn in_common(one: &[TokenId], other: &[TokenId]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerosearch_generate::{
        Finish, Generator, Request, RolloutGenerator, Sampling, SequenceId, Turn, WeightVersion, never,
    };

    use super::*;
    use crate::engine::tests::Remembering;
    use crate::{HostWeights, LocalGenerator};

    /// A sequence with these tokens, computed and entered.
    fn computed(tree: &mut Prefixes, blocks: &mut Blocks, tokens: &[TokenId]) -> BlockTable {
        let mut engine = Remembering::new();
        let mut table = BlockTable::default();
        blocks.reserve(&mut table, tokens.len(), &mut engine);
        table.advance(tokens.len());
        tree.enter(tokens, &mut table, blocks, &mut engine);
        table
    }

    #[test]
    fn the_longest_common_prefix_is_found_also_within_a_block() {
        let (mut tree, mut blocks, mut engine) = (Prefixes::default(), Blocks::default(), Remembering::new());
        let with = |length: u32, end: &[TokenId]| (0..length).chain(end.iter().copied()).collect::<Vec<_>>();
        let first = computed(&mut tree, &mut blocks, &with(40, &[]));
        let second = computed(&mut tree, &mut blocks, &with(20, &[9; 20]));
        // The second one's first block is the first one's, and its own is free again.
        assert_eq!((second.blocks()[0], blocks.used()), (first.blocks()[0], 5));

        let found = |tree: &Prefixes, tokens: &[TokenId]| {
            let (blocks, length) = tree.find(tokens);
            assert_eq!(blocks.len(), length.div_ceil(BLOCK));
            (length, blocks.last().copied())
        };
        let [first, second] = [first, second].map(|table| table.blocks().to_vec());
        assert_eq!(found(&tree, &with(40, &[])), (32, Some(first[1])), "eight tokens are no whole block");
        assert_eq!(found(&tree, &with(25, &[7; 20])), (25, Some(first[1])));
        assert_eq!(found(&tree, &with(20, &[9; 3])), (23, Some(second[1])));
        assert_eq!(found(&tree, &with(18, &[])).0, 18);
        assert_eq!(found(&tree, &with(16, &[8; 30])), (16, Some(first[0])));
        assert_eq!(found(&tree, &[0; 30]), (1, Some(first[0])));
        assert_eq!((found(&tree, &[5; 30]), found(&tree, &[])), ((0, None), (0, None)));

        tree.clear(&mut blocks, &mut engine);
        assert_eq!(found(&tree, &with(40, &[])), (0, None));
    }

    #[test]
    fn without_a_bound_released_sequences_leave_little_behind_and_the_ends_go_first() {
        let mut engine = Remembering::new();
        engine.block_bytes = 100 << 20;
        let mut generator = LocalGenerator::with_engine(Box::new(engine), &[]);
        for end in 0..20 {
            let prompt: Vec<TokenId> = (0..32).chain([100 + end; 60]).collect();
            let request = Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(0, 1) };
            let id = generator.start(request).unwrap();
            while !generator.poll().unwrap().is_empty() {}
            assert_eq!(generator.statistics().shared, 32 * u64::from(end));
            generator.release(id);
            assert_eq!((generator.blocks.used(), generator.blocks.recent()), (2, 2));
        }
    }

    const TURNS: usize = 3;
    const NEW: usize = 12;

    fn turn(seed: u64, max_new_tokens: usize) -> Turn {
        Turn { max_new_tokens, seed, stop: never(), deadline: None }
    }

    /// One turn of a sequence: the tokens before it, how many were asked for, by which seed, how many times the weights had been
    /// replaced before, and how it ended with which tokens.
    struct Played {
        given: Vec<TokenId>,
        new: usize,
        seed: u64,
        weights: u64,
        end: Option<(Finish, Vec<TokenId>)>,
    }

    /// A generator in any state, with a record of everything that it sampled.
    struct Session {
        generator: LocalGenerator,
        weights: u64,
        active: Vec<SequenceId>,
        idle: Vec<SequenceId>,
        turns: BTreeMap<SequenceId, Vec<Played>>,
    }

    impl Session {
        fn new(cache_bytes: usize) -> Self {
            let generator =
                LocalGenerator::with_engine(Box::new(Remembering::new()), &[]).with_cache_bytes(cache_bytes);
            Self { generator, weights: 0, active: Vec::new(), idle: Vec::new(), turns: BTreeMap::new() }
        }

        fn start(&mut self, prompt: &[TokenId], seed: u64, new: usize) -> SequenceId {
            // Greedy ones with the same prompt go on alike.
            let sampling = if seed.is_multiple_of(2) { Sampling::greedy() } else { Sampling::default() };
            let id = self.generator.start(Request { prompt, sampling, turn: turn(seed, new) }).unwrap();
            self.active.push(id);
            self.note(id, prompt, seed, new);
            id
        }

        fn extend(&mut self, id: SequenceId, observation: &[TokenId], seed: u64, new: usize) {
            self.generator.extend(id, observation, turn(seed, new)).unwrap();
            self.idle.retain(|other| *other != id);
            self.active.push(id);
            self.note(id, observation, seed, new);
        }

        fn note(&mut self, id: SequenceId, given: &[TokenId], seed: u64, new: usize) {
            let played = Played { given: given.to_vec(), new, seed, weights: self.weights, end: None };
            self.turns.entry(id).or_default().push(played);
        }

        /// Until a turn ends. Whether one did.
        fn poll(&mut self) -> bool {
            let finished = self.generator.poll().unwrap();
            for done in &finished {
                self.active.retain(|other| *other != done.id);
                self.idle.push(done.id);
                let last = self.turns.get_mut(&done.id).unwrap().last_mut().unwrap();
                last.end = Some((done.finish, done.tokens.iter().map(|token| token.id).collect()));
            }
            let held = self.generator.blocks.used() * self.generator.engine.block_bytes();
            assert!(held <= self.generator.cache_bytes, "{held} bytes");
            !finished.is_empty()
        }

        fn release(&mut self, id: SequenceId) {
            self.generator.release(id);
            self.active.retain(|other| *other != id);
            self.idle.retain(|other| *other != id);
        }

        fn refit(&mut self, weights: &HostWeights) {
            while self.poll() {}
            if self.generator.cache_bytes < usize::MAX {
                // A sequence that was evicted is computed again by the new weights, which is another sequence then.
                self.idle.clone().into_iter().for_each(|id| self.release(id));
            }
            self.weights += 1;
            self.generator.refit(weights, WeightVersion(self.weights)).unwrap();
        }

        /// Everything that a sequence was given and sampled.
        fn tokens(&self, id: SequenceId) -> Vec<TokenId> {
            let sampled = |turn: &Played| turn.end.clone().map_or(Vec::new(), |(_, tokens)| tokens);
            self.turns[&id].iter().flat_map(|turn| [turn.given.clone(), sampled(turn)].concat()).collect()
        }
    }

    /// Whether these turns end as they do in a generator that knows no other sequence.
    fn assert_as_alone(turns: &[Played], weights: &HostWeights, cache_bytes: usize) {
        let mut session = Session::new(cache_bytes);
        let mut id = None;
        for turn in turns {
            let Some((finish, tokens)) = &turn.end else { break };
            while session.weights < turn.weights {
                session.refit(weights);
            }
            let new = if *finish == Finish::Cancelled { tokens.len() } else { turn.new };
            match id {
                None => id = Some(session.start(&turn.given, turn.seed, new)),
                Some(id) => session.extend(id, &turn.given, turn.seed, new),
            }
            while session.poll() {}
            let (expected, sampled) =
                session.turns.values().last().and_then(|turns| turns.last()?.end.as_ref()).unwrap();
            assert_eq!(tokens, sampled);
            assert!(finish == expected || *finish == Finish::Cancelled, "{finish:?} for {expected:?}");
            if *finish == Finish::Context {
                // It gave up what it had computed, and would find it again.
                break;
            }
        }
        assert_eq!(session.generator.statistics().shared, 0);
    }

    proptest! {
        #[test]
        fn neither_shared_prefixes_nor_little_memory_change_a_token(
            operations in proptest::collection::vec((0u8..16, 0u32..10_000), 1..60),
            budget in proptest::option::weighted(0.7, 2usize..24),
            max_batch in 1usize..9,
        ) {
            let budget = budget.map_or(usize::MAX, |blocks| blocks * Remembering::new().block_bytes());
            let mut session = Session::new(budget);
            session.generator = session.generator.with_max_batch(max_batch);
            let weights = HostWeights::init(session.generator.engine.config(), 0);
            for (seed, (operation, number)) in (0..).zip(operations) {
                let new = number as usize % NEW;
                let pick = |from: &[SequenceId]| from.get(number as usize % from.len().max(1)).copied();
                match operation {
                    // Two families of prompts, the same but for the first token, that part at one of six places; the endings
                    // are few, so that some are the same.
                    0..6 => {
                        let (family, common, end) = (number % 2, number / 2 % 6 * 13, number / 12 % 4);
                        let head = [family].into_iter().chain(9..9 + common);
                        let prompt: Vec<TokenId> = head.chain((0..end * 8).map(|i| 500 + i * end)).collect();
                        session.start(&prompt, seed, new);
                    }
                    6..10 => _ = session.poll(),
                    10 | 11 => match pick(&session.idle) {
                        Some(id) if session.turns[&id].len() < TURNS => {
                            let observation: Vec<TokenId> = (0..number % 20).collect();
                            session.extend(id, &observation, seed, new);
                        }
                        _ => {}
                    },
                    // A sequence that goes on as a new one.
                    12 => match pick(&session.idle).map(|id| session.tokens(id)) {
                        Some(tokens) if tokens.len() < 90 => _ = session.start(&tokens, seed, new),
                        _ => {}
                    },
                    13 => pick(&session.idle).or(pick(&session.active)).into_iter().for_each(|id| session.release(id)),
                    14 => pick(&session.active).into_iter().for_each(|id| session.generator.cancel(id)),
                    _ if number % 3 == 0 => session.refit(&weights),
                    _ => pick(&session.active).into_iter().for_each(|id| session.release(id)),
                }
            }
            while session.poll() {}
            session.turns.values().for_each(|turns| assert_as_alone(turns, &weights, budget));
            session.idle.clone().into_iter().for_each(|id| session.release(id));
            prop_assert_eq!(session.generator.blocks.used(), session.generator.blocks.recent());
            session.generator.sleep().unwrap();
            prop_assert_eq!(session.generator.blocks.used(), 0);
            prop_assert!(session.generator.prefixes.nodes.is_empty() && session.generator.prefixes.places.is_empty());
        }
    }
}
