//! Sequences laid end to end, without padding, what adjacent ones have in common at their beginning only once.
//!
//! The samples of a question begin with the same prompt. A row's result does not depend on the rows beside it, so the
//! prompt is computed once for all of them, and each sample gets the bits that it would get alone.

use std::ops::Range;
use std::sync::Arc;

use zerosearch_generate::TokenId;
use zerosearch_kernels::PackedSpan;

use crate::ScoredSequence;

/// Cuts sequences into adjacent groups whose rows stay within a budget, in tokens; what neighbours have in common at
/// their beginning counts once. A sequence that is longer has a group of its own.
pub fn micro_batches(sequences: &[ScoredSequence<'_>], budget: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut packer = Packer::default();
    for (index, sequence) in sequences.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if packer.push(sequence) <= budget => group.end = index + 1,
            _ => {
                packer = Packer::default();
                packer.push(sequence);
                groups.push(index..index + 1);
            }
        }
    }
    groups
}

/// Counts the rows that sequences take, one after another.
#[derive(Default)]
struct Packer<'a> {
    groups: Vec<Group<'a>>,
    rows: usize,
}

/// Adjacent sequences with a common beginning.
struct Group<'a> {
    sequences: Vec<&'a [TokenId]>,
    /// How many tokens they have in common; of a single sequence, all.
    common: usize,
}

impl<'a> Packer<'a> {
    /// Adds a sequence, and returns how many rows all take now.
    fn push(&mut self, sequence: &ScoredSequence<'a>) -> usize {
        let tokens = used(sequence);
        if let Some(group) = self.groups.last_mut() {
            let shared = group.sequences.len();
            let common = group.sequences[0][..group.common].iter().zip(tokens).take_while(|(a, b)| a == b).count();
            // The rows that are saved with it, and those without it.
            let (with, without) = (common * shared, group.common * (shared - 1));
            if with > without {
                self.rows = self.rows + tokens.len() + without - with;
                group.common = common;
                group.sequences.push(tokens);
                return self.rows;
            }
        }
        self.rows += tokens.len();
        self.groups.push(Group { sequences: vec![tokens], common: tokens.len() });
        self.rows
    }
}

/// Input of the network: a token and its position for every row, and the rows of each sequence.
pub(crate) struct Packing {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) positions: Vec<usize>,
    pub(crate) spans: Arc<[PackedSpan]>,
    /// The row behind which each scored token comes, in the order of sequences and positions.
    pub(crate) scored: Vec<usize>,
}

impl Packing {
    pub(crate) fn of(sequences: &[ScoredSequence<'_>]) -> Self {
        let mut packer = Packer::default();
        for sequence in sequences {
            packer.push(sequence);
        }
        let (mut tokens, mut positions) = (Vec::with_capacity(packer.rows), Vec::with_capacity(packer.rows));
        let (mut spans, mut scored) = (Vec::new(), Vec::new());
        let mut lay = |tokens_of: &[TokenId], shared: Range<usize>| {
            let own = tokens.len()..tokens.len() + tokens_of.len();
            tokens.extend_from_slice(tokens_of);
            positions.extend(shared.len()..shared.len() + own.len());
            if !own.is_empty() {
                spans.push(PackedSpan { shared, own: own.clone() });
            }
            own
        };
        let mut rest = sequences.iter();
        for Group { sequences, common } in packer.groups {
            let shared = lay(&sequences[0][..common], 0..0);
            for (tokens, sequence) in sequences.iter().zip(rest.by_ref()) {
                let own = lay(&tokens[common..], shared.clone());
                let row = |position: usize| {
                    if position < common { shared.start + position } else { own.start + position - common }
                };
                scored.extend(sequence.positions.iter().map(|position| row(position - 1)));
            }
        }
        Self { tokens, positions, spans: spans.into(), scored }
    }
}

/// Nothing behind the last scored token can matter, by causality.
fn used<'a>(sequence: &ScoredSequence<'a>) -> &'a [TokenId] {
    let last = sequence.positions.last().copied().unwrap_or(1).max(1);
    &sequence.tokens[..last.min(sequence.tokens.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scored<'a>(sequences: &'a [Vec<TokenId>], positions: &'a [Vec<usize>]) -> Vec<ScoredSequence<'a>> {
        let pairs = sequences.iter().zip(positions);
        pairs.map(|(tokens, positions)| ScoredSequence { tokens, positions }).collect()
    }

    #[test]
    fn the_samples_of_two_questions_share_their_prompts_and_nothing_else() {
        let sequences = [vec![1, 2, 3, 4, 9], vec![1, 2, 3, 5, 6, 9], vec![1, 7, 7, 4, 9], vec![1, 7, 7, 9]];
        let positions = [vec![3, 4], vec![3, 4, 5], vec![3, 4], vec![3]];
        let packing = Packing::of(&scored(&sequences, &positions));
        assert_eq!(packing.tokens, [1, 2, 3, 4, 5, 6, 1, 7, 7, 4]);
        assert_eq!(packing.positions, [0, 1, 2, 3, 3, 4, 0, 1, 2, 3]);
        let spans = [(0..0, 0..3), (0..3, 3..4), (0..3, 4..6), (0..0, 6..9), (6..9, 9..10)];
        assert_eq!(packing.spans[..], spans.map(|(shared, own)| PackedSpan { shared, own }));
        assert_eq!(packing.scored, [2, 3, 2, 4, 5, 8, 9, 8]);
    }

    #[test]
    fn micro_batches_are_adjacent_and_count_a_common_prompt_once() {
        let sequences = [vec![1, 2, 3, 4, 9], vec![1, 2, 3, 5, 9], vec![1, 2, 3, 6, 9], vec![7; 30], vec![8, 9]];
        let positions = [vec![4], vec![4], vec![4], vec![29], vec![1]];
        let scored = scored(&sequences, &positions);
        assert_eq!(micro_batches(&scored, 6), [0..3, 3..4, 4..5]);
        assert_eq!(micro_batches(&scored, 5), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(micro_batches(&scored, 1000).len(), 1);
        assert!(micro_batches(&[], 5).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_stands_for_the_beginning_of_its_sequence(
            sequences in prop::collection::vec(prop::collection::vec(0u32..3, 2..12), 1..8)
        ) {
            let positions: Vec<Vec<usize>> = sequences.iter().map(|tokens| (1..tokens.len()).collect()).collect();
            let scored = scored(&sequences, &positions);
            let packing = Packing::of(&scored);
            let mut packer = Packer::default();
            let rows = scored.iter().map(|sequence| packer.push(sequence)).last();
            prop_assert_eq!(Some(packing.tokens.len()), rows);
            prop_assert!(packing.tokens.len() <= sequences.iter().map(|tokens| tokens.len() - 1).sum());
            // The tokens up to and with a row, found through the spans.
            let context = |row: usize| {
                let span = packing.spans.iter().find(|span| span.own.contains(&row)).unwrap();
                span.shared.clone().chain(span.own.start..row + 1).map(|row| packing.tokens[row]).collect::<Vec<_>>()
            };
            let mut scored = packing.scored.iter();
            for (tokens, positions) in sequences.iter().zip(&positions) {
                for position in positions {
                    let row = *scored.next().unwrap();
                    prop_assert_eq!(context(row), &tokens[..*position]);
                    prop_assert_eq!(packing.positions[row], position - 1);
                }
            }
            prop_assert!(scored.next().is_none());
        }
    }
}
