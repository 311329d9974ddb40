//! Every estimator, loss and gradient against reference implementations.
//!
//! `golden/rl_oracles.json.gz` was made by `golden/gen_rl_fixtures.py` from verl 0.9.1 and ZeroSearch's
//! fork of it. `ZEROSEARCH_RL_GOLDEN` names another file of the same form, plain or gzipped, to
//! read instead. Where we differ from an oracle on purpose, the case says why.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use serde_json::Value;
use zerosearch_algorithms::*;

/// Relative to the value.
const RELATIVE: f64 = 1e-5;
/// Relative to the largest value of the array, for values near zero: the oracles compute in f32.
const NEAR_ZERO: f64 = 1e-6;

const CONSTANT: &str = "equal rewards are exactly zero here; the oracle divides its rounding error by a small number";

enum Outcome {
    Agrees,
    /// Differs where we mean to, and nowhere else.
    Differs(&'static str),
    Skipped(String),
}

#[test]
fn reference_implementations_agree() {
    let given = std::env::var_os("ZEROSEARCH_RL_GOLDEN").map(PathBuf::from);
    let bundled = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rl_oracles.json.gz");
    let cases = read_cases(&given.clone().unwrap_or_else(bundled));

    let (mut agree, mut differ, mut skipped) = (0, BTreeMap::new(), BTreeMap::new());
    let mut failures = Vec::new();
    for case in &cases {
        match check(case) {
            Ok(Outcome::Agrees) => agree += 1,
            Ok(Outcome::Differs(reason)) => *differ.entry(reason.to_owned()).or_insert(0) += 1,
            Ok(Outcome::Skipped(reason)) => *skipped.entry(reason).or_insert(0) += 1,
            Err(message) => failures.push(format!("{}: {message}", case["name"])),
        }
    }

    println!("{} cases: {agree} agree, {} failed", cases.len(), failures.len());
    for (title, reasons) in [("differ on purpose", &differ), ("skipped", &skipped)] {
        for (reason, count) in reasons {
            println!("  {count:4} {title}: {reason}");
        }
    }
    assert!(failures.is_empty(), "{} of {} cases disagree:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(agree > 0, "no case was checked");
    if given.is_none() {
        let count = |reasons: &BTreeMap<String, usize>| reasons.values().sum::<usize>();
        assert_eq!((agree, count(&differ), count(&skipped)), (666, 18, 0), "agree, differ, skipped");
    }
}

fn read_cases(path: &PathBuf) -> Vec<Value> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(case: &Value) -> Result<Outcome, String> {
    let (oracle, function) = (text(&case["oracle"]), text(&case["fn"]));
    let (params, inputs, outputs) = (&case["params"], &case["inputs"], &case["outputs"]);
    match function {
        "grpo"
        | "dr_grpo"
        | "grpo_vectorized"
        | "rloo"
        | "rloo_vectorized"
        | "reinforce"
        | "reinforce_plus_plus_baseline"
        | "opo" => outcome_advantages(function, params, inputs, outputs),
        "reinforce_plus_plus" => discounted_advantages(params, inputs, outputs),
        "gae" | "gae_zerosearch" => generalised_advantages(oracle, params, inputs, outputs),
        "kl_penalty" => kl_penalty(params, inputs, outputs),
        "policy_loss" => policy_loss(params, inputs, outputs),
        "value_loss" => value_loss(params, inputs, outputs),
        "remax" => greedy_baseline(inputs, outputs),
        _ => Ok(Outcome::Skipped(format!("unknown function `{function}`"))),
    }
}

/// Estimators that give all tokens of a sequence one advantage.
fn outcome_advantages(function: &str, params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let rewards: Vec<f32> =
        rows(&inputs["token_level_rewards"]).iter().map(|row| row.iter().sum::<f64>() as f32).collect();
    let groups: Vec<usize> = match &inputs["index"] {
        Value::Array(ids) => ids.iter().map(|id| number(id) as usize).collect(),
        _ => vec![0; rewards.len()],
    };
    let batch = RewardBatch::new(&rewards, &groups, &mask.lengths).map_err(|error| error.to_string())?;
    let epsilon = params["epsilon"].as_f64().unwrap_or(1e-6);
    let mut algorithm: Box<dyn Algorithm> = match function {
        "grpo" | "grpo_vectorized" => Box::new(Grpo { epsilon, ..Default::default() }),
        "dr_grpo" => Box::new(DrGrpo::default()),
        "rloo" | "rloo_vectorized" => Box::new(Rloo::default()),
        "reinforce" => Box::new(Reinforce::default()),
        "opo" => Box::new(Opo::default()),
        _ => Box::new(ReinforcePp { group_baseline: true, ..Default::default() }),
    };
    if batch.groups().values().any(|rows| rows.len() < algorithm.min_group_size()) {
        return match algorithm.advantages(&batch) {
            Err(AlgorithmError::GroupTooSmall { .. }) => {
                Ok(Outcome::Differs("a group of one is refused, not scored raw"))
            }
            other => Err(format!("a group of one gave {other:?}")),
        };
    }
    let found = algorithm.advantages(&batch).map_err(|error| error.to_string())?;
    // verl returns the advantage again as `returns`; ours are the sequence's reward, so only advantages compare.
    let expected = mask.flatten(&outputs["advantages"]);
    let mut compared = expected.clone();
    if function.starts_with("grpo") {
        let constant = batch.informative().into_iter().zip(mask.ranges()).filter(|(informative, _)| !informative);
        for (_, range) in constant {
            compared[range].iter_mut().filter(|value| value.abs() < 0.2).for_each(|value| *value = 0.0);
        }
    }
    if function == "reinforce_plus_plus_baseline" && batch.informative().iter().all(|informative| !informative) {
        compared.fill(0.0);
    }
    compare("advantages", &found.advantages, &compared)?;
    Ok(if compared == expected { Outcome::Agrees } else { Outcome::Differs(CONSTANT) })
}

fn greedy_baseline(inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let sequences = mask.lengths.len();
    let (rewards, groups) = (vec![0.0; sequences], (0..sequences).collect::<Vec<_>>());
    let token_rewards = mask.flatten_f32(&inputs["token_level_rewards"]);
    let baselines: Vec<f32> =
        inputs["reward_baselines"].as_array().into_iter().flatten().map(|v| number(v) as f32).collect();
    let run = || {
        let batch = RewardBatch::new(&rewards, &groups, &mask.lengths)?;
        ReMax::default().advantages(&batch.with_token_rewards(&token_rewards)?.with_baselines(&baselines)?)
    };
    let found = run().map_err(|error: AlgorithmError| error.to_string())?;
    compare("advantages", &found.advantages, &mask.flatten(&outputs["advantages"]))?;
    compare("returns", &found.returns, &mask.flatten(&outputs["returns"]))?;
    Ok(Outcome::Agrees)
}

fn discounted_advantages(params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let found = dense(&mut ReinforcePp { gamma: number(&params["gamma"]), ..Default::default() }, &mask, inputs)?;
    compare("returns", &found.returns, &mask.flatten(&outputs["returns"]))?;
    if found.returns.iter().all(|value| *value == found.returns[0]) {
        compare("advantages", &found.advantages, &vec![0.0; found.returns.len()])?;
        return Ok(Outcome::Differs(CONSTANT));
    }
    compare("advantages", &found.advantages, &mask.flatten(&outputs["advantages"]))?;
    Ok(Outcome::Agrees)
}

fn generalised_advantages(oracle: &str, params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let ppo = Ppo { gamma: number(&params["gamma"]), lambda: number(&params["lam"]), ..Default::default() };
    let raw = dense(&mut Ppo { whiten: false, ..ppo.clone() }, &mask, inputs)?;
    let expected = mask.flatten(&outputs["advantages_raw"]);
    if oracle == "zerosearch" && compare("raw advantages", &raw.advantages, &expected).is_err() {
        // It also steps through documents and padding; a sequence that has neither must still agree.
        for (sequence, range) in mask.ranges().enumerate() {
            if mask.rows[sequence].iter().all(|trained| *trained) {
                compare("raw advantages of an unmasked row", &raw.advantages[range.clone()], &expected[range])?;
            }
        }
        return Ok(Outcome::Differs("ZeroSearch's GAE steps through document and padding tokens, ours never does"));
    }
    compare("raw advantages", &raw.advantages, &expected)?;
    compare("returns", &raw.returns, &mask.flatten(&outputs["returns"]))?;
    let whitened = dense(&mut ppo.clone(), &mask, inputs)?;
    compare("whitened advantages", &whitened.advantages, &mask.flatten(&outputs["advantages_whitened"]))?;
    Ok(Outcome::Agrees)
}

/// Runs an estimator on rewards given token by token.
fn dense(algorithm: &mut dyn Algorithm, mask: &Mask, inputs: &Value) -> Result<Advantages, String> {
    let sequences = mask.lengths.len();
    let (rewards, groups) = (vec![0.0; sequences], (0..sequences).collect::<Vec<_>>());
    let token_rewards = mask.flatten_f32(&inputs["token_level_rewards"]);
    let values = inputs.get("values").map(|values| mask.flatten_f32(values));
    let mut run = || {
        let mut batch = RewardBatch::new(&rewards, &groups, &mask.lengths)?.with_token_rewards(&token_rewards)?;
        if let Some(values) = &values {
            batch = batch.with_values(values)?;
        }
        algorithm.advantages(&batch)
    };
    run().map_err(|error: AlgorithmError| error.to_string())
}

fn kl_penalty(params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let kind = text(&params["kind"]);
    let estimator = match kind.trim_end_matches('+') {
        "k1" => KlEstimator::K1,
        "k2" => KlEstimator::K2,
        "k3" => KlEstimator::K3,
        "abs" => KlEstimator::Abs,
        other => return Ok(Outcome::Skipped(format!("KL estimator `{other}` is not offered"))),
    };
    let mask = Mask::of(inputs);
    let expected = mask.flatten(&outputs["kl"]);
    if estimator == KlEstimator::K3 && expected.iter().any(|value| value.abs() >= 10.0) {
        return Ok(Outcome::Skipped("verl holds k3 below 10, which silences the tokens furthest away".into()));
    }
    let evaluate = |estimator: KlEstimator| {
        let logprobs = mask.tensor(&inputs["log_prob"]).require_grad();
        let kl = estimator.per_token(logprobs.clone(), mask.tensor(&inputs["ref_log_prob"]));
        let gradient = floats(logprobs.grad(&kl.clone().sum().backward()).unwrap());
        (floats(kl), gradient)
    };
    let (value, mut gradient) = evaluate(estimator);
    if kind.ends_with('+') {
        // verl's "+" has the estimator's value and k2's gradient: here that is k2 with the other one logged.
        gradient = evaluate(KlEstimator::K2).1;
    }
    compare("kl", &value, &expected)?;
    compare("gradient", &gradient, &mask.flatten(&outputs["grad_log_prob_of_masked_sum"]))?;
    Ok(Outcome::Agrees)
}

fn policy_loss(params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let Some(aggregation) = aggregation(text(&params["agg"]), &mask) else {
        return Ok(Outcome::Skipped(format!("aggregation `{}` is not offered", params["agg"])));
    };
    let range = |name: &str| params[name].as_f64().or(params["clip_ratio"].as_f64()).or(params["cliprange"].as_f64());
    let (Some(low), Some(high)) = (range("clip_ratio_low"), range("clip_ratio_high")) else {
        return Err("no clip range".into());
    };
    let clip = Clip { low, high, dual: None };
    let dual = Clip { dual: params["clip_ratio_c"].as_f64(), ..clip };
    let (kl, entropy_coefficient) = (Kl::NONE, 0.0);
    let algorithm: Box<dyn Algorithm> = match text(&params["loss"]) {
        "ppo" | "ppo_dual_clip" => {
            Box::new(Ppo { clip: dual, aggregation, kl, entropy_coefficient, ..Default::default() })
        }
        "dapo_clip_higher" => Box::new(Dapo { clip: dual, aggregation, kl, entropy_coefficient, ..Default::default() }),
        "gspo" | "gspo_wide" => Box::new(Gspo { clip, aggregation, kl, entropy_coefficient, ..Default::default() }),
        "cispo" => Box::new(Cispo { clip, aggregation, kl, entropy_coefficient, ..Default::default() }),
        other => return Ok(Outcome::Skipped(format!("policy loss `{other}` is not offered"))),
    };
    let logprobs = mask.tensor(&inputs["log_prob"]).require_grad();
    let output = algorithm.loss(LossInputs {
        logprobs: logprobs.clone(),
        old_logprobs: mask.tensor(&inputs["old_log_prob"]),
        ref_logprobs: None,
        entropy: None,
        advantages: mask.tensor(&inputs["advantages"]),
        weights: tensor(&aggregation.weights(&mask.lengths)),
        importance: None,
        sequence_lengths: mask.lengths.clone(),
    });
    let output = output.map_err(|error| error.to_string())?;
    let gradient = floats(logprobs.grad(&output.loss.backward()).unwrap());

    // A loss near zero is a difference of larger terms, and f32 resolves those: each is as large as its gradient.
    let expected_gradient = mask.flatten(&outputs["grad_log_prob"]);
    let terms: f64 = expected_gradient.iter().map(|slope| slope.abs()).sum();
    let metrics = output.sums.read().map_err(|error| error.to_string())?;
    let (loss, expected_loss) = (metrics.loss, number(&outputs["loss"]));
    if !within(loss, expected_loss, terms) {
        return Err(format!("loss is {loss}, expected {expected_loss}"));
    }
    compare("gradient", &gradient, &expected_gradient)?;
    mask.untrained_are_zero(&outputs["grad_log_prob"])?;
    let scalars = BTreeMap::from(metrics.scalars());
    for name in ["pg_clipfrac", "ppo_kl"] {
        let full = format!("actor/{name}");
        let short = name.trim_start_matches("pg_");
        if let Some(expected) = outputs[&full].as_f64().or(outputs[short].as_f64()) {
            // Both are means of terms of order one.
            let found = scalars[full.as_str()];
            if !within(found, expected, 1.0) {
                return Err(format!("{full} is {found}, expected {expected}"));
            }
        }
    }
    Ok(Outcome::Agrees)
}

fn value_loss(params: &Value, inputs: &Value, outputs: &Value) -> Result<Outcome, String> {
    let mask = Mask::of(inputs);
    let loss = ValueLoss { clip: params["cliprange_value"].as_f64(), aggregation: Aggregation::TokenMean };
    let values = mask.tensor(&inputs["vpreds"]).require_grad();
    let output = loss.loss(ValueInputs {
        values: values.clone(),
        old_values: mask.tensor(&inputs["values"]),
        returns: mask.tensor(&inputs["returns"]),
        weights: tensor(&loss.aggregation.weights(&mask.lengths)),
    });
    let output = output.map_err(|error| error.to_string())?;
    let gradient = floats(values.grad(&output.loss.backward()).unwrap());
    let metrics = output.sums.read().map_err(|error| error.to_string())?;
    compare("loss", &[metrics.vf_loss as f32], &[number(&outputs["loss"])])?;
    compare("gradient", &gradient, &mask.flatten(&outputs["grad_vpreds"]))?;
    compare("clipfrac", &[(metrics.clipped / metrics.tokens as f64) as f32], &[number(&outputs["clipfrac"])])?;
    Ok(Outcome::Agrees)
}

fn aggregation(name: &str, mask: &Mask) -> Option<Aggregation> {
    match name {
        "token-mean" => Some(Aggregation::TokenMean),
        "seq-mean-token-mean" => Some(Aggregation::SequenceMean),
        "seq-mean-token-sum" => Some(Aggregation::SequenceSumOverConstant(1)),
        "seq-mean-token-sum-norm" => Some(Aggregation::SequenceSumOverConstant(mask.rows[0].len())),
        _ => None,
    }
}

/// The oracles' padded rows with a mask, and the way from there to our trained tokens laid end to end.
struct Mask {
    rows: Vec<Vec<bool>>,
    lengths: Vec<usize>,
}

impl Mask {
    fn of(inputs: &Value) -> Self {
        let rows: Vec<Vec<bool>> =
            rows(&inputs["response_mask"]).iter().map(|row| row.iter().map(|bit| *bit != 0.0).collect()).collect();
        let lengths = rows.iter().map(|row| row.iter().filter(|bit| **bit).count()).collect();
        Self { rows, lengths }
    }

    fn flatten(&self, array: &Value) -> Vec<f64> {
        self.select(array, true)
    }

    fn flatten_f32(&self, array: &Value) -> Vec<f32> {
        self.flatten(array).into_iter().map(|value| value as f32).collect()
    }

    fn tensor(&self, array: &Value) -> Tensor<1> {
        tensor(&self.flatten_f32(array))
    }

    fn untrained_are_zero(&self, array: &Value) -> Result<(), String> {
        match self.select(array, false).iter().all(|value| *value == 0.0) {
            true => Ok(()),
            false => Err("the oracle has a gradient at a token that we leave out".into()),
        }
    }

    fn select(&self, array: &Value, trained: bool) -> Vec<f64> {
        let values = rows(array);
        let bits = self.rows.iter().flatten();
        values.iter().flatten().zip(bits).filter(|(_, bit)| **bit == trained).map(|(value, _)| *value).collect()
    }

    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.lengths.iter().scan(0, |start, length| {
            *start += length;
            Some(*start - length..*start)
        })
    }
}

fn compare(what: &str, found: &[f32], expected: &[f64]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", found.len(), expected.len()));
    }
    let scale = expected.iter().fold(0.0_f64, |scale, value| scale.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        if !within(f64::from(*found), *expected, scale) {
            return Err(format!("{what}[{index}] is {found}, expected {expected}"));
        }
    }
    Ok(())
}

/// Whether two numbers made of terms of size `scale` agree; NaN never does.
fn within(found: f64, expected: f64, scale: f64) -> bool {
    (found - expected).abs() <= RELATIVE * expected.abs() + NEAR_ZERO * scale
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_floats(values, &Device::flex().autodiff())
}

fn floats(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn rows(array: &Value) -> Vec<Vec<f64>> {
    array.as_array().unwrap().iter().map(|row| row.as_array().unwrap().iter().map(number).collect()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
