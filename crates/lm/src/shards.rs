//! A model's tensors in one file, or in several with an index, named as transformers names them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Component, Path};

use serde_json::{Value, json};
use zerosearch_files::{StagedFile, write_atomic};
use zerosearch_text::from_python_json;

use crate::stored::{Dtypes, Stored, StoredDtype, read_file, stage_tensors};
use crate::{HostTensor, HostWeights, LmError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Reads `model.safetensors`, or the shards that the index names. Where a folder has both, the single file counts, as
/// in transformers.
pub(crate) fn read(folder: &Path) -> Result<(BTreeMap<String, HostTensor>, Dtypes), LmError> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if single.exists() {
        return read_file(&single);
    }
    if !index.exists() {
        return Err(LmError::file(single, format!("No such file, nor {INDEX}{}", hint(folder))));
    }
    let map = read_index(&index)?;
    let wrong = |name: &str, message: String| LmError::Tensor { path: index.clone(), name: name.into(), message };
    let (mut tensors, mut dtypes, mut found_in) = (BTreeMap::new(), Dtypes::new(), BTreeMap::new());
    for file in map.values().collect::<BTreeSet<_>>() {
        let (read, stored) = read_file(&folder.join(file))?;
        for name in read.keys() {
            if let Some(other) = found_in.insert(name.clone(), file) {
                return Err(wrong(name, format!("is in two files, {other} and {file}")));
            }
        }
        tensors.extend(read);
        dtypes.extend(stored);
    }
    match map.iter().find(|(name, file)| found_in.get(*name) != Some(file)) {
        Some((name, file)) => Err(wrong(name, format!("is not in {file}, where this index says it is"))),
        None => Ok((tensors, dtypes)),
    }
}

/// The way from files that are there to those that are not.
fn hint(folder: &Path) -> &'static str {
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|name| folder.join(name).exists());
    if pickled {
        "; pytorch_model.bin is a pickle, which is not read: save it as safetensors with transformers"
    } else {
        ""
    }
}

/// The file of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LmError> {
    let text =
        std::fs::read(path).and_then(zerosearch_files::decode_text).map_err(|error| LmError::file(path, error))?;
    let value: Value = from_python_json(&text).map_err(|error| LmError::file(path, format!("not JSON: {error}")))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| LmError::file(path, "has no `weight_map`"))?;
    let plain = |file: &str| matches!(Path::new(file).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let entry = |(name, file): (&String, &Value)| match file.as_str() {
        Some(file) if plain(file) => Ok((name.clone(), file.to_string())),
        _ => Err(LmError::file(path, format!("`weight_map` has {file} for `{name}`, expected a file beside it"))),
    };
    map.iter().map(entry).collect()
}

/// Writes one file or, where that would hold more than `max_shard_bytes` of tensors, shards and their index; deletes
/// what the folder had of either before.
///
/// Everything is written and synced before anything old is touched. Between two sets of shards the folder has no
/// index, so that no reader sees a mixture.
///
/// # Errors
/// When a file cannot be written, or a value does not fit its format.
pub(crate) fn write(
    folder: &Path,
    weights: &HostWeights,
    dtype_of: &dyn Fn(&str) -> StoredDtype,
    max_shard_bytes: u64,
) -> Result<(), LmError> {
    let shards = split(weights, dtype_of, max_shard_bytes);
    let count = shards.len();
    let file = |number: usize| match count {
        1 => SINGLE.to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let mut staged = Vec::new();
    let (mut kept, mut map) = (BTreeSet::new(), BTreeMap::new());
    for (number, names) in shards.iter().enumerate() {
        let file = file(number);
        let tensors = names.iter().filter_map(|name| Some(Stored::of(name, weights.get(name)?, dtype_of(name))));
        staged.push(stage_tensors(&folder.join(&file), tensors.collect())?);
        map.extend(names.iter().map(|name| (*name, file.clone())));
        kept.insert(file);
    }
    let index = folder.join(INDEX);
    if count == 1 {
        staged.into_iter().try_for_each(StagedFile::publish)?;
    } else {
        remove(&index)?;
        staged.into_iter().try_for_each(StagedFile::publish)?;
        let total_size: u64 = weights.iter().map(|(name, tensor)| bytes(name, tensor, dtype_of)).sum();
        let metadata = json!({"total_parameters": weights.parameters(), "total_size": total_size});
        let text = format!("{:#}\n", json!({"metadata": metadata, "weight_map": map}));
        write_atomic(&index, text.as_bytes())?;
        kept.insert(INDEX.into());
    }
    remove_others(folder, &kept)
}

/// Which tensors go into each file, in the order of their names. One that is larger than a file may be has its own.
fn split<'a>(
    weights: &'a HostWeights,
    dtype_of: &dyn Fn(&str) -> StoredDtype,
    max_shard_bytes: u64,
) -> Vec<Vec<&'a str>> {
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for (name, tensor) in weights.iter() {
        let bytes = bytes(name, tensor, dtype_of);
        if size > 0 && size + bytes > max_shard_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(name);
        }
    }
    shards
}

fn bytes(name: &str, tensor: &HostTensor, dtype_of: &dyn Fn(&str) -> StoredDtype) -> u64 {
    (tensor.values.len() * dtype_of(name).size()) as u64
}

/// Deletes files of weights, finished or not, that do not belong to what was just written.
fn remove_others(folder: &Path, kept: &BTreeSet<String>) -> Result<(), LmError> {
    let entries = std::fs::read_dir(folder).map_err(|error| LmError::file(folder, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let finished = name.strip_suffix(StagedFile::SUFFIX).unwrap_or(name);
        let ours = finished == SINGLE || finished == INDEX || is_shard(finished);
        if ours && !kept.contains(name) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), LmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LmError::file(path, format!("{error}; it is left from an earlier save and cannot be deleted")))
        }
        _ => Ok(()),
    }
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(number, of)| digits(number) && digits(of))
}
