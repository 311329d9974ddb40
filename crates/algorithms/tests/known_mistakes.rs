//! Mistakes of released implementations, each held off by a test.

use burn::tensor::{Device, Tensor};
use zerosearch_algorithms::*;
use zerosearch_trajectory::{Finish, SampledToken, Segment, Trajectory, WeightVersion};

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_floats(values, &Device::flex().autodiff())
}

/// One token, no advantage: only the terms are left in the loss.
fn terms_only(kl: Kl, entropy_coefficient: f64, reference: f32, entropy: f32) -> (f64, f32) {
    let algorithm = Grpo { kl, entropy_coefficient, ..Default::default() };
    let logprobs = tensor(&[-1.0]).require_grad();
    let output = algorithm.loss(LossInputs {
        logprobs: logprobs.clone(),
        old_logprobs: tensor(&[-1.0]),
        ref_logprobs: Some(tensor(&[reference])),
        entropy: Some(tensor(&[entropy])),
        advantages: tensor(&[0.0]),
        weights: tensor(&[1.0]),
        importance: None,
        sequence_lengths: vec![1],
    });
    let output = output.unwrap();
    let gradient = logprobs.grad(&output.loss.backward()).unwrap();
    (output.sums.read().unwrap().loss, gradient.into_scalar())
}

#[test]
fn kl_is_added_to_the_loss() {
    for estimator in [KlEstimator::K2, KlEstimator::K3, KlEstimator::Abs] {
        let kl = Kl { estimator, coefficient: 0.5 };
        let (far, gradient) = terms_only(kl, 0.0, -3.0, 0.0);
        let (near, _) = terms_only(kl, 0.0, -1.5, 0.0);
        let (there, still) = terms_only(kl, 0.0, -1.0, 0.0);
        assert!(far > near && near > there && there == 0.0, "{estimator:?}: {far}, {near}, {there}");
        // The token is likelier than under the reference; descending must make it less likely.
        assert!(gradient > 0.0 && still == 0.0, "{estimator:?}: {gradient}, {still}");
    }
}

#[test]
fn importance_weighs_the_policy_gradient_and_neither_kl_nor_entropy() {
    let run = |importance: Option<&[f32]>| {
        let algorithm = Grpo { kl: Kl { estimator: KlEstimator::K1, coefficient: 0.5 }, ..Default::default() };
        let logprobs = tensor(&[-1.0, -2.0]).require_grad();
        let output = algorithm.loss(LossInputs {
            logprobs: logprobs.clone(),
            old_logprobs: tensor(&[-1.0, -2.0]),
            ref_logprobs: Some(tensor(&[-1.5, -2.0])),
            entropy: Some(tensor(&[0.0, 0.0])),
            advantages: tensor(&[2.0, -1.0]),
            weights: tensor(&[0.5, 0.5]),
            importance: importance.map(tensor),
            sequence_lengths: vec![2],
        });
        let output = output.unwrap();
        let gradient = logprobs.grad(&output.loss.backward()).unwrap().try_into_vec_as::<f32>().unwrap();
        let metrics = output.sums.read().unwrap();
        (metrics.pg_loss, metrics.kl_loss, gradient)
    };
    // pg: ½·(−2·w₀ + 1·w₁), k1: ½·(½ + 0), and each token's gradient ½·(−A·w) + ½·½.
    assert_eq!(run(None), (-0.5, 0.25, vec![-0.75, 0.75]));
    assert_eq!(run(Some(&[0.25, 1.5])), (0.5, 0.25, vec![0.0, 1.0]));
    assert_eq!(run(Some(&[0.0, 0.0])), (0.0, 0.25, vec![0.25, 0.25]));
}

#[test]
fn each_kl_estimator_has_the_documented_gradient() {
    let d = -2.0_f32;
    let k3 = 1.0 - d.exp();
    for (estimator, d, expected) in [
        (KlEstimator::K1, d, 1.0),
        (KlEstimator::K2, d, -d),
        (KlEstimator::K3, d, k3),
        (KlEstimator::Abs, d, 1.0),
        (KlEstimator::Abs, -d, -1.0),
        (KlEstimator::Abs, 0.0, 0.0),
    ] {
        let (_, gradient) = terms_only(Kl { estimator, coefficient: 1.0 }, 0.0, -1.0 + d, 0.0);
        assert!((gradient - expected).abs() < 1e-6, "{estimator:?}: {gradient}, expected {expected}");
    }
}

