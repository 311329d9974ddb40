//! Rollouts as the update sees them: sequences with their trained positions, cut into mini-batches and micro-batches.

use std::ops::Range;

use rand::seq::SliceRandom;
use zerosearch_algorithms::{Aggregation, RewardBatch};
use zerosearch_generate::{Stream, TokenId};
use zerosearch_lm::{ScoredSequence, micro_batches};

use crate::{Experience, TrainError};

/// The trained tokens of a step's rollouts, laid end to end in the order of the rollouts, and the rewards.
#[derive(Default)]
pub(crate) struct TrainBatch {
    sequences: Vec<Sequence>,
    /// Log-probabilities that the generator recorded, one for each trained token.
    pub(crate) generator_logprobs: Vec<f32>,
    /// The same under the distributions that the tokens were drawn from, where the generator recorded that they are others.
    pub(crate) sampling_logprobs: Vec<Option<f32>>,
    /// Trained tokens of each rollout.
    pub(crate) lengths: Vec<usize>,
    rewards: Vec<f32>,
    /// The question of each rollout.
    groups: Vec<usize>,
    /// The reward of the greedy rollout of each one's question; empty where the algorithm does not ask for it.
    baselines: Vec<f32>,
}

struct Sequence {
    tokens: Vec<TokenId>,
    positions: Vec<usize>,
    /// Range of its trained tokens among all.
    range: Range<usize>,
}

impl Sequence {
    fn scored(&self) -> ScoredSequence<'_> {
        ScoredSequence { tokens: &self.tokens, positions: &self.positions }
    }

    /// Whether any of its trained tokens has an advantage, given those of the batch.
    fn has_signal(&self, advantages: &[f32]) -> bool {
        advantages[self.range.clone()].iter().any(|advantage| *advantage != 0.0)
    }
}

impl TrainBatch {
    pub(crate) fn new(experiences: &[&Experience]) -> Self {
        let mut batch = Self::default();
        for Experience { rollout, reward, baseline, .. } in experiences {
            let positions: Vec<usize> = rollout.trajectory.mask().trained_positions().collect();
            let start = batch.generator_logprobs.len();
            batch.generator_logprobs.extend(rollout.trajectory.logprobs());
            batch.sampling_logprobs.extend(rollout.trajectory.sampled().map(|token| token.sampling_logprob));
            batch.lengths.push(positions.len());
            batch.rewards.push(*reward);
            batch.groups.push(rollout.question_index as usize);
            batch.baselines.extend(*baseline);
            let range = start..start + positions.len();
            batch.sequences.push(Sequence { tokens: rollout.trajectory.tokens(), positions, range });
        }
        batch
    }

    /// The rewards as an algorithm takes them.
    pub(crate) fn rewards(&self) -> Result<RewardBatch<'_>, TrainError> {
        let batch = RewardBatch::new(&self.rewards, &self.groups, &self.lengths)?;
        Ok(if self.baselines.is_empty() { batch } else { batch.with_baselines(&self.baselines)? })
    }

    /// The part of each rollout of a value for every trained token.
    pub(crate) fn rows<'v>(&self, values: &'v [f32]) -> impl Iterator<Item = &'v [f32]> {
        self.sequences.iter().map(move |sequence| &values[sequence.range.clone()])
    }

    /// Number of trained tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.generator_logprobs.len()
    }

    /// Every sequence with trained tokens, as one mini-batch.
    pub(crate) fn whole(&self) -> MiniBatch<'_> {
        let sequences: Vec<&Sequence> = self.sequences.iter().filter(|s| !s.positions.is_empty()).collect();
        MiniBatch { full: sequences.len(), sequences }
    }

    /// Indices of the sequences for which `trained` holds, without those that have no trained tokens.
    fn chosen(&self, trained: &[bool]) -> Vec<usize> {
        let chosen = |index: &usize| trained[*index] && !self.sequences[*index].positions.is_empty();
        (0..self.sequences.len()).filter(chosen).collect()
    }

    /// How many of the sequences that mini-batches are made of have no advantage.
    pub(crate) fn without_signal(&self, trained: &[bool], advantages: &[f32]) -> usize {
        let chosen = self.chosen(trained).into_iter();
        chosen.filter(|index| !self.sequences[*index].has_signal(advantages)).count()
    }

    /// The sequences for which `trained` holds in mini-batches of `size`, drawn at random; a last one holds what is left. With
    /// size 0 all of them are one. Sequences without trained tokens are in none.
    pub(crate) fn mini_batches(&self, trained: &[bool], size: usize, stream: Stream) -> Vec<MiniBatch<'_>> {
        let mut order = self.chosen(trained);
        if order.is_empty() {
            return Vec::new();
        }
        let full = if size == 0 { order.len() } else { size.min(order.len()) };
        if full < order.len() {
            order.shuffle(&mut stream.rng());
        }
        let mini_batch = |part: &[usize]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            MiniBatch { sequences: part.into_iter().map(|index| &self.sequences[index]).collect(), full }
        };
        order.chunks(full).map(mini_batch).collect()
    }
}

