//! The owner of a run's folder.

use serde_json::Value;
use zerosearch_files::prepare_folder;
use zerosearch_train::KeyChange;

use crate::pipeline::PipelineError;
use crate::pipeline::folder::Folder;

/// All that decides results: where it is, a run has begun.
const MARKER: &str = "simulator_training.json";

/// Keys that decide memory, speed and the place of a cut, and no result.
const RESOURCES: [&str; 6] =
    ["chunk", "micro_batch_tokens", "gradient_checkpointing", "concurrency", "search_batch", "search_concurrency"];

impl Folder<'_> {
    /// Makes the folder this run's, or sees that it is.
    pub(super) fn claim(&self, identity: &Value, resume: bool) -> Result<(), PipelineError> {
        if let Some(before) = self.read_if_there::<Value>(MARKER)? {
            if !resume {
                return Err(PipelineError::Occupied { path: self.0.into() });
            }
            if let Some(change) = difference(&before, &written(identity)) {
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
}

/// As it reads when it was written: the last bit of a fraction may differ.
fn written(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or_default()
}

/// The first key that differs and decides results.
fn difference(before: &Value, now: &Value) -> Option<KeyChange> {
    KeyChange::first(before, now, &|key| RESOURCES.contains(&key.rsplit('.').next().unwrap_or(key)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decides_results_is_named_and_resources_may_change() {
        let before = json!({"seed": 0, "collect": {"questions": 9, "chunk": 1}, "engine": {"kind": "bm25"}});
        let change = |now: Value| difference(&before, &now).map(|change| change.key);
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