#[test]
fn entropy_is_rewarded() {
    let (more, _) = terms_only(Kl::NONE, 0.1, -1.0, 2.0);
    let (less, _) = terms_only(Kl::NONE, 0.1, -1.0, 1.0);
    assert!(more < less);
}

#[test]
fn a_token_that_the_policy_has_given_up_does_not_make_the_loss_infinite() {
    for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3, KlEstimator::Abs] {
        let (loss, gradient) = terms_only(Kl { estimator, coefficient: 1.0 }, 0.0, 300.0, 0.0);
        assert!(loss.is_finite() && gradient.is_finite(), "{estimator:?}: {loss}, {gradient}");
    }
}

/// Two turns with a document of `document` tokens between them.
fn searched(document: usize) -> Trajectory {
    let turn = |ids: [u32; 2], finish| Segment::Policy {
        tokens: ids.map(|id| SampledToken::new(id, -1.0)).to_vec(),
        finish,
        weights: WeightVersion(0),
    };
    let mut trajectory = Trajectory::new(vec![1, 2, 3]);
    trajectory.push(turn([4, 5], Finish::Stop));
    trajectory.push(Segment::Observation(vec![9; document]));
    trajectory.push(turn([6, 7], Finish::EndOfText));
    trajectory
}

#[test]
fn documents_enter_neither_gae_nor_whitening() {
    let estimate = |document: usize, document_value: f32| {
        let trajectories = [searched(document), searched(document + 5)];
        let mut lengths = Vec::new();
        let mut values = Vec::new();
        for trajectory in &trajectories {
            // A critic gives every token a value; the mask picks those of the policy's tokens.
            let all: Vec<f32> = trajectory
                .tokens()
                .iter()
                .map(|id| if *id == 9 { document_value } else { *id as f32 / 10.0 })
                .collect();
            let mask = trajectory.mask();
            lengths.push(mask.trained());
            values.extend(mask.trained_positions().map(|position| all[position]));
        }
        let batch = RewardBatch::new(&[1.0, 0.0], &[0, 0], &lengths).unwrap().with_values(&values).unwrap();
        Ppo { gamma: 0.9, lambda: 0.8, ..Default::default() }.advantages(&batch).unwrap()
    };
    let short = estimate(1, 0.0);
    assert_eq!(short, estimate(40, 1000.0));
    assert_eq!(short.advantages.len(), 8);

    // The successor of a turn's last token is the next turn's first: worked by hand.
    let raw = gae(&[0.0, 0.0, 0.0, 1.0], &[0.4, 0.5, 0.6, 0.7], 0.9, 0.0);
    assert!((raw[1] - (0.9 * 0.6 - 0.5)).abs() < 1e-12);
}

#[test]
fn group_ids_unique_per_row_are_an_error_and_not_a_raw_score() {
    let batch = RewardBatch::new(&[1.0, 0.0, 1.0], &[0, 1, 2], &[1, 1, 1]).unwrap();
    for name in ["rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"] {
        let mut algorithm = name.parse::<AlgorithmConfig>().unwrap().build().unwrap();
        assert_eq!(algorithm.min_group_size(), 2);
        let error = algorithm.advantages(&batch).unwrap_err();
        assert!(matches!(error, AlgorithmError::GroupTooSmall { size: 1, needed: 2, .. }), "{name}: {error}");
    }
}

#[test]
fn a_ragged_last_mini_batch_is_not_weighted_like_a_full_one() {
    // Five equal sequences in mini-batches of two, two and one.
    for aggregation in [Aggregation::TokenMean, Aggregation::SequenceMean, Aggregation::SequenceSumOverConstant(3)] {
        let share = |lengths: &[usize]| aggregation.mini_batch_weights(lengths, 2).iter().sum::<f32>();
        let (full, ragged) = (share(&[3; 2]), share(&[3]));
        assert!((full - 2.0 * ragged).abs() < 1e-6, "{aggregation:?}: {full}, {ragged}");
        assert!((full - 1.0).abs() < 1e-6, "{aggregation:?}");
    }
}
