//! Adapters that PEFT saved: merged as PEFT merges them, or refused by the key that is not computed.
//! `adapters/make_adapters.py` made the folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use zerosearch_lm::{HostWeights, LmError, LoraConfig, ModelConfig};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters").join(name)
}

fn config() -> ModelConfig {
    ModelConfig::read(folder("base").join("config.json")).unwrap().0
}

/// The plain adapter with another value of one key.
fn changed(key: &str, value: &Value) -> Result<LoraConfig, LmError> {
    let copy = tempfile::tempdir().unwrap();
    let mut json: Value =
        serde_json::from_slice(&fs::read(folder("plain").join("adapter_config.json")).unwrap()).unwrap();
    json[key] = value.clone();
    fs::write(copy.path().join("adapter_config.json"), json.to_string()).unwrap();
    let weights = "adapter_model.safetensors";
    fs::copy(folder("plain").join(weights), copy.path().join(weights)).unwrap();
    LoraConfig::read(copy.path(), &config()).map(|(lora, _)| lora)
}

#[test]
fn merged_weights_are_those_that_peft_merges() {
    let base = HostWeights::read(folder("base"), &config()).unwrap();
    for (name, modules) in [
        ("plain", &["q_proj", "v_proj"][..]),
        ("rslora", &["v_proj", "down_proj"]),
        ("gaussian", &["o_proj"]),
        ("orthogonal", &["gate_proj"]),
        ("regex", &["q_proj", "up_proj"]),
        ("ends", &["k_proj", "v_proj", "down_proj"]),
        ("all-but", &["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]),
        ("patterns-that-change-nothing", &["q_proj"]),
        ("no-targets", &["q_proj", "v_proj"]),
    ] {
        let (lora, adapters) = LoraConfig::read(folder(name), &config()).unwrap();
        let mut found: Vec<&str> = lora.target_modules.iter().map(String::as_str).collect();
        let mut modules = modules.to_vec();
        found.sort();
        modules.sort();
        assert_eq!(found, modules, "{name}");
        let copy = tempfile::tempdir().unwrap();
        lora.save(copy.path(), &adapters).unwrap();
        assert_eq!(LoraConfig::read(copy.path(), &config()).unwrap(), (lora.clone(), adapters.clone()), "{name}");

        let expected = HostWeights::read_file(folder(name).join("merged.safetensors")).unwrap();
        let mut merged = base.clone();
        lora.merge(&mut merged, &adapters).unwrap();
        for ((tensor, before), (_, after)) in base.iter().zip(merged.iter()) {
            let expected = expected.get(tensor).unwrap_or(before);
            let gap = expected.values.iter().zip(&after.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-6, "{name}: {tensor} differs by {gap}");
        }
    }
}

#[test]
fn what_peft_computes_otherwise_is_refused_by_its_key() {
    for (key, value) in [
        ("peft_type", json!("ADALORA")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("OLoRA")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("one of tomorrow")),
        ("alora_invocation_tokens", json!([5, 9])),
        ("alora_invocation_tokens", json!([])),
        ("use_dora", json!(true)),
        ("use_dora", json!("true")),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({"nblocks": 2})),
        ("use_one_of_tomorrow", json!(true)),
        ("kasa_config", json!({"beta": 1e-4})),
        ("monteclora_config", json!({"num_samples": 2})),
        ("arrow_config", json!({"top_k": 3})),
        ("use_rslora", json!("yes")),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"^model.layers.0.self_attn.q_proj": 32})),
        ("modules_to_save", json!(["lm_head"])),
        ("layers_to_transform", json!([1])),
        ("layers_to_transform", json!(0)),
        ("layers_to_transform", json!("all")),
        ("layer_replication", json!([[0, 2], [1, 2]])),
        ("lora_bias", json!(true)),
        ("bias", json!("lora_only")),
        ("bias", json!("all")),
        ("trainable_token_indices", json!([3])),
        ("trainable_token_indices", json!({"embed_tokens": [3]})),
        ("target_parameters", json!(["mlp.experts.down_proj"])),
        ("target_modules", json!(["q_proj", "v_proj", "lm_head"])),
        ("target_modules", json!(["q_proj", "embed_tokens"])),
        ("target_modules", json!(["c_attn"])),
        ("target_modules", json!(["layers.0.self_attn.q_proj"])),
        ("target_modules", json!(".*layers.1.*q_proj")),
        ("target_modules", json!(".*(q_proj")),
        // Tried in so many ways that the search is given up.
        ("target_modules", json!("((.*)*)*(.*)*z")),
        ("target_modules", json!([1])),
        ("r", json!(0)),
        ("r", json!(4.5)),
        ("r", json!(null)),
        ("lora_alpha", json!("8")),
        ("lora_dropout", json!(1.0)),
    ] {
        let message = changed(key, &value).unwrap_err().to_string();
        assert!(
            message.contains("adapter_config.json: ") && message.contains(&format!("`{key}` is {value}")),
            "{message}"
        );
    }
}

#[test]
fn keys_that_change_no_value_are_passed_over() {
    let plain = changed("revision", &json!(null)).unwrap();
    for (key, value) in [
        ("init_lora_weights", json!(false)),
        ("init_lora_weights", json!(null)),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("Gaussian")),
        ("init_lora_weights", json!("mica")),
        ("eva_config", json!({"rho": 2.0})),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("corda_config", json!({"corda_method": "kpm"})),
        ("velora_config", json!({"num_groups": 64})),
        ("megatron_config", json!({"num_layers": 2})),
        ("rank_pattern", json!(null)),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("modules_to_save", json!([])),
        ("exclude_modules", json!(["lm_head"])),
        ("exclude_modules", json!("lm_head")),
        ("layers_to_transform", json!([0, 1])),
        ("target_modules", json!(["q_proj", "v_proj", "query_key_value"])),
        ("fan_in_fan_out", json!(true)),
        ("bias", json!(null)),
        ("use_dora", json!(null)),
        ("ensure_weight_tying", json!(true)),
        ("inference_mode", json!(false)),
        ("revision", json!("main")),
        ("task_type", json!(null)),
        ("peft_type", json!(null)),
        ("qalora_group_size", json!(32)),
        ("auto_mapping", json!({"base_model_class": "LlamaForCausalLM"})),
        ("note", json!("a key of another program")),
    ] {
        assert_eq!(changed(key, &value).unwrap(), plain, "{key}: {value}");
    }
}

#[test]
fn a_pickle_and_a_folder_in_the_wrong_place_are_named() {
    let copy = TempDir::new().unwrap();
    let name = "adapter_config.json";
    fs::copy(folder("plain").join(name), copy.path().join(name)).unwrap();
    fs::write(copy.path().join("adapter_model.bin"), "x").unwrap();
    let message = LoraConfig::read(copy.path(), &config()).unwrap_err().to_string();
    assert!(message.contains("adapter_model.safetensors: No such file; adapter_model.bin is a pickle"), "{message}");
    let message = ModelConfig::read(copy.path().join("config.json")).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("holds an adapter"), "{message}");
}
