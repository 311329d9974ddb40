//! The run's folder: whose it is, and what is in it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zerosearch_files::{prepare_folder, write_atomic};
use zerosearch_train::KeyChange;

use crate::pipeline::PipelineError;

/// All that decides results: where it is, a run has begun.
const MARKER: &str = "simulator_training.json";

/// Keys that decide memory, speed and the place of a cut, and no result.
const RESOURCES: [&str; 6] =
    ["chunk", "micro_batch_tokens", "gradient_checkpointing", "concurrency", "search_batch", "search_concurrency"];

pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder this run's, or sees that it is.
    pub(super) fn claim(&self, identity: &Value, resume: bool) -> Result<(), PipelineError> {
        if let Some(before) = self.read_if_there::<Value>(MARKER)? {
            if !resume {
                return Err(PipelineError::Occupied { path: self.0.into() });
            }
            if let Some(change) = difference("", Some(&before), Some(&written(identity))) {
                let remedy = "resume with the same settings and data, or start in another folder";
                return Err(PipelineError::file(self.path(MARKER), format!("{change}; {remedy}")));
            }
        }
        prepare_folder(self.0)?;
        if self.path("simulator").exists() {
            prepare_folder(self.path("simulator"))?;
        }
        self.write(MARKER, identity)
    }

    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), PipelineError> {
        let path = self.path(name);
        let text = serde_json::to_string_pretty(value).map_err(|error| PipelineError::file(&path, error))?;
        Ok(write_atomic(&path, format!("{text}\n").as_bytes())?)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, PipelineError> {
        let path = self.path(name);
        let text = std::fs::read(&path).and_then(zerosearch_files::decode_text);
        let text = text.map_err(|error| PipelineError::file(&path, error))?;
        serde_json::from_str(&text)
            .map_err(|error| PipelineError::file(&path, format!("{error}; was the write cut short?")))
    }

    /// As [`read`](Self::read); `None` where there is no such file.
    pub(super) fn read_if_there<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PipelineError> {
        if self.path(name).exists() { self.read(name).map(Some) } else { Ok(None) }
    }
}

/// As it reads when it was written: the last bit of a fraction may differ.
fn written(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or_default()
}

/// The first key that differs and decides results.
fn difference(path: &str, before: Option<&Value>, now: Option<&Value>) -> Option<KeyChange> {
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, now) {
        let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
        let keys = keys.filter(|key| !RESOURCES.contains(&key.as_str()));
        let path_of = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        return keys.into_iter().find_map(|key| difference(&path_of(key), old.get(key), new.get(key)));
    }
    (before != now).then(|| KeyChange { key: path.into(), before: before.cloned(), now: now.cloned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decides_results_is_named_and_resources_may_change() {
        let before = json!({"seed": 0, "collect": {"questions": 9, "chunk": 1}, "engine": {"kind": "bm25"}});
        let change = |now: Value| difference("", Some(&before), Some(&now)).map(|change| change.key);
        let mut now = before.clone();
        now["collect"]["chunk"] = 5.into();
        assert_eq!(change(now.clone()), None);
        now["collect"]["questions"] = 5.into();
        assert_eq!(change(now).as_deref(), Some("collect.questions"));
        assert_eq!(change(json!({"seed": 0, "collect": {"questions": 9}})).as_deref(), Some("engine"));
        let mut now = before.clone();
        now["engine"]["index"] = "i".into();
        assert_eq!(change(now).as_deref(), Some("engine.index"));
    }

    #[test]
    fn another_run_s_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = Folder(folder.path());
        run.claim(&json!({"seed": 0}), false).unwrap();
        assert!(run.claim(&json!({"seed": 0}), false).unwrap_err().to_string().contains("--resume"));
        run.claim(&json!({"seed": 0}), true).unwrap();
        let message = run.claim(&json!({"seed": 1}), true).unwrap_err().to_string();
        assert!(message.contains("`seed`: 0, not 1") && message.contains("another folder"), "{message}");
    }
}
