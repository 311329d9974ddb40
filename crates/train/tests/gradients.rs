//! The gradient of every loss with respect to a model's weights: what finite differences say, and what must not matter.

mod fixture;

use burn::tensor::{Tensor, TensorData};
use fixture::{Fixture, config, step};
use rand_chacha::rand_core::Rng;
use zerosearch_algorithms::{
    Aggregation, Algorithm, AlgorithmConfig, Kl, LossInputs, Reinforce, ValueInputs, ValueLoss,
};
use zerosearch_generate::Stream;
use zerosearch_lm::{Decoder, Gradients, HostTensor, HostWeights, ScoredSequence, Weight};

/// A sequence as the update sees it.
#[derive(Clone)]
struct Row {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    /// One for each trained token: log-probabilities before the update, under the reference, and advantages.
    old: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    /// Whether it is in the batch; if not it only stands beside the others and weighs nothing.
    counts: bool,
}

/// How far the policy has moved since it sampled: far from every corner of a clip, on both sides and inside.
const MOVED: [f32; 3] = [0.7, -0.7, 0.05];
const FROM_REFERENCE: [f32; 4] = [0.4, -0.3, 0.2, -0.5];

/// Rollouts of the fixture's model as it is.
fn rows(fixture: &Fixture) -> Vec<Row> {
    let report = step(&mut fixture.trainer(config("grpo")));
    let advantages = [1.0, -0.5, 0.8, -1.2, 0.3, -0.7];
    let mut token = 0;
    let row = |(rollout, advantage): (&zerosearch_rollout::Rollout, f32)| {
        let logprobs = rollout.trajectory.logprobs();
        let indices = token..token + logprobs.len();
        token = indices.end;
        let shifted = |shifts: &[f32]| {
            logprobs.iter().zip(indices.clone()).map(|(now, i)| now - shifts[i % shifts.len()]).collect()
        };
        Row {
            tokens: rollout.trajectory.tokens(),
            positions: rollout.trajectory.mask().trained_positions().collect(),
            old: shifted(&MOVED),
            reference: shifted(&FROM_REFERENCE),
            advantages: vec![advantage; logprobs.len()],
            counts: true,
        }
    };
    report.samples.iter().map(|sample| &sample.rollout).zip(advantages).map(row).collect()
}

/// The loss's weights of each row's tokens, over the whole batch.
fn weights(aggregation: Aggregation, rows: &[Row]) -> Vec<Vec<f32>> {
    let length = |row: &Row| if row.counts { row.positions.len() } else { 0 };
    let mut all = aggregation.weights(&rows.iter().map(length).collect::<Vec<_>>()).into_iter();
    rows.iter()
        .map(|row| row.positions.iter().map(|_| if row.counts { all.next().unwrap() } else { 0.0 }).collect())
        .collect()
}

fn scored<'a>(part: &[&'a Row]) -> Vec<ScoredSequence<'a>> {
    part.iter().map(|row| ScoredSequence { tokens: &row.tokens, positions: &row.positions }).collect()
}

/// The loss of some of the rows as one micro-batch, and its gradient.
fn loss(algorithm: &dyn Algorithm, decoder: &Decoder, rows: &[Row], part: &[usize]) -> (f64, Tensor<1>) {
    let weights = weights(algorithm.terms().aggregation, rows);
    let chosen: Vec<&Row> = part.iter().map(|index| &rows[*index]).collect();
    let tensor = |values: Vec<f32>| {
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), decoder.device())
    };
    let all = |of: fn(&Row) -> &Vec<f32>| tensor(chosen.iter().flat_map(|row| of(row).clone()).collect());
    let (logprobs, entropy) = decoder.score(&scored(&chosen));
    let output = algorithm.loss(LossInputs {
        logprobs,
        old_logprobs: all(|row| &row.old),
        ref_logprobs: Some(all(|row| &row.reference)),
        entropy: Some(entropy),
        advantages: all(|row| &row.advantages),
        importance: None,
        weights: tensor(part.iter().flat_map(|index| weights[*index].clone()).collect()),
        sequence_lengths: chosen.iter().map(|row| row.positions.len()).collect(),
    });
    let output = output.unwrap();
    (output.sums.read().unwrap().loss, output.loss)
}