/// The sequences of one optimizer step.
pub(crate) struct MiniBatch<'a> {
    sequences: Vec<&'a Sequence>,
    /// How many sequences a full one has.
    full: usize,
}

impl<'a> MiniBatch<'a> {
    /// Its size as a fraction of a full mini-batch's.
    pub(crate) fn fraction(&self) -> f64 {
        self.sequences.len() as f64 / self.full.max(1) as f64
    }

    /// The loss's weight of every trained token of the batch, 0 for those of other mini-batches; `tokens` is their number.
    pub(crate) fn weights(&self, aggregation: Aggregation, tokens: usize) -> Vec<f32> {
        let lengths: Vec<usize> = self.sequences.iter().map(|sequence| sequence.range.len()).collect();
        let mut weights = vec![0.0; tokens];
        MicroBatch(self.sequences.clone()).scatter(&aggregation.mini_batch_weights(&lengths, self.full), &mut weights);
        weights
    }

    /// The part of it whose advantages are not all 0; all of it where every one is, so that the optimizer takes its step.
    pub(crate) fn with_signal(&self, advantages: &[f32]) -> MiniBatch<'a> {
        let sequences: Vec<&Sequence> = self.sequences.iter().copied().filter(|s| s.has_signal(advantages)).collect();
        MiniBatch { full: self.full, sequences: if sequences.is_empty() { self.sequences.clone() } else { sequences } }
    }

    /// Its sequences dealt to so many devices: each, the longest first, to the one that has the fewest tokens so far. A device for
    /// which none is left has no part.
    pub(crate) fn deal(&self, devices: usize) -> Vec<MiniBatch<'a>> {
        let mut order = self.sequences.clone();
        order.sort_by_key(|sequence| std::cmp::Reverse(sequence.tokens.len()));
        let mut parts: Vec<(usize, Vec<&Sequence>)> = vec![(0, Vec::new()); devices];
        for sequence in order {
            if let Some((tokens, part)) = parts.iter_mut().min_by_key(|(tokens, _)| *tokens) {
                *tokens += sequence.tokens.len();
                part.push(sequence);
            }
        }
        let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
        let mini_batch = |(_, mut sequences): (usize, Vec<&'a Sequence>)| {
            // The samples of a question beside one another again.
            sequences.sort_by_key(|sequence| sequence.range.start);
            MiniBatch { sequences, full: self.full }
        };
        parts.map(mini_batch).collect()
    }

    /// Adjacent sequences whose rows in the network stay within the budget: the samples of a question have the prompt's once.
    pub(crate) fn micro_batches(&self, budget: usize) -> Vec<MicroBatch<'a>> {
        let scored: Vec<ScoredSequence<'_>> = self.sequences.iter().map(|sequence| sequence.scored()).collect();
        let ranges = micro_batches(&scored, budget).into_iter();
        ranges.map(|range| MicroBatch(self.sequences[range].to_vec())).collect()
    }
}

/// Sequences that go through the network together.
pub(crate) struct MicroBatch<'a>(Vec<&'a Sequence>);

