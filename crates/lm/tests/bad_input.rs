//! Bad input is refused with the file, the key or the value, and what was expected.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::tensor::Device;
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;
use zerosearch_generate::{Finish, Generator, Request, Sampling, SequenceId, Turn, WeightVersion, never};
use zerosearch_lm::{
    AdamWConfig, Decoder, HostTensor, HostWeights, LanguageModel, LearningRate, LocalGenerator, LoraConfig,
    ModelConfig, SaveOptions, SftConfig, SftExample, SftTrainer, StoredDtype,
};
use zerosearch_text::{Codec, SpecialTokens, train_bpe};

const VOCABULARY: usize = 320;

fn config() -> ModelConfig {
    ModelConfig::tiny_llama(VOCABULARY, 48, 2, 4, 2, 80)
}

fn codec(vocabulary: usize) -> Codec {
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    train_bpe(std::iter::once("a b c".to_string()), vocabulary, &[], &special).unwrap()
}

/// A model folder that is read, until a test breaks it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.model().save(folder.0.path(), StoredDtype::F32).unwrap();
        LanguageModel::read(folder.0.path()).unwrap();
        folder
    }

    /// The same in shards.
    fn sharded() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.model().save(folder.0.path(), SaveOptions { dtype: None, max_shard_bytes: 50_000 }).unwrap();
        LanguageModel::read(folder.0.path()).unwrap();
        folder
    }

    fn model(&self) -> LanguageModel {
        LanguageModel::new(config(), HostWeights::init(&config(), 0), codec(300))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn set(&self, name: &str, key: &str, value: Value) {
        let mut json = self.json(name);
        json[key] = value;
        fs::write(self.path(name), json.to_string()).unwrap();
    }

    fn weights(&self, change: impl FnOnce(&mut HostWeights)) {
        let mut weights = HostWeights::init(&config(), 0);
        change(&mut weights);
        weights.write(self.path("model.safetensors"), StoredDtype::F32).unwrap();
    }

    /// The message says all of this.
    fn refused(&self, expected: &[&str]) {
        let message = LanguageModel::read(self.0.path()).err().unwrap().to_string();
        assert!(expected.iter().all(|part| message.contains(part)), "{message}\nis without one of {expected:?}");
    }
}

fn tensor(shape: &[usize], value: f32) -> HostTensor {
    HostTensor { shape: shape.to_vec(), values: vec![value; shape.iter().product()] }
}

#[test]
fn a_folder_that_lacks_a_file_is_told_which() {
    for (file, expected) in [
        ("config.json", "a model folder needs config.json, model.safetensors and tokenizer.json"),
        ("model.safetensors", "No such file"),
        ("tokenizer.json", "saved by a fast tokenizer"),
    ] {
        let folder = Folder::new();
        fs::remove_file(folder.path(file)).unwrap();
        folder.refused(&[file, expected]);
    }
}

#[test]
fn byte_order_marks_are_let_pass_in_every_text_of_a_folder_and_utf_16_is_named() {
    let folder = Folder::sharded();
    let mut marked = 0;
    for entry in fs::read_dir(folder.0.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            fs::write(&path, [&b"\xef\xbb\xbf"[..], &fs::read(&path).unwrap()].concat()).unwrap();
            marked += 1;
        }
    }
    LanguageModel::read(folder.0.path()).unwrap();
    assert!(marked >= 4, "config, index, tokenizer and its configuration");
    fs::write(folder.path("config.json"), b"\xff\xfe{\0}\0").unwrap();
    folder.refused(&["config.json", "UTF-16"]);
}

#[test]
fn a_folder_of_pickles_is_told_what_to_do() {
    let folder = Folder::new();
    fs::remove_file(folder.path("model.safetensors")).unwrap();
    fs::write(folder.path("pytorch_model.bin"), "x").unwrap();
    folder.refused(&["model.safetensors", "pytorch_model.bin is a pickle", "save it as safetensors"]);
}

#[test]
fn a_weight_file_that_is_cut_short_or_lies_about_its_length_is_refused() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        folder.refused(&["model.safetensors", "cut short"]);
    }
    let mut lying = whole.clone();
    lying[..8].fill(0xff);
    fs::write(&path, &lying).unwrap();
    folder.refused(&["model.safetensors", "not a whole safetensors file"]);
}