/// The gradient of all micro-batches together.
fn gradient(
    algorithm: &dyn Algorithm,
    fixture: &Fixture,
    model: &HostWeights,
    rows: &[Row],
    parts: &[Vec<usize>],
) -> HostWeights {
    let decoder = Decoder::trainable(&fixture.model.config, model, &fixture.device).unwrap();
    let mut sum = Gradients::default();
    for part in parts {
        sum.add(Gradients::of(loss(algorithm, &decoder, rows, part).1, decoder.trained()));
    }
    host(&sum, &decoder)
}

fn host(gradients: &Gradients, decoder: &Decoder) -> HostWeights {
    let mut host = HostWeights::default();
    let names = decoder.trained().into_iter().map(|(name, _)| name);
    names.for_each(|name| host.insert(name, gradients.get(name).unwrap().to_host()));
    host
}

fn dot(a: &HostWeights, b: &HostWeights) -> f64 {
    let pairs = a.iter().flat_map(|(name, a)| a.values.iter().zip(&b.get(name).unwrap().values));
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `a + factor·b`.
fn plus(a: &HostWeights, factor: f64, b: &HostWeights) -> HostWeights {
    let mut sum = HostWeights::default();
    for (name, a) in a.iter() {
        let values = a.values.iter().zip(&b.get(name).unwrap().values);
        let values = values.map(|(a, b)| (f64::from(*a) + factor * f64::from(*b)) as f32).collect();
        sum.insert(name, HostTensor { shape: a.shape.clone(), values });
    }
    sum
}

/// Central differences of `loss` are the gradient: along directions that are half the gradient's own and half random, in
/// which every weight has a part, and along single weights.
fn confirm(what: &str, model: &HostWeights, gradient: &HostWeights, loss: impl Fn(&HostWeights) -> f64) {
    let norm = dot(gradient, gradient).sqrt();
    assert!(norm > 1e-3, "{what}: the gradient is {norm}, which says nothing");
    let along = |direction: &HostWeights, step: f64, what: &str| {
        let slope = (loss(&plus(model, step, direction)) - loss(&plus(model, -step, direction))) / (2.0 * step);
        let expected = dot(gradient, direction);
        assert!((slope - expected).abs() <= 5e-3 * norm, "{what}: slope {slope}, gradient {expected} of {norm}");
    };
    let mut rng = Stream { purpose: "directions", ..Stream::default() }.rng();
    let nothing = plus(gradient, -1.0, gradient);
    for number in 0..3 {
        let mut random = HostWeights::default();
        for (name, tensor) in model.iter() {
            let draw = |_: &f32| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) as f32;
            random.insert(
                name,
                HostTensor { shape: tensor.shape.clone(), values: tensor.values.iter().map(draw).collect() },
            );
        }
        let unit = plus(&nothing, 1.0 / dot(&random, &random).sqrt(), &random);
        along(&plus(&unit, 1.0 / norm, gradient), 1e-2, &format!("{what}, direction {number}"));
    }
    for name in ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"] {
        let values = &gradient.get(name).unwrap().values;
        let steepest = (0..values.len()).max_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs())).unwrap();
        let mut one = nothing.clone();
        let mut tensor = one.get(name).unwrap().clone();
        tensor.values[steepest] = 1.0;
        one.insert(name, tensor);
        along(&one, 1e-2, &format!("{what}, {name}[{steepest}]"));
    }
}

fn algorithm(json: &str) -> Box<dyn Algorithm> {
    serde_json::from_str::<AlgorithmConfig>(json).unwrap().build().unwrap()
}

