//! Saving gives the folder that was read, whatever its family and number formats, whole and without leftovers.

mod families;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use families::FAMILIES;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;
use zerosearch_lm::{HostWeights, LanguageModel, SaveOptions, StoredDtype};
use zerosearch_text::{SpecialTokens, train_bpe};

/// The shard size with which transformers saved `llama-mha-sharded`.
const SMALL: SaveOptions = SaveOptions { dtype: None, max_shard_bytes: 120_000 };

/// A tiny model with a tokenizer, its configuration in one of the two spellings.
fn original(name: &str, config: &str) -> TempDir {
    let source = families::folder(name);
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("oracle") && !name.starts_with("config") {
            fs::copy(entry.path(), folder.path().join(name)).unwrap();
        }
    }
    fs::copy(source.join(config), folder.path().join("config.json")).unwrap();
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    train_bpe(std::iter::once("a b".to_string()), 300, &[], &special).unwrap().save(folder.path()).unwrap();
    for (name, text) in
        [("special_tokens_map.json", "{ }"), ("chat_template.jinja", "{{ messages }}"), ("merges.txt", "#\n")]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files of weights.
fn weight_files(folder: &Path) -> BTreeSet<String> {
    names(folder).into_iter().filter(|name| name.contains("safetensors")).collect()
}

type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read_file(path: &Path) -> Stored {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().iter().map(|(name, view)| (name.clone(), stored(view))).collect()
}

fn write_file(path: &Path, tensors: &Stored) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Name, format, shape and bytes of every tensor of a folder.
fn stored(folder: &Path) -> Stored {
    let files = weight_files(folder).into_iter().filter(|name| name.ends_with(".safetensors"));
    files.flat_map(|name| read_file(&folder.join(name))).collect()
}