#[test]
fn tensors_that_are_not_the_configurations_are_refused_by_name() {
    let folder = Folder::new();
    folder.weights(|weights| weights.insert("model.norm.weight", tensor(&[47], 1.0)));
    folder.refused(&["`model.norm.weight` has shape [47]", "config.json says [48]"]);
    folder.weights(|weights| weights.insert("model.layers.1.mlp.down_proj.weight", tensor(&[80, 48], 1.0)));
    folder.refused(&["`model.layers.1.mlp.down_proj.weight` has shape [80, 48]", "config.json says [48, 80]"]);
    folder.weights(|weights| weights.insert("extra", tensor(&[1], 1.0)));
    folder.refused(&["`extra` is not part of the architecture that config.json names"]);
    for (value, name) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        folder.weights(|weights| weights.insert("model.norm.weight", tensor(&[48], value)));
        folder.refused(&["`model.norm.weight` holds", name, "at element 0"]);
    }
    let view = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
    fs::write(folder.path("model.safetensors"), safetensors::serialize([("ids", view)], None).unwrap()).unwrap();
    folder.refused(&["`ids` has dtype I64, expected F32, BF16 or F16"]);
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_refused_by_the_tensor() {
    let folder = Folder::new();
    for (key, value, expected) in [
        ("num_hidden_layers", json!(3), "`model.layers.2.input_layernorm.weight` is missing; config.json asks for it"),
        ("num_hidden_layers", json!(1), "`model.layers.1.input_layernorm.weight` is not part of"),
        ("vocab_size", json!(319), "`model.embed_tokens.weight` has shape [320, 48], config.json says [319, 48]"),
        ("num_key_value_heads", json!(4), "k_proj.weight` has shape [24, 48], config.json says [48, 48]"),
        ("intermediate_size", json!(81), "has shape [48, 80], config.json says [48, 81]"),
        ("head_dim", json!(14), "config.json says"),
        ("mlp_bias", json!(true), "bias` is missing"),
        ("tie_word_embeddings", json!(false), "`lm_head.weight` is missing"),
        ("architectures", json!(["Qwen2ForCausalLM"]), "_proj.bias` is missing"),
        ("architectures", json!(["Qwen3ForCausalLM"]), "_norm.weight` is missing"),
    ] {
        let before = folder.json("config.json")[key].clone();
        folder.set("config.json", key, value);
        folder.refused(&[expected]);
        folder.set("config.json", key, before);
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    const INDEX: &str = "model.safetensors.index.json";
    let name = "model.norm.weight";
    let folder = Folder::sharded();
    let whole = folder.json(INDEX);
    let file = whole["weight_map"][name].as_str().unwrap();
    let other =
        whole["weight_map"].as_object().unwrap().values().filter_map(Value::as_str).find(|other| *other != file);
    let refused = |value: Value, expected: &[&str]| {
        let mut json = whole.clone();
        json["weight_map"][name] = value;
        fs::write(folder.path(INDEX), json.to_string()).unwrap();
        folder.refused(expected);
    };
    refused(json!("model-00009-of-00009.safetensors"), &["model-00009-of-00009.safetensors", "No such file"]);
    refused(json!(other), &[INDEX, "`model.norm.weight` is not in", "where this index says it is"]);
    refused(json!("../model.safetensors"), &[INDEX, "../model.safetensors", "expected a file beside it"]);
    refused(json!(7), &[INDEX, "has 7 for `model.norm.weight`"]);

    fs::write(folder.path(INDEX), "{}").unwrap();
    folder.refused(&[INDEX, "has no `weight_map`"]);
    fs::write(folder.path(INDEX), "{").unwrap();
    folder.refused(&[INDEX, "not JSON"]);

    fs::write(folder.path(INDEX), whole.to_string()).unwrap();
    let weights = HostWeights::read_file(folder.path(file)).unwrap();
    let mut twice = HostWeights::read_file(folder.path(other.unwrap())).unwrap();
    twice.insert(name, weights.get(name).unwrap().clone());
    twice.write(folder.path(other.unwrap()), StoredDtype::F32).unwrap();
    folder.refused(&["`model.norm.weight` is in two files", file, other.unwrap()]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = Folder::new();
    folder.set("config.json", "vocab_size", json!(200));
    folder.weights(|weights| weights.insert("model.embed_tokens.weight", tensor(&[200, 48], 0.1)));
    folder.refused(&["the tokenizer has 2", "embedding only 200", "do not belong together"]);

    // A padding token that the tokenizer got and the embedding did not.
    let folder = Folder::new();
    let rows = folder.model().codec.vocab_size();
    let pad = json!({rows.to_string(): {"content": "[PAD]", "special": true}});
    folder.set("tokenizer_config.json", "added_tokens_decoder", pad);
    folder.set("config.json", "vocab_size", json!(rows));
    folder.weights(|weights| weights.insert("model.embed_tokens.weight", tensor(&[rows, 48], 0.1)));
    let model = LanguageModel::read(folder.0.path()).unwrap();
    assert!(model.codec.encode("[PAD]").iter().all(|id| (*id as usize) < rows));
    fs::write(folder.path("chat_template.jinja"), "[PAD]").unwrap();
    folder.refused(&["tokenizer.json", "template writes \"[PAD]\"", &format!("only {rows} rows")]);

    for (file, key, id) in [("config.json", "eos_token_id", 320), ("generation_config.json", "eos_token_id", 151_645)] {
        let folder = Folder::new();
        if !folder.path(file).exists() {
            fs::write(folder.path(file), "{}").unwrap();
        }
        folder.set(file, key, json!([1, id]));
        folder.refused(&[key, &id.to_string(), "below vocab_size (320)"]);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    let nowhere = Path::new("/proc/nowhere");
    let message = folder.model().save(nowhere, StoredDtype::F32).unwrap_err().to_string();
    assert!(message.contains("/proc/nowhere: cannot be created"), "{message}");
    let error = folder.model().weights.write(nowhere.join("model.safetensors"), StoredDtype::F32);
    assert!(error.unwrap_err().to_string().contains("/proc/nowhere/model.safetensors"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The header is some thousand bytes: names, formats, shapes and places.
    #[test]
    fn a_damaged_weight_file_is_read_or_refused_by_its_name(
        changes in proptest::collection::vec((0usize..3000, prop_oneof![any::<u8>(), proptest::sample::select(b"0192[]{},:\"FBI".to_vec())]), 1..6),
        cut in proptest::option::weighted(0.2, 0usize..100_000),
    ) {
        let mut bytes = WHOLE.clone();
        changes.into_iter().for_each(|(place, byte)| bytes[place] = byte);
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        match HostWeights::read(folder.path(), &config()) {
            Ok(weights) => prop_assert_eq!(weights.parameters(), HostWeights::init(&config(), 0).parameters()),
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.contains(&folder.path().display().to_string()), "{}", message);
            }
        }
    }
}

static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(Folder::new().path("model.safetensors")).unwrap());

#[test]
fn weights_that_lack_a_tensor_are_refused_by_its_name() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let (whole, mut lacking) = (HostWeights::init(&config(), 0), HostWeights::default());
    let others = whole.iter().filter(|(other, _)| *other != name);
    others.for_each(|(name, tensor)| lacking.insert(name, tensor.clone()));
    let mut bent = whole.clone();
    bent.insert(name, tensor(&[48, 24], 1.0));
    let mut generator = LocalGenerator::new(&config(), &whole, &[]).unwrap();
    let bent_message = "has shape [48, 24], the configuration says [24, 48]";
    for (weights, expected) in [(&lacking, "is missing; the configuration asks for it"), (&bent, bent_message)] {
        for error in [
            Decoder::frozen(&config(), weights, &Device::flex()).err(),
            Decoder::trainable(&config(), weights.clone(), &Device::flex()).err(),
            LocalGenerator::new(&config(), weights, &[]).err(),
            generator.refit(weights, WeightVersion(1)).err(),
        ] {
            let message = error.unwrap().to_string();
            assert_eq!(message, format!("weights: tensor `{name}` {expected}"));
        }
    }
    assert_eq!(generator.weight_version(), WeightVersion(0));
    generator.start(Request { prompt: &[1], sampling: Sampling::greedy(), turn: turn(0, 2) }).unwrap();
    assert_eq!(generator.poll().unwrap()[0].tokens.len(), 2);

    let lora = LoraConfig::default();
    let mut adapters = lora.initial(&config(), 0);
    let decoder = Decoder::frozen(&config(), &whole, &Device::flex()).unwrap();
    let other = ModelConfig { layers: 1, ..config() };
    let message = decoder.with_adapters(&lora, &lora.initial(&other, 0)).unwrap_err().to_string();
    assert!(message.contains("`model.layers.1.self_attn.q_proj.lora_A.weight` is missing"), "{message}");
    let message = lora.merge(&mut lacking, &adapters).unwrap_err().to_string();
    assert_eq!(message, format!("weights: tensor `{name}` is missing"));
    adapters.insert("model.layers.0.mlp.up_proj.lora_B.weight", tensor(&[80, 3], 0.0));
    let message = decoder.with_adapters(&lora, &adapters).unwrap_err().to_string();
    assert!(message.contains("up_proj.lora_B.weight` has shape [80, 3], the configuration says [80, 16]"), "{message}");
    let message = generator.refit_from(&Decoder::frozen(&other, &whole, &Device::flex()).unwrap(), WeightVersion(1));
    assert!(message.unwrap_err().to_string().contains("`model.layers.1.input_layernorm.weight`"));
}

fn turn(seed: u64, max_new_tokens: usize) -> Turn {
    Turn { max_new_tokens, seed, stop: never(), deadline: None }
}

fn generator() -> LocalGenerator {
    let config = ModelConfig { max_positions: 16, ..config() };
    LocalGenerator::new(&config, &HostWeights::init(&config, 5), &[]).unwrap()
}

#[test]
fn what_cannot_be_decoded_is_refused_with_its_value_and_the_limit() {
    let mut generator = generator();
    let mut refused = |prompt: &[u32], sampling| {
        generator.start(Request { prompt, sampling, turn: turn(0, 1) }).unwrap_err().to_string()
    };
    assert!(refused(&[], Sampling::default()).contains("the prompt is empty: give at least one token"));
    let message = refused(&[1, 320], Sampling::default());
    assert!(message.contains("token id 320 is outside the vocabulary of 320"), "{message}");
    for length in [16, 17, 1000] {
        let message = refused(&vec![1; length], Sampling::default());
        assert!(message.contains(&format!("{length} tokens, the context holds 16")), "{message}");
    }
    let message = refused(&[1], Sampling { top_p: 0.0, ..Sampling::default() });
    assert_eq!(message, "top_p is 0, expected a number in (0, 1]");
    let message = refused(&[1], Sampling::temperature(-1.0));
    assert_eq!(message, "temperature is -1, expected a finite number >= 0");
    let message = generator.extend(SequenceId(7), &[1], turn(0, 1)).unwrap_err().to_string();
    assert!(message.contains("sequence 7 is not waiting"), "{message}");
}

#[test]
fn an_observation_out_of_range_is_refused_and_the_sequence_lives_on() {
    let mut generator = generator();
    let id = generator.start(Request { prompt: &[1], sampling: Sampling::greedy(), turn: turn(0, 2) }).unwrap();
    generator.poll().unwrap();
    let message = generator.extend(id, &[5, 400], turn(0, 2)).unwrap_err().to_string();
    assert!(message.contains("token id 400 is outside the vocabulary of 320"), "{message}");
    generator.extend(id, &[5, 4], turn(0, 2)).unwrap();
    assert_eq!(generator.poll().unwrap()[0].tokens.len(), 2);
}

#[test]
fn the_longest_prompt_leaves_room_for_one_token() {
    let mut generator = generator();
    generator.start(Request { prompt: &[1; 15], sampling: Sampling::greedy(), turn: turn(0, 9) }).unwrap();
    let done = generator.poll().unwrap().remove(0);
    assert_eq!((done.finish, done.tokens.len()), (Finish::Context, 1));
}

#[test]
fn temperature_zero_is_greedy_whatever_the_seed() {
    let mut generator = generator();
    let mut sampled = |sampling, seed| {
        let id = generator.start(Request { prompt: &[3, 1, 4], sampling, turn: turn(seed, 8) }).unwrap();
        let done = generator.poll().unwrap().remove(0);
        generator.release(id);
        done.tokens
    };
    let greedy = sampled(Sampling::greedy(), 0);
    let truncated = Sampling { temperature: 0.0, top_k: 5, top_p: 0.5, ..Sampling::default() };
    assert!(
        (1..5).all(|seed| sampled(Sampling::temperature(0.0), seed) == greedy && sampled(truncated, seed) == greedy)
    );
    assert!((1..5).any(|seed| sampled(Sampling::default(), seed) != greedy));
}

#[test]
fn examples_that_cannot_be_learnt_are_refused_by_their_place_in_the_batch() {
    let sft = SftConfig {
        learning_rate: LearningRate::cosine(1e-2, 0, 10, 1.0),
        optimizer: AdamWConfig::default(),
        gradient_norm: 1.0,
        micro_batch_tokens: 1000,
        gradient_checkpointing: false,
    };
    let mut trainer = SftTrainer::new(&config(), &HostWeights::init(&config(), 0), sft, &Device::flex()).unwrap();
    let good = SftExample::completion(&[1, 2], &[3, 4]);
    for (bad, expected) in [
        (SftExample::completion(&[1, 320], &[3]), "example 1 of the batch has token 320, the model has ids below 320"),
        (SftExample { positions: vec![0, 2], ..good.clone() }, "learns position 0, expected 1 to 3"),
        (SftExample { positions: vec![3, 4], ..good.clone() }, "learns position 4, expected 1 to 3"),
        (SftExample { positions: vec![3, 2], ..good.clone() }, "expected one each, ascending"),
        (SftExample { weights: vec![1.0], ..good.clone() }, "1 weights for 2 positions"),
    ] {
        let message = trainer.step(&[good.clone(), bad]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let message = trainer.step(&[]).unwrap_err().to_string();
    assert!(message.contains("no token to learn"), "{message}");
    trainer.step(&[good]).unwrap();
}