#[test]
fn finite_differences_confirm_every_policy_loss() {
    let fixture = Fixture::new();
    let rows = rows(&fixture);
    let everything = [(0..rows.len()).collect::<Vec<_>>()];
    let mut cases: Vec<String> = AlgorithmConfig::NAMES.iter().map(|name| format!(r#"{{"name": "{name}"}}"#)).collect();
    for estimator in ["k1", "k2", "k3", "abs"] {
        cases.push(format!(r#"{{"name": "grpo", "kl": {{"estimator": "{estimator}", "coefficient": 0.5}}}}"#));
    }
    cases.push(r#"{"name": "grpo", "entropy_coefficient": 0.5}"#.into());
    cases.push(r#"{"name": "ppo", "clip": {"low": 0.2, "high": 0.2, "dual": 1.5}}"#.into());
    cases.push(r#"{"name": "reinforce", "clip": {"low": 0.2, "high": 0.2}}"#.into());
    cases.push(r#"{"name": "gspo", "clip": {"low": 0.9, "high": 9.0}}"#.into());
    for case in cases {
        let algorithm = algorithm(&case);
        let gradient = gradient(algorithm.as_ref(), &fixture, &fixture.model.weights, &rows, &everything);
        let mut integral = (algorithm, rows.clone());
        if integral.0.name() == "cispo" {
            // Its importance weights are constants: the gradient is that of REINFORCE with advantages so weighted.
            let plain = Reinforce { kl: Kl::NONE, entropy_coefficient: 0.0, ..Reinforce::default() };
            integral.0 = Box::new(plain);
            let advantages = integral.1.iter_mut().flat_map(|row| &mut row.advantages);
            for (token, advantage) in advantages.enumerate() {
                *advantage *= MOVED[token % MOVED.len()].exp().clamp(0.0, 1.28);
            }
        }
        confirm(&case, &fixture.model.weights, &gradient, |weights| {
            let decoder = Decoder::frozen(&fixture.model.config, weights, &fixture.device).unwrap();
            loss(integral.0.as_ref(), &decoder, &integral.1, &everything[0]).0
        });
    }
}

#[test]
fn finite_differences_confirm_the_value_loss() {
    const HEAD: &str = "value_head.weight";
    let fixture = Fixture::new();
    let rows = rows(&fixture);
    let chosen: Vec<&Row> = rows.iter().collect();
    let mut model = HostWeights::clone(&fixture.model.weights);
    let width = fixture.model.config.hidden_size;
    model.insert(
        HEAD,
        HostTensor { shape: vec![1, width], values: (0..width).map(|i| (i as f32).sin() / 8.0).collect() },
    );
    let values = |decoder: &Decoder| {
        let Some(Weight::Matrix(head)) = decoder.extra(HEAD) else { panic!("no value head") };
        let features = decoder.features(&scored(&chosen));
        let count = features.dims()[0];
        features.matmul(head.clone().transpose()).reshape([count])
    };
    let start = Decoder::frozen(&fixture.model.config, &model, &fixture.device).unwrap();
    let now = values(&start).into_data().try_to_vec::<f32>().unwrap();
    let constant = |shifts: &[f32]| {
        let shifted: Vec<f32> = now.iter().enumerate().map(|(i, value)| value - shifts[i % shifts.len()]).collect();
        Tensor::<1>::from_floats(shifted.as_slice(), &fixture.device)
    };
    for clip in [None, Some(0.5)] {
        let value_loss = ValueLoss { clip, aggregation: Aggregation::SequenceMean };
        let output = |decoder: &Decoder| {
            let weights = weights(value_loss.aggregation, &rows).concat();
            let inputs = ValueInputs {
                values: values(decoder),
                old_values: constant(&MOVED),
                returns: constant(&FROM_REFERENCE),
                weights: Tensor::<1>::from_floats(weights.as_slice(), &fixture.device),
            };
            value_loss.loss(inputs).unwrap()
        };
        let decoder = Decoder::trainable(&fixture.model.config, &model, &fixture.device).unwrap();
        let found = output(&decoder);
        assert_eq!(found.sums.read().unwrap().clipped > 0.0, clip.is_some());
        let gradients = Gradients::of(found.loss, decoder.trained());
        // Zero for weights that no value depends on: the output projection, where it is not the embedding.
        let mut gradient = plus(&model, -1.0, &model);
        for (name, _) in model.iter() {
            gradients.get(name).iter().for_each(|tensor| gradient.insert(name, tensor.to_host()));
        }
        confirm(&format!("value loss, clip {clip:?}"), &model, &gradient, |weights| {
            let frozen = Decoder::frozen(&fixture.model.config, weights, &fixture.device).unwrap();
            output(&frozen).sums.read().unwrap().vf_loss
        });
    }
}

fn assert_same(found: &HostWeights, expected: &HostWeights, what: &str) {
    for (name, expected) in expected.iter() {
        for (found, expected) in found.get(name).unwrap().values.iter().zip(&expected.values) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{what}, {name}: {found}, {expected}");
        }
    }
}

#[test]
fn order_micro_batches_and_a_neighbour_change_no_gradient() {
    let fixture = Fixture::new();
    let rows = rows(&fixture);
    let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap();
    // It weighs nothing, and where sequences are padded it pads all others.
    let neighbour = Row {
        tokens: (0..longest as u32 + 9).map(|i| 10 + i % 50).collect(),
        positions: vec![3, longest + 8],
        old: vec![-1.0; 2],
        reference: vec![-1.0; 2],
        advantages: vec![3.0; 2],
        counts: false,
    };
    let beside = [rows.clone(), vec![neighbour]].concat();
    for name in AlgorithmConfig::NAMES {
        let algorithm = algorithm(&format!(r#"{{"name": "{name}"}}"#));
        let of = |rows: &[Row], parts: &[Vec<usize>]| {
            gradient(algorithm.as_ref(), &fixture, &fixture.model.weights, rows, parts)
        };
        let whole = of(&rows, &[vec![0, 1, 2, 3, 4, 5]]);
        assert_same(&of(&rows, &[vec![3, 5, 0, 4, 2, 1]]), &whole, &format!("{name}: another order"));
        assert_same(&of(&rows, &[vec![4], vec![0, 1, 5], vec![3, 2]]), &whole, &format!("{name}: micro-batches"));
        assert_same(&of(&beside, &[vec![0, 1, 6, 2, 3, 4, 5]]), &whole, &format!("{name}: a neighbour"));
    }
}

/// No token that the policy wrote depends on an observation after its last one.
#[test]
fn an_observation_behind_the_last_trained_token_changes_no_gradient() {
    let fixture = Fixture::new();
    let rows = rows(&fixture);
    let with = |observation: &[u32]| {
        let mut rows = rows.clone();
        rows.iter_mut().for_each(|row| row.tokens.extend(observation));
        let parts = [vec![0, 1, 2], vec![3, 4, 5]];
        gradient(algorithm(r#"{"name": "grpo"}"#).as_ref(), &fixture, &fixture.model.weights, &rows, &parts)
    };
    assert_eq!(with(&[20, 21, 22]), with(&[0, 40, 7]));
    assert_same(&with(&[]), &with(&[20, 21, 22]), "an observation at the end");
}

/// No id is special, as what fills a ragged batch somewhere or otherwise: with two tokens' numbers
/// exchanged in texts and weights, the gradient is the same one with their rows exchanged.
#[test]
fn another_pad_id_changes_no_gradient() {
    let fixture = Fixture::new();
    let rows = rows(&fixture);
    let lengths: Vec<usize> = rows.iter().map(|row| row.positions.last().copied().unwrap()).collect();
    assert!(lengths.iter().any(|length| *length < lengths[0].max(lengths[1])), "nothing is ragged: {lengths:?}");
    let other = rows[0].tokens[rows[0].positions[0]];
    let exchanged_id = |id: u32| {
        if id == 0 {
            other
        } else if id == other {
            0
        } else {
            id
        }
    };
    let exchanged = |weights: &HostWeights| {
        let mut exchanged = weights.clone();
        let width = fixture.model.config.hidden_size;
        for (name, tensor) in
            weights.iter().filter(|(name, _)| name.contains("embed_tokens") || name.contains("lm_head"))
        {
            let row = |id: usize| &tensor.values[id * width..(id + 1) * width];
            let rows = (0..fixture.model.config.vocab_size as u32).map(|id| row(exchanged_id(id) as usize));
            exchanged
                .insert(name, HostTensor { shape: tensor.shape.clone(), values: rows.flatten().copied().collect() });
        }
        exchanged
    };
    let mut others = rows.clone();
    others.iter_mut().flat_map(|row| &mut row.tokens).for_each(|id| *id = exchanged_id(*id));
    let everything = [vec![0, 1, 2, 3, 4, 5]];
    for name in ["grpo", "gspo"] {
        let algorithm = algorithm(&format!(r#"{{"name": "{name}"}}"#));
        let of = |model: &HostWeights, rows: &[Row]| gradient(algorithm.as_ref(), &fixture, model, rows, &everything);
        let (expected, found) = (of(&fixture.model.weights, &rows), of(&exchanged(&fixture.model.weights), &others));
        assert_same(&exchanged(&found), &expected, name);
    }
}
