//! Properties of estimators and losses, on random batches.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use zerosearch_algorithms::*;

/// Every algorithm, with terms switched on so that they are part of what is tested.
fn algorithms() -> Vec<Box<dyn Algorithm>> {
    AlgorithmConfig::NAMES.iter().map(|name| named(name)).collect()
}

fn named(name: &str) -> Box<dyn Algorithm> {
    name.parse::<AlgorithmConfig>().unwrap().build().unwrap()
}

/// Those whose advantage compares the samples of a group.
const GROUP_RELATIVE: [&str; 7] = ["rloo", "opo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"];

/// Rollouts of whole groups: rewards, group ids, lengths, and one value per trained token.
#[derive(Clone, Debug)]
struct Batch {
    rewards: Vec<f32>,
    groups: Vec<usize>,
    lengths: Vec<usize>,
    values: Vec<f32>,
}

impl Batch {
    fn advantages(&self, algorithm: &mut dyn Algorithm) -> Advantages {
        let batch = RewardBatch::new(&self.rewards, &self.groups, &self.lengths).unwrap();
        let baselines: Vec<f32> = self.groups.iter().map(|group| *group as f32 / 50.0).collect();
        let batch = batch.with_values(&self.values).unwrap().with_baselines(&baselines).unwrap();
        algorithm.advantages(&batch).unwrap()
    }

    fn permuted(&self, order: &[usize]) -> Batch {
        Batch {
            rewards: order.iter().map(|row| self.rewards[*row]).collect(),
            groups: order.iter().map(|row| self.groups[*row]).collect(),
            lengths: order.iter().map(|row| self.lengths[*row]).collect(),
            values: order.iter().flat_map(|row| self.values[self.range(*row)].to_vec()).collect(),
        }
    }

    /// Token range of a sequence.
    fn range(&self, row: usize) -> Range<usize> {
        let start = self.lengths[..row].iter().sum();
        start..start + self.lengths[row]
    }
}

/// 2 to 4 groups of 2 to 5 samples with 1 to 6 trained tokens; rewards from a few values, so that ties occur.
fn batches() -> impl Strategy<Value = Batch> {
    let sample = (prop_oneof![Just(0.0f32), Just(1.0), Just(0.4), -2.0f32..2.0], 1usize..7);
    let group = prop::collection::vec(sample, 2..6);
    let groups = prop::collection::vec(group, 2..5);
    (groups, prop::collection::vec(-1.0f32..1.0, 4 * 5 * 6)).prop_map(|(groups, values)| {
        let ids = groups.iter().enumerate().flat_map(|(id, group)| std::iter::repeat_n(id * 10 + 3, group.len()));
        let groups_of_rows = ids.collect();
        let (rewards, lengths): (Vec<f32>, Vec<usize>) = groups.into_iter().flatten().unzip();
        let tokens = lengths.iter().sum();
        Batch { rewards, groups: groups_of_rows, values: values[..tokens].to_vec(), lengths }
    })
}

/// Old, new and reference log-probabilities, entropies and importance weights of every trained token.
#[derive(Clone, Debug)]
struct Tokens {
    new: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    entropy: Vec<f32>,
    importance: Vec<f32>,
}

/// A batch and its forward pass.
fn rollouts() -> impl Strategy<Value = (Batch, Tokens)> {
    batches().prop_flat_map(|batch| {
        let tokens = batch.values.len();
        let list = |range: Range<f32>| prop::collection::vec(range, tokens);
        let drawn = (list(-3.0..-0.1), list(-0.5..0.5), list(-0.5..0.5), list(0.0..3.0), list(0.0..2.0));
        drawn.prop_map(move |(old, shift, away, entropy, importance)| {
            let add = |shift: &[f32]| old.iter().zip(shift).map(|(old, shift)| old + shift).collect();
            (batch.clone(), Tokens { new: add(&shift), reference: add(&away), old, entropy, importance })
        })
    })
}

