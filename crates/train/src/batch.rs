//! Rollouts as the update sees them: sequences with their trained positions, cut into micro-batches.

use std::ops::Range;

use zerosearch_generate::TokenId;
use zerosearch_lm::ScoredSequence;
use zerosearch_rollout::Rollout;

/// The trained tokens of a step's rollouts, laid end to end in the order of the rollouts.
pub(crate) struct TrainBatch {
    sequences: Vec<Sequence>,
    /// Log-probabilities that the generator recorded, one for each trained token.
    pub(crate) generator_logprobs: Vec<f32>,
    /// Trained tokens of each rollout.
    pub(crate) lengths: Vec<usize>,
}

struct Sequence {
    tokens: Vec<TokenId>,
    positions: Vec<usize>,
    /// Where its trained tokens stand among all.
    range: Range<usize>,
}

impl TrainBatch {
    pub(crate) fn new<'r>(rollouts: impl Iterator<Item = &'r Rollout>) -> Self {
        let mut batch = Self { sequences: Vec::new(), generator_logprobs: Vec::new(), lengths: Vec::new() };
        for rollout in rollouts {
            let positions: Vec<usize> = rollout.trajectory.mask().trained_positions().collect();
            let start = batch.generator_logprobs.len();
            batch.generator_logprobs.extend(rollout.trajectory.logprobs());
            batch.lengths.push(positions.len());
            let range = start..start + positions.len();
            batch.sequences.push(Sequence { tokens: rollout.trajectory.tokens(), positions, range });
        }
        batch
    }

    /// Groups of sequences of similar length whose padded size stays within the budget. Those
    /// without trained tokens are left out.
    pub(crate) fn micro_batches(&self, budget: usize) -> Vec<MicroBatch<'_>> {
        let mut order: Vec<usize> =
            (0..self.sequences.len()).filter(|i| !self.sequences[*i].positions.is_empty()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(self.sequences[*i].tokens.len()), *i));
        let mut groups: Vec<MicroBatch<'_>> = Vec::new();
        for index in order {
            let sequence = &self.sequences[index];
            match groups.last_mut() {
                Some(group) if (group.0.len() + 1) * group.0[0].tokens.len() <= budget => group.0.push(sequence),
                _ => groups.push(MicroBatch(vec![sequence])),
            }
        }
        groups
    }
}

/// Sequences that go through the network together.
pub(crate) struct MicroBatch<'a>(Vec<&'a Sequence>);

impl MicroBatch<'_> {
    pub(crate) fn scored(&self) -> Vec<ScoredSequence<'_>> {
        self.0.iter().map(|s| ScoredSequence { tokens: &s.tokens, positions: &s.positions }).collect()
    }

    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.0.iter().map(|sequence| sequence.positions.len()).collect()
    }

    /// This micro-batch's part of a value per trained token.
    pub(crate) fn gather(&self, values: &[f32]) -> Vec<f32> {
        self.0.iter().flat_map(|sequence| &values[sequence.range.clone()]).copied().collect()
    }

    /// Puts this micro-batch's part back in its place.
    pub(crate) fn scatter(&self, part: &[f32], values: &mut [f32]) {
        let mut from = 0;
        for sequence in &self.0 {
            let length = sequence.range.len();
            values[sequence.range.clone()].copy_from_slice(&part[from..from + length]);
            from += length;
        }
    }
}