fn assert_same(a: &Stored, b: &Stored, context: &str) {
    assert!(a.keys().eq(b.keys()), "{context}: {:?} and {:?}", a.keys(), b.keys());
    for (name, tensor) in a {
        assert!(*tensor == b[name], "{context}: {name} is {:?} {:?} in the copy", b[name].0, b[name].1);
    }
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

#[test]
fn what_is_read_and_saved_is_the_same_folder() {
    for (name, config) in FAMILIES.into_iter().flat_map(|name| [(name, "config.json"), (name, "config.v4.json")]) {
        let (original, copy) = (original(name, config), tempfile::tempdir().unwrap());
        let model = LanguageModel::read(original.path()).unwrap();
        model.save(copy.path(), SaveOptions::default()).unwrap();
        assert_same(&stored(original.path()), &stored(copy.path()), name);
        let others = |folder: &Path| &names(folder) - &weight_files(folder);
        assert_eq!(others(original.path()), others(copy.path()), "{name}");
        for file in others(original.path()) {
            let bytes = |folder: &TempDir| fs::read(folder.path().join(&file)).unwrap();
            assert!(bytes(&original) == bytes(&copy), "{name}: {file} differs");
        }
        let again = LanguageModel::read(copy.path()).unwrap();
        assert!(again.weights == model.weights && again.config == model.config, "{name}");
    }
}

#[test]
fn every_tensor_keeps_its_own_format() {
    let folder = original("qwen2-tied", "config.json");
    let half = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    LanguageModel::read(folder.path()).unwrap().save(half.path(), StoredDtype::F16).unwrap();
    LanguageModel::read(folder.path()).unwrap().save(folder.path(), StoredDtype::F32).unwrap();
    let (mut mixed, mut halves) = (read_file(&path), stored(half.path()));
    assert!(halves.values().all(|(dtype, ..)| *dtype == Dtype::F16));
    mixed.retain(|name, _| name.ends_with("norm.weight"));
    halves.retain(|name, _| !name.ends_with("norm.weight"));
    mixed.append(&mut halves);
    write_file(&path, &mixed);
    let copy = tempfile::tempdir().unwrap();
    LanguageModel::read(folder.path()).unwrap().save(copy.path(), SaveOptions::default()).unwrap();
    assert_same(&mixed, &stored(copy.path()), "f32 norms, f16 matrices");
}

#[test]
fn the_configuration_names_the_format_in_its_own_spelling() {
    for (config, key) in [("config.json", "dtype"), ("config.v4.json", "torch_dtype")] {
        let (folder, copy) = (original("qwen2-tied", config), tempfile::tempdir().unwrap());
        LanguageModel::read(folder.path()).unwrap().save(copy.path(), StoredDtype::F16).unwrap();
        let mut expected = json(folder.path(), "config.json");
        assert_eq!(expected[key], "bfloat16");
        expected[key] = "float16".into();
        assert_eq!(
            json(copy.path(), "config.json").to_string(),
            expected.to_string(),
            "no key is lost, moved or renamed"
        );
    }
}

#[test]
fn both_spellings_of_the_format_are_kept_true() {
    let (folder, copy) = (original("qwen2-tied", "config.json"), tempfile::tempdir().unwrap());
    let mut both = json(folder.path(), "config.json");
    both["torch_dtype"] = "bfloat16".into();
    fs::write(folder.path().join("config.json"), both.to_string()).unwrap();
    LanguageModel::read(folder.path()).unwrap().save(copy.path(), StoredDtype::F32).unwrap();
    let saved = json(copy.path(), "config.json");
    assert_eq!((saved["dtype"].as_str(), saved["torch_dtype"].as_str()), (Some("float32"), Some("float32")));
}

#[test]
fn a_copy_of_the_tied_head_is_not_written_again() {
    let folder = original("qwen3-tied", "config.json");
    let path = folder.path().join("model.safetensors");
    let before = read_file(&path);
    let mut doubled = before.clone();
    doubled.insert("lm_head.weight".into(), before["model.embed_tokens.weight"].clone());
    write_file(&path, &doubled);
    LanguageModel::read(folder.path()).unwrap().save(folder.path(), SaveOptions::default()).unwrap();
    assert_same(&before, &stored(folder.path()), "without the copy");
}

#[test]
fn a_tied_table_is_read_under_either_name_and_written_under_one() {
    let folder = original("qwen3-tied", "config.json");
    let path = folder.path().join("model.safetensors");
    let before = read_file(&path);
    let model = LanguageModel::read(folder.path()).unwrap();
    let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
    let mut moved = before.clone();
    let table = moved.remove(embedding).unwrap();
    moved.insert(head.into(), table.clone());
    write_file(&path, &moved);
    let read = LanguageModel::read(folder.path()).unwrap();
    assert!(read.weights == model.weights);
    read.save(folder.path(), SaveOptions::default()).unwrap();
    assert_same(&before, &stored(folder.path()), "under the embedding's name");

    let mut other = before.clone();
    other.insert(head.into(), (table.0, table.1, table.2.iter().map(|byte| byte ^ 1).collect()));
    write_file(&path, &other);
    let message = LanguageModel::read(folder.path()).err().unwrap().to_string();
    assert!(message.contains("`lm_head.weight` is another table than `model.embed_tokens.weight`"), "{message}");
    assert!(message.contains("`tie_word_embeddings` is true"), "{message}");
}

#[test]
fn tensors_that_are_named_from_inside_are_read() {
    for name in FAMILIES {
        let folder = original(name, "config.json");
        let model = LanguageModel::read(folder.path()).unwrap();
        model.save(folder.path(), SaveOptions::default()).unwrap();
        let before = stored(folder.path());
        let path = folder.path().join("model.safetensors");
        let bare = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_string();
        let mut inner: Stored = before.iter().map(|(name, tensor)| (bare(name), tensor.clone())).collect();
        inner.insert("layers.0.self_attn.rotary_emb.inv_freq".into(), (Dtype::F32, vec![1], vec![0; 4]));
        write_file(&path, &inner);
        let read = LanguageModel::read(folder.path()).unwrap();
        assert!(read.weights == model.weights, "{name}");
        read.save(folder.path(), SaveOptions::default()).unwrap();
        assert_same(&before, &stored(folder.path()), name);
    }
}

#[test]
fn weights_above_a_size_are_cut_into_shards_with_an_index() {
    let (original, copy) = (original("llama-mha-sharded", "config.json"), tempfile::tempdir().unwrap());
    let model = LanguageModel::read(original.path()).unwrap();
    model.save(copy.path(), SMALL).unwrap();
    assert_same(&stored(original.path()), &stored(copy.path()), "sharded");

    let index = json(copy.path(), "model.safetensors.index.json");
    assert_eq!(index["metadata"], json(original.path(), "model.safetensors.index.json")["metadata"]);
    let map = index["weight_map"].as_object().unwrap();
    let files: BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    let count = files.len();
    assert!(count > 1);
    let expected: BTreeSet<String> = (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect();
    assert!(files.iter().eq(expected.iter()), "{files:?}");
    let mut weights = weight_files(copy.path());
    assert!(weights.remove("model.safetensors.index.json"));
    assert_eq!(weights, expected, "no other file of weights");
    for file in expected {
        let tensors = read_file(&copy.path().join(&file));
        let size: usize = tensors.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert!(size <= 120_000 || tensors.len() == 1, "{file} has {size} bytes of {} tensors", tensors.len());
        assert!(tensors.keys().all(|name| map[name] == file.as_str()), "{file}");
    }
    assert!(LanguageModel::read(copy.path()).unwrap().weights == model.weights);
}

#[test]
fn saving_again_leaves_nothing_of_an_earlier_save() {
    let (original, folder) = (original("llama-mha-sharded", "config.json"), tempfile::tempdir().unwrap());
    let model = LanguageModel::read(original.path()).unwrap();
    let foreign = ["model-notes.txt", "adapter_model.safetensors", "model-best.safetensors"];
    for name in foreign.into_iter().chain(["model-00003-of-00009.safetensors.tmp"]) {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let sizes = [120_000, 300_000, 5_000_000_000, 100_000, 300_000, 120_000];
    let mut seen = BTreeSet::new();
    for max_shard_bytes in sizes {
        let mut weights = HostWeights::clone(&model.weights);
        let mut norm = weights.get("model.norm.weight").unwrap().clone();
        norm.values[0] = max_shard_bytes as f32;
        weights.insert("model.norm.weight", norm);
        let changed = model.with_weights(weights);
        changed.save(folder.path(), SaveOptions { max_shard_bytes, ..SaveOptions::default() }).unwrap();
        assert!(LanguageModel::read(folder.path()).unwrap().weights == changed.weights, "{max_shard_bytes}");
        let files: Vec<String> =
            weight_files(folder.path()).into_iter().filter(|name| !foreign.contains(&name.as_str())).collect();
        seen.insert(files.len());
        let shards = files.iter().filter(|name| name.contains("-of-")).count();
        let whole = match shards {
            0 => files == ["model.safetensors"],
            _ => {
                let of = format!("-of-{shards:05}.safetensors");
                let index = |name: &String| name == "model.safetensors.index.json";
                files.len() == shards + 1 && files.iter().all(|name| name.ends_with(&of) || index(name))
            }
        };
        assert!(whole, "{max_shard_bytes}: {files:?}");
        assert!(foreign.iter().all(|name| folder.path().join(name).exists()));
    }
    assert!(seen.len() > 2, "{seen:?}");
}

#[test]
fn a_save_that_fails_leaves_the_folder_as_it_was() {
    let folder = original("qwen3-tied", "config.json");
    let model = LanguageModel::read(folder.path()).unwrap();
    let config = fs::read(folder.path().join("config.json")).unwrap();
    let mut weights = HostWeights::clone(&model.weights);
    let mut norm = weights.get("model.norm.weight").unwrap().clone();
    norm.values[3] = 1e6;
    weights.insert("model.norm.weight", norm);
    for max_shard_bytes in [100_000, 5_000_000_000] {
        let options = SaveOptions { dtype: Some(StoredDtype::F16), max_shard_bytes };
        let message = model.with_weights(weights.clone()).save(folder.path(), options).unwrap_err().to_string();
        assert!(message.contains("`model.norm.weight` holds 1000000, too large for F16"), "{message}");
        assert!(LanguageModel::read(folder.path()).unwrap().weights == model.weights);
        assert!(fs::read(folder.path().join("config.json")).unwrap() == config);
    }
}