impl MicroBatch<'_> {
    pub(crate) fn scored(&self) -> Vec<ScoredSequence<'_>> {
        self.0.iter().map(|sequence| sequence.scored()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences with these many trained tokens.
    fn batch(lengths: &[usize]) -> TrainBatch {
        let mut start = 0;
        let sequence = |length: &usize| {
            let range = start..start + length;
            start = range.end;
            Sequence { tokens: vec![0; 3 + length], positions: (3..3 + length).collect(), range }
        };
        let sequences = lengths.iter().map(sequence).collect();
        TrainBatch {
            sequences,
            generator_logprobs: vec![0.0; start],
            lengths: lengths.to_vec(),
            ..TrainBatch::default()
        }
    }

    fn starts(mini_batches: &[MiniBatch<'_>]) -> Vec<Vec<usize>> {
        mini_batches.iter().map(|mini| mini.sequences.iter().map(|s| s.range.start).collect()).collect()
    }

    fn stream(step: u64, epoch: u64) -> Stream {
        Stream { seed: 5, purpose: "mini_batches", step, turn: epoch, ..Stream::default() }
    }

    #[test]
    fn every_chosen_sequence_is_in_one_mini_batch_of_each_epoch() {
        let batch = batch(&[2, 1, 0, 3, 1, 4, 1]);
        let trained = [true, true, true, true, false, true, true];
        for epoch in 0..4 {
            let parts = batch.mini_batches(&trained, 2, stream(0, epoch));
            let sizes: Vec<usize> = parts.iter().map(|part| part.sequences.len()).collect();
            assert_eq!(sizes, [2, 2, 1]);
            let mut all = starts(&parts).concat();
            all.sort_unstable();
            assert_eq!(all, [0, 2, 3, 7, 11]);
        }
        assert!(batch.mini_batches(&[false; 7], 2, stream(0, 0)).is_empty());
    }

    #[test]
    fn the_shuffle_is_named_by_seed_step_and_epoch() {
        let batch = batch(&[1; 12]);
        let parts = |stream| starts(&batch.mini_batches(&[true; 12], 4, stream));
        assert_eq!(parts(stream(1, 0)), parts(stream(1, 0)));
        assert_ne!(parts(stream(1, 0)), parts(stream(1, 1)));
        assert_ne!(parts(stream(1, 0)), parts(stream(2, 0)));
    }

    #[test]
    fn one_mini_batch_weighs_as_the_batch_does() {
        let batch = batch(&[2, 0, 3]);
        for aggregation in [Aggregation::TokenMean, Aggregation::SequenceMean] {
            for size in [0, 2, 9] {
                let parts = batch.mini_batches(&[true; 3], size, stream(0, 0));
                assert_eq!(parts.len(), 1);
                assert_eq!(parts[0].weights(aggregation, 5), aggregation.weights(&[2, 0, 3]));
            }
        }
    }

    #[test]
    fn a_token_of_another_mini_batch_weighs_nothing_and_a_ragged_end_what_it_holds() {
        let batch = batch(&[1, 2, 3, 4, 5]);
        let parts = batch.mini_batches(&[true; 5], 2, stream(0, 0));
        for part in &parts {
            let weights = part.weights(Aggregation::TokenMean, 15);
            let inside: Vec<usize> = part.sequences.iter().flat_map(|s| s.range.clone()).collect();
            assert!((0..15).all(|token| (weights[token] > 0.0) == inside.contains(&token)));
            assert!((f64::from(weights.iter().sum::<f32>()) - part.fraction()).abs() < 1e-6);
        }
        assert_eq!(parts.iter().map(MiniBatch::fraction).collect::<Vec<_>>(), [1.0, 1.0, 0.5]);
    }

    #[test]
    fn the_parts_of_devices_hold_every_sequence_once_and_about_as_many_tokens() {
        let batch = batch(&[1, 9, 2, 5, 1, 8, 2]);
        let whole = batch.whole();
        for devices in 1..10 {
            let parts = whole.deal(devices);
            assert_eq!(parts.len(), devices.min(7));
            let mut all = starts(&parts).concat();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 10, 12, 17, 18, 26]);
        }
        let tokens = |part: &MiniBatch<'_>| part.sequences.iter().map(|s| s.tokens.len()).sum::<usize>();
        assert_eq!(whole.deal(2).iter().map(tokens).collect::<Vec<_>>(), [26, 23]);
    }

    #[test]
    fn sequences_without_an_advantage_are_left_out_unless_none_has_one() {
        let batch = batch(&[1, 2, 0, 3]);
        let whole = batch.whole();
        let starts = |part: MiniBatch<'_>| starts(&[part]).concat();
        assert_eq!(starts(whole.with_signal(&[0.0, 0.0, -0.5, 0.0, 0.0, 1.0])), [1, 3]);
        assert_eq!(starts(whole.with_signal(&[0.5, 0.0, 0.0, 0.0, -0.0, 0.0])), [0]);
        assert_eq!(starts(whole.with_signal(&[0.0; 6])), [0, 1, 3]);
        assert_eq!(whole.with_signal(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).full, 3);
        // The one without trained tokens is in no mini-batch, and so is not left out of one.
        assert_eq!(batch.without_signal(&[true; 4], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 2);
        assert_eq!(batch.without_signal(&[true, false, true, true], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 1);
    }

    #[test]
    fn micro_batches_hold_the_mini_batch_within_the_budget() {
        let batch = batch(&[1, 9, 2, 5, 1]);
        let whole = batch.whole();
        for budget in [1, 12, 30, 1000] {
            let micro = whole.micro_batches(budget);
            let lengths: usize = micro.iter().map(|part| part.lengths().iter().sum::<usize>()).sum();
            assert_eq!(lengths, batch.tokens());
            for part in micro {
                assert_eq!(micro_batches(&part.scored(), budget).len(), 1);
            }
        }
    }
}
