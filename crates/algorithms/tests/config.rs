//! Configurations: every value has a default, unknown keys and impossible values are refused by name.

use burn::tensor::{Device, Tensor};
use zerosearch_algorithms::*;

fn parse(text: &str) -> Result<AlgorithmConfig, toml::de::Error> {
    toml::from_str(text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap().build().unwrap_err().to_string()
}

#[test]
fn every_algorithm_has_defaults_that_build_and_survive_a_round_trip() {
    for name in AlgorithmConfig::NAMES {
        let config: AlgorithmConfig = name.parse().unwrap();
        assert_eq!(parse(&format!("name = \"{name}\"")).unwrap(), config);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
        assert_eq!(config.build().unwrap().name(), *name);
    }
}

#[test]
fn values_reach_the_algorithm() {
    let text = r#"
        name = "dapo"
        clip = { low = 0.1, high = 0.3, dual = 3.0 }
        aggregation = { sequence_sum_over_constant = 64 }
        kl = { estimator = "k2", coefficient = 0.05 }
        overlong = { limit = 100, buffer = 20, penalty = 1.0 }
    "#;
    let AlgorithmConfig::Dapo(dapo) = parse(text).unwrap() else { panic!("not DAPO") };
    assert_eq!(dapo.clip, Clip { low: 0.1, high: 0.3, dual: Some(3.0) });
    assert_eq!(dapo.aggregation, Aggregation::SequenceSumOverConstant(64));
    assert_eq!(dapo.kl, Kl { estimator: KlEstimator::K2, coefficient: 0.05 });
    assert_eq!(dapo.overlong, Some(Overlong { limit: 100, buffer: 20, penalty: 1.0 }));
    assert!(dapo.dynamic_sampling);

    for (value, baseline) in [
        ("\"none\"", Baseline::None),
        ("\"batch_mean\"", Baseline::BatchMean),
        ("{ running = { decay = 0.9 } }", Baseline::Running { decay: 0.9 }),
    ] {
        let config = parse(&format!("name = \"reinforce\"\nbaseline = {value}")).unwrap();
        assert_eq!(config, AlgorithmConfig::Reinforce(Reinforce { baseline, ..Default::default() }));
    }
}

#[test]
fn unknown_names_and_keys_are_refused() {
    let error = "a2c".parse::<AlgorithmConfig>().unwrap_err().to_string();
    assert!(error.contains("no algorithm `a2c`") && error.contains("reinforce, "), "{error}");
    assert!(parse("name = \"a2c\"").unwrap_err().to_string().contains("grpo"));
    for name in AlgorithmConfig::NAMES {
        let error = parse(&format!("name = \"{name}\"\nclip_ratio = 0.2")).unwrap_err().to_string();
        assert!(error.contains("clip_ratio"), "{name}: {error}");
    }
    let error = parse("name = \"grpo\"\nkl = { estimator = \"k3\", coefficient = 0.1, beta = 1.0 }").unwrap_err();
    assert!(error.to_string().contains("beta"), "{error}");
}

#[test]
fn impossible_values_are_refused_with_their_range() {
    for (text, key) in [
        ("name = \"grpo\"\nclip = { low = -0.2, high = 0.2 }", "`clip.low` is -0.2, expected 0 to 1"),
        ("name = \"grpo\"\nclip = { low = 0.2, high = -0.2 }", "`clip.high` is -0.2"),
        ("name = \"ppo\"\nclip = { low = 0.2, high = 0.2, dual = 1.0 }", "`clip.dual` is 1"),
        ("name = \"cispo\"\nclip = { low = 0.2, high = 0.2, dual = 3.0 }", "`clip.dual` is 3"),
        ("name = \"ppo\"\ngamma = 1.5", "`gamma` is 1.5, expected 0 to 1"),
        ("name = \"ppo\"\nlambda = nan", "`lambda` is NaN"),
        ("name = \"ppo\"\nvalue_clip = -1.0", "`value_clip` is -1"),
        ("name = \"reinforce_pp\"\ngamma = -0.1", "`gamma` is -0.1"),
        ("name = \"reinforce\"\nbaseline = { running = { decay = 1.0 } }", "`baseline.running.decay` is 1"),
        ("name = \"grpo\"\nepsilon = -1e-6", "`epsilon`"),
        ("name = \"rloo\"\nentropy_coefficient = -0.1", "`entropy_coefficient` is -0.1"),
        ("name = \"gspo\"\nkl = { estimator = \"k1\", coefficient = -0.001 }", "`kl.coefficient` is -0.001"),
        ("name = \"dr_grpo\"\naggregation = { sequence_sum_over_constant = 0 }", "sequence_sum_over_constant"),
        ("name = \"dapo\"\noverlong = { limit = 10, buffer = 20, penalty = 1.0 }", "`overlong.buffer` is 20"),
    ] {
        let message = refusal(text);
        assert!(message.contains(key), "{text}: {message}");
    }
}

#[test]
fn missing_and_disagreeing_loss_inputs_are_named() {
    let device = Device::flex().autodiff();
    let tensor = |n: usize| Tensor::<1>::zeros([n], &device);
    let inputs = || LossInputs {
        logprobs: tensor(3),
        old_logprobs: tensor(3),
        ref_logprobs: Some(tensor(3)),
        entropy: Some(tensor(3)),
        advantages: tensor(3),
        weights: tensor(3),
        importance: None,
        sequence_lengths: vec![2, 1],
    };
    let refusal = |inputs: LossInputs| Grpo::default().loss(inputs).unwrap_err().to_string();
    assert!(Grpo::default().loss(inputs()).is_ok());
    assert!(refusal(LossInputs { ref_logprobs: None, ..inputs() }).contains("`ref_logprobs`"));
    assert!(refusal(LossInputs { entropy: None, ..inputs() }).contains("`entropy`"));
    assert!(
        refusal(LossInputs { advantages: tensor(4), ..inputs() }).contains("`advantages` has 4 values, expected 3")
    );
    assert!(refusal(LossInputs { importance: Some(tensor(2)), ..inputs() }).contains("`importance` has 2 values"));
    assert!(refusal(LossInputs { sequence_lengths: vec![2, 2], ..inputs() }).contains("sequence_lengths"));
    let nothing = LossInputs { logprobs: tensor(0), ..inputs() };
    assert!(refusal(nothing).contains("no trained token"));

    // Without the terms, neither is needed.
    let plain = DrGrpo::default();
    assert!(plain.loss(LossInputs { ref_logprobs: None, entropy: None, ..inputs() }).is_ok());
}