/// The loss and its gradient for a run of sequences, with the whole batch's advantages and weights.
fn gradient(
    algorithm: &dyn Algorithm,
    batch: &Batch,
    tokens: &Tokens,
    advantages: &[f32],
    rows: Range<usize>,
) -> (LossSums, Vec<f32>) {
    let device = Device::flex().autodiff();
    let weights = algorithm.terms().aggregation.weights(&batch.lengths);
    let part = batch.range(rows.start).start..batch.range(rows.end - 1).end;
    let tensor = |values: &[f32]| Tensor::<1>::from_floats(&values[part.clone()], &device);
    let logprobs = tensor(&tokens.new).require_grad();
    let output = algorithm
        .loss(LossInputs {
            logprobs: logprobs.clone(),
            old_logprobs: tensor(&tokens.old),
            ref_logprobs: Some(tensor(&tokens.reference)),
            entropy: Some(tensor(&tokens.entropy)),
            advantages: tensor(advantages),
            weights: tensor(&weights),
            importance: Some(tensor(&tokens.importance)),
            sequence_lengths: batch.lengths[rows].to_vec(),
        })
        .unwrap();
    let gradient = logprobs.grad(&output.loss.backward()).unwrap().try_into_vec_as::<f32>().unwrap();
    (output.sums, gradient)
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what}[{index}]: {found} and {expected}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_constant_group_contributes_nothing(batch in batches(), reward in -2.0f32..2.0) {
        let mut batch = batch;
        let constant = batch.groups[0];
        for row in 0..batch.groups.len() {
            if batch.groups[row] == constant {
                batch.rewards[row] = reward;
            }
        }
        for name in GROUP_RELATIVE {
            let out = batch.advantages(&mut *named(name));
            prop_assert!(out.constant_groups >= 1);
            for row in (0..batch.groups.len()).filter(|row| batch.groups[*row] == constant) {
                prop_assert!(out.advantages[batch.range(row)].iter().all(|advantage| *advantage == 0.0), "{name}");
            }
        }
    }

    #[test]
    fn group_advantages_sum_to_zero(batch in batches()) {
        for name in GROUP_RELATIVE {
            let out = batch.advantages(&mut *named(name));
            for group in &batch.groups {
                let rows = (0..batch.groups.len()).filter(|row| batch.groups[*row] == *group);
                // OPO's baseline is the mean over tokens, the others' the mean over sequences.
                let weight = |row: usize| if name == "opo" { batch.lengths[row] as f32 } else { 1.0 };
                let sum: f32 = rows.map(|row| weight(row) * out.advantages[batch.range(row).start]).sum();
                prop_assert!(sum.abs() < 1e-5, "{name}: {sum}");
            }
        }
    }

    #[test]
    fn permuting_rows_permutes_advantages(
        (batch, order) in batches().prop_flat_map(|batch| {
            let rows: Vec<usize> = (0..batch.rewards.len()).collect();
            (Just(batch), Just(rows).prop_shuffle())
        })
    ) {
        let permuted = batch.permuted(&order);
        for mut algorithm in algorithms() {
            let before = batch.advantages(&mut *algorithm);
            let after = permuted.advantages(&mut *named(algorithm.name()));
            for (new_row, old_row) in order.iter().enumerate() {
                let (new, old) = (permuted.range(new_row), batch.range(*old_row));
                assert_close(&after.advantages[new.clone()], &before.advantages[old.clone()], 1e-5, algorithm.name());
                assert_close(&after.returns[new], &before.returns[old], 1e-5, algorithm.name());
            }
            prop_assert_eq!(before.constant_groups, after.constant_groups);
        }
    }

    #[test]
    fn group_relative_advantages_ignore_a_shift_and_standardised_ones_a_scale(batch in batches()) {
        let change = |scale: f32, shift: f32| {
            let rewards = batch.rewards.iter().map(|reward| reward * scale + shift).collect();
            Batch { rewards, ..batch.clone() }
        };
        for name in GROUP_RELATIVE {
            let plain = batch.advantages(&mut *named(name)).advantages;
            // A power of two, so that equal rewards stay equal and the sum stays exact enough.
            assert_close(&change(1.0, 4.0).advantages(&mut *named(name)).advantages, &plain, 2e-3, name);
            let scaled = change(2.0, 0.0).advantages(&mut *named(name)).advantages;
            let factor = if ["rloo", "opo", "dr_grpo"].contains(&name) { 2.0 } else { 1.0 };
            let expected: Vec<f32> = plain.iter().map(|advantage| advantage * factor).collect();
            assert_close(&scaled, &expected, 1e-3, name);
        }
    }

    /// With `scale·r + shift` in the place of every reward, and of what is a guess at it: a critic's value, a greedy
    /// rollout's reward.
    #[test]
    fn the_other_estimators_scale_and_shift_as_they_promise(batch in batches()) {
        let advantages = |algorithm: &mut dyn Algorithm, scale: f32, shift: f32| {
            let change = |values: &[f32]| values.iter().map(|value| value * scale + shift).collect::<Vec<f32>>();
            let greedy: Vec<f32> = batch.groups.iter().map(|group| *group as f32 / 50.0).collect();
            let (rewards, values, greedy) = (change(&batch.rewards), change(&batch.values), change(&greedy));
            let batch = RewardBatch::new(&rewards, &batch.groups, &batch.lengths).unwrap();
            let batch = batch.with_values(&values).unwrap().with_baselines(&greedy).unwrap();
            // The second of two equal batches: a running baseline has then seen one.
            algorithm.advantages(&batch).unwrap();
            algorithm.advantages(&batch).unwrap().advantages
        };
        let reinforce = |baseline| AlgorithmConfig::Reinforce(Reinforce { baseline, ..Default::default() });
        let pp = |group_baseline| AlgorithmConfig::ReinforcePp(ReinforcePp { group_baseline, ..Default::default() });
        let ppo = |whiten| AlgorithmConfig::Ppo(Ppo { whiten, ..Default::default() });
        for (config, follows_scale, follows_shift) in [
            (reinforce(Baseline::None), true, true),
            (reinforce(Baseline::Running { decay: 0.5 }), true, false),
            (reinforce(Baseline::BatchMean), true, false),
            (pp(false), false, false),
            (pp(true), false, false),
            (AlgorithmConfig::ReMax(ReMax::default()), true, false),
            (ppo(false), true, false),
            (ppo(true), false, false),
        ] {
            let of = |scale, shift| advantages(&mut *config.clone().build().unwrap(), scale, shift);
            let (plain, what) = (of(1.0, 0.0), format!("{config:?}"));
            let (scale, shift) = (if follows_scale { 2.0 } else { 1.0 }, if follows_shift { 4.0 } else { 0.0 });
            let expected: Vec<f32> = plain.iter().map(|advantage| advantage * scale + shift).collect();
            assert_close(&of(2.0, 4.0), &expected, 2e-3, &what);
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_full_batch((batch, tokens) in rollouts(), cut in 1usize..6) {
        let rows = batch.rewards.len();
        for mut algorithm in algorithms() {
            let advantages = batch.advantages(&mut *algorithm).advantages;
            let (whole, expected) = gradient(&*algorithm, &batch, &tokens, &advantages, 0..rows);
            let (mut sum, mut parts) = (LossMetrics::default(), Vec::new());
            let mut found = Vec::new();
            // The last micro-batch is ragged for most sizes.
            for start in (0..rows).step_by(cut) {
                let part = start..(start + cut).min(rows);
                let (sums, gradient) = gradient(&*algorithm, &batch, &tokens, &advantages, part);
                sum += sums.clone().read().unwrap();
                parts.push(sums);
                found.extend(gradient);
            }
            // Read together, they are the same to the bit.
            prop_assert_eq!(LossSums::read_all(parts).unwrap(), sum);
            let whole = whole.read().unwrap();
            assert_close(&found, &expected, 1e-6, algorithm.name());
            prop_assert_eq!(sum.tokens, whole.tokens);
            let scalars = sum.scalars().into_iter().zip(whole.scalars());
            for ((name, found), (_, expected)) in scalars {
                prop_assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{name}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn at_ratio_one_every_gradient_is_reinforce((batch, mut tokens) in rollouts()) {
        tokens.new.clone_from(&tokens.old);
        let rows = batch.rewards.len();
        for name in AlgorithmConfig::NAMES {
            let (aggregation, kl, entropy_coefficient) = (Aggregation::TokenMean, Kl::NONE, 0.0);
            let text = format!(r#"{{"name": "{name}", "aggregation": "token_mean", "kl": {{"estimator": "k3", "coefficient": 0.0}}, "entropy_coefficient": 0.0}}"#);
            let mut algorithm = serde_json::from_str::<AlgorithmConfig>(&text).unwrap().build().unwrap();
            let advantages = batch.advantages(&mut *algorithm).advantages;
            let reinforce = Reinforce { aggregation, kl, entropy_coefficient, ..Default::default() };
            let (_, expected) = gradient(&reinforce, &batch, &tokens, &advantages, 0..rows);
            let (metrics, found) = gradient(&*algorithm, &batch, &tokens, &advantages, 0..rows);
            assert_close(&found, &expected, 1e-6, name);
            let metrics = metrics.read().unwrap();
            prop_assert_eq!(metrics.clipped, 0.0);
            prop_assert_eq!(metrics.ppo_kl_sum, 0.0);
        }
    }

    /// Central differences of the loss that is reported are the gradient that is propagated.
    #[test]
    fn finite_differences_confirm_the_gradient((batch, tokens) in rollouts(), at in any::<prop::sample::Index>()) {
        let rows = batch.rewards.len();
        let token = at.index(tokens.new.len());
        let step = 1e-2;
        // GSPO and CISPO stop gradients on purpose: their loss is not the integral of their gradient.
        for mut algorithm in algorithms().into_iter().filter(|a| !["gspo", "cispo"].contains(&a.name())) {
            let ratio = (tokens.new[token] - tokens.old[token]).exp();
            let near_a_corner = [0.8, 1.2, 1.28].iter().any(|corner: &f32| (ratio - corner).abs() < 0.03);
            prop_assume!(!near_a_corner);
            let advantages = batch.advantages(&mut *algorithm).advantages;
            let (_, gradients) = gradient(&*algorithm, &batch, &tokens, &advantages, 0..rows);
            let loss_at = |shift: f32| {
                let mut moved = tokens.clone();
                moved.new[token] += shift;
                gradient(&*algorithm, &batch, &moved, &advantages, 0..rows).0.read().unwrap().loss
            };
            let slope = (loss_at(step) - loss_at(-step)) / (2.0 * f64::from(step));
            let tolerance = 2e-3 + 2e-3 * slope.abs();
            prop_assert!((slope - f64::from(gradients[token])).abs() < tolerance, "{}: {slope}, {}", algorithm.name(), gradients[token]);
        }
    }
}
