//! Promises about `config.json`: what is accepted is understood, everything else is refused by its key.
//!
//! `PROPTEST_CASES=100000 cargo test --workspace --test model_config` looks for longer.

mod families;

use families::{FAMILIES, folder};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use zerosearch_lm::{LmError, ModelConfig};

fn text(family: &str, file: &str) -> String {
    std::fs::read_to_string(folder(family).join(file)).unwrap()
}

fn read(bytes: &[u8]) -> Result<ModelConfig, LmError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, bytes).unwrap();
    ModelConfig::read(&path).map(|(config, _)| config)
}

fn changed(family: &str, key: &str, value: Value) -> Result<ModelConfig, LmError> {
    let mut json: Map<String, Value> = serde_json::from_str(&text(family, "config.v4.json")).unwrap();
    json.insert(key.into(), value);
    read(&serde_json::to_vec(&json).unwrap())
}

/// Any JSON value of a few nodes, numbers at the borders of their types among them.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![0u64, 1, 2, 3, 64, 512, 1 << 31, 1 << 32, u64::MAX]).prop_map(Value::from),
        proptest::sample::select(vec![
            "silu",
            "gelu",
            "default",
            "llama3",
            "yarn",
            "full_attention",
            "LlamaForCausalLM",
            "qwen3",
            "1e-6"
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let keys = proptest::sample::select(vec![
        "rope_type",
        "type",
        "factor",
        "rope_theta",
        "partial_rotary_factor",
        "low_freq_factor",
        "x",
    ]);
    leaf.prop_recursive(2, 8, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner), 0..4).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_string(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

/// Replaces, removes or adds one key, at the top or inside an object.
fn mutate(json: &mut Map<String, Value>, place: prop::sample::Index, change: Option<Value>) {
    let inner = json.iter().filter_map(|(key, value)| Some((key, value.as_object()?)));
    let mut places: Vec<(Option<String>, String)> =
        inner.flat_map(|(outer, map)| map.keys().map(|key| (Some(outer.clone()), key.clone()))).collect();
    places.extend(json.keys().map(|key| (None, key.clone())));
    places
        .extend(["quantization_config", "partial_rotary_factor", "rope_parameters"].map(|key| (None, key.to_string())));
    let (outer, key) = place.get(&places).clone();
    let map = match outer.and_then(|outer| json.get_mut(&outer)).and_then(Value::as_object_mut) {
        Some(map) => map,
        None => json,
    };
    match change {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Either it is understood, and written back it is understood the same, or the message names the file.
fn assert_understood_or_refused(bytes: &[u8]) -> Result<(), TestCaseError> {
    match read(bytes) {
        Ok(config) => {
            let again = read(&serde_json::to_vec(&config.to_json()).unwrap());
            prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(config.clone()));
            if config.layers < 100 {
                prop_assert!(config.tensor_shapes().iter().all(|(_, shape)| shape.iter().all(|size| *size > 0)));
            }
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.contains("config.json: "), "{}", message);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_configuration_is_understood_or_refused(
        family in proptest::sample::select(FAMILIES.to_vec()),
        file in proptest::sample::select(vec!["config.json", "config.v4.json"]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), proptest::option::weighted(0.8, value())), 0..4),
    ) {
        let mut json: Map<String, Value> = serde_json::from_str(&text(family, file)).unwrap();
        changes.into_iter().for_each(|(place, change)| mutate(&mut json, place, change));
        assert_understood_or_refused(&serde_json::to_vec(&json).unwrap())?;
    }

    #[test]
    fn any_bytes_are_understood_or_refused(
        family in proptest::sample::select(FAMILIES.to_vec()), cut in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        assert_understood_or_refused(&bytes)?;
        let mut text = text(family, "config.json").into_bytes();
        let at = cut.index(text.len());
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        assert_understood_or_refused(&text)?;
        assert_understood_or_refused(&text[..at])?;
    }
}

#[test]
fn both_spellings_say_the_same() {
    for family in FAMILIES {
        let [new, old] = ["config.json", "config.v4.json"].map(|file| read(text(family, file).as_bytes()).unwrap());
        assert_eq!(new, old, "{family}");
    }
}

#[test]
fn what_is_not_computed_is_refused_by_its_key() {
    for (key, value, expected) in [
        ("architectures", json!(["MistralForCausalLM"]), "LlamaForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM"),
        ("model_type", json!("mistral"), "llama, as architectures says"),
        ("hidden_act", json!("gelu"), "expected silu"),
        ("use_sliding_window", json!(true), "sliding windows are not computed"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "full_attention"),
        ("quantization_config", json!({"bits": 4}), "quantized weights are not computed"),
        ("hidden_activation", json!("gelu_pytorch_tanh"), "expected silu"),
        ("final_logit_softcapping", json!(30.0), "logits are not capped"),
        ("attn_logit_softcapping", json!(50.0), "scores are not capped"),
        ("attention_multiplier", json!(0.015625), "null"),
        ("embedding_multiplier", json!(12.0), "embeddings are not scaled"),
        ("residual_multiplier", json!(0.22), "residuals are not scaled"),
        ("logits_scaling", json!(8), "logits are not scaled"),
        ("num_experts", json!(8), "mixtures of experts"),
        ("partial_rotary_factor", json!(0.5), "the whole head"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "default or llama3"),
        ("rope_scaling", json!("llama3"), "an object or null"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "`rope_scaling.low_freq_factor` is missing"),
        ("rope_theta", json!("1e6"), "a number above 0"),
        ("rms_norm_eps", json!(-1e-6), "a number above 0"),
        ("tie_word_embeddings", json!("yes"), "true or false"),
        ("num_hidden_layers", json!(4_000_000), "at most 10000"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads (4)"),
        ("num_attention_heads", json!(0), "a positive integer"),
        ("head_dim", json!(15), "an even number"),
        ("vocab_size", json!(5_000_000_000u64), "below 2^31"),
        ("vocab_size", json!(null), "missing"),
        ("max_position_embeddings", json!(0), "a positive integer"),
    ] {
        let message = changed("llama-mha-sharded", key, value).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}")) && message.contains(expected), "{key}: {message}");
    }
}

/// With these keys in the place of those that are about rotation.
fn rotated(keys: Value) -> Result<ModelConfig, LmError> {
    let mut json: Map<String, Value> = serde_json::from_str(&text("llama-mha-sharded", "config.v4.json")).unwrap();
    json.retain(|key, _| !key.starts_with("rope_"));
    json.extend(keys.as_object().unwrap().clone());
    read(&serde_json::to_vec(&json).unwrap())
}

/// The outcomes are those of transformers 5.23, where it has one.
#[test]
fn rotation_is_read_wherever_it_is_written() {
    let llama3 = |extra: Value| {
        let mut scaling = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
        scaling.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        scaling
    };
    let original = |length: u64| json!({"original_max_position_embeddings": length});
    for (keys, theta, scaled_from) in [
        (json!({}), 1e4, None),
        (json!({"rope_theta": 1e6}), 1e6, None),
        (json!({"rope_theta": 1_000_000, "rope_scaling": null, "rope_parameters": null}), 1e6, None),
        (json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_scaling": {"rope_type": "default", "rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_scaling": {"type": "default", "rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_scaling": {"rope_theta": 1_000_000}}), 1e6, None),
        (json!({"rope_theta": 1e4, "rope_scaling": {"rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_scaling": {}, "rope_parameters": {"rope_theta": 1e6}}), 1e6, None),
        (json!({"rope_theta": 1e6, "rope_scaling": {"type": "default", "mrope_section": [1, 2]}}), 1e6, None),
        (json!({"rope_theta": 1e6, "partial_rotary_factor": 1.0}), 1e6, None),
        (json!({"rope_theta": 5e5, "rope_scaling": llama3(original(64))}), 5e5, Some(64.0)),
        (json!({"rope_scaling": llama3(json!({"rope_theta": 5e5}))}), 5e5, Some(512.0)),
        (
            json!({"rope_parameters": llama3(json!({"rope_theta": 5e5})), "original_max_position_embeddings": 32}),
            5e5,
            Some(32.0),
        ),
        (json!({"rope_scaling": llama3(original(64)), "original_max_position_embeddings": 32}), 1e4, Some(32.0)),
        (
            json!({"rope_theta": 5e5, "rope_scaling": llama3(original(512)), "rope_parameters": llama3(json!({"rope_theta": 5e5}))}),
            5e5,
            Some(512.0),
        ),
    ] {
        let config = rotated(keys.clone()).unwrap();
        assert_eq!(config.rope_theta, theta, "{keys}");
        assert_eq!(config.rope_scaling.map(|scaling| scaling.original_max_position), scaled_from, "{keys}");
    }
    for (keys, key, expected) in [
        (json!({"rope_theta": null}), "rope_theta", "a number above 0"),
        (json!({"rope_scaling": {"rope_theta": "1e6"}}), "rope_scaling.rope_theta", "a number above 0"),
        (json!({"rope_scaling": {"rope_theta": null}}), "rope_theta", "a number above 0"),
        (json!({"rope_scaling": {"factor": 8.0}}), "rope_scaling.rope_type", "missing"),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}),
            "rope_parameters.rope_type",
            "default or llama3",
        ),
        (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_scaling.rope_type", "default or llama3"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
            "rope_parameters.full_attention",
            "all layers",
        ),
        (json!({"rope_scaling": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor", "the whole head"),
        (
            json!({"rope_scaling": llama3(original(64)), "rope_parameters": {"rope_theta": 5e5}}),
            "rope_parameters",
            "what rope_scaling says",
        ),
        (
            json!({"rope_scaling": {"rope_theta": 1e6}, "rope_parameters": {"rope_theta": 5e5}}),
            "rope_parameters",
            "what rope_scaling",
        ),
    ] {
        let message = rotated(keys.clone()).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")) && message.contains(expected), "{keys}: {message}");
    }
}

#[test]
fn keys_that_change_nothing_are_passed_over() {
    for family in ["qwen2-tied", "llama-mha-sharded"] {
        let plain = changed(family, "note", json!(0)).unwrap();
        for (key, value) in [
            ("hidden_act", json!("swish")),
            ("hidden_act", json!(null)),
            ("final_logit_softcapping", json!(null)),
            ("logits_scaling", json!(1)),
            ("residual_multiplier", json!(1.0)),
            ("num_experts", json!(0)),
            ("pretraining_tp", json!(2)),
            ("sliding_window", json!(16)),
            ("layer_types", json!(["full_attention", "full_attention"])),
            ("quantization_config", json!(null)),
        ] {
            assert_eq!(changed(family, key, value).unwrap(), plain, "{family}: {key}");
        }
    }
    let mut json: Map<String, Value> = serde_json::from_str(&text("qwen2-tied", "config.v4.json")).unwrap();
    let mut windowed = |first: u64| {
        json.extend([("use_sliding_window".into(), json!(true)), ("max_window_layers".into(), json!(first))]);
        json.remove("layer_types");
        read(&serde_json::to_vec(&json).unwrap()).map(|config| config.layers as u64)
    };
    let layers = windowed(100).unwrap();
    assert!(windowed(layers).is_ok(), "the window begins above the last layer");
    assert!(windowed(layers - 1).unwrap_err().to_string().contains("`use_sliding_window`"));
}

#[test]
fn what_a_configuration_leaves_out_is_its_familys() {
    let without = |family: &str, key: &str| {
        let mut json: Map<String, Value> = serde_json::from_str(&text(family, "config.v4.json")).unwrap();
        json.remove(key).unwrap();
        read(&serde_json::to_vec(&json).unwrap())
    };
    assert_eq!(without("qwen3-tied", "head_dim").unwrap().head_dim, 128);
    assert_eq!(without("llama-mha-sharded", "head_dim").unwrap().head_dim, 16);
    assert_eq!(without("llama-mha-sharded", "num_key_value_heads").unwrap().kv_heads, 4);
    assert!(
        without("qwen2-tied", "num_key_value_heads").unwrap_err().to_string().contains("`num_key_value_heads` is 32")
    );
    for (family, positions) in [("llama-mha-sharded", 2048), ("qwen2-tied", 32_768), ("qwen3-tied", 32_768)] {
        assert_eq!(without(family, "max_position_embeddings").unwrap().max_positions, positions);
    }
}

#[test]
fn floats_that_only_python_writes_stand_in_the_way_of_no_other_key() {
    let [plain, odd] = ["0.5", "[NaN, -Infinity]"].map(|value| {
        let text = text("qwen3-tied", "config.json").replacen('{', &format!("{{\"note\": {value},"), 1);
        read(text.as_bytes()).unwrap()
    });
    assert_eq!(plain, odd);
    let text = text("qwen3-tied", "config.json");
    let eps = text.lines().find(|line| line.contains("rms_norm_eps")).unwrap();
    let message = read(text.replace(eps, "\"rms_norm_eps\": NaN,").as_bytes()).unwrap_err().to_string();
    assert!(message.contains("`rms_norm_eps` is {\"__float__\":\"NaN\"}"), "{message}");
}
