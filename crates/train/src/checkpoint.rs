//! Checkpoints that appear whole or not at all, and from which a run goes on bit for bit.
//!
//! ```text
//! checkpoints/
//!   latest_checkpointed_iteration.txt      the newest whole one
//!   global_step_20/
//!     actor/                               a Hugging Face folder: the policy; with LoRA, lora_adapter/ in it
//!     actor_optimizer.safetensors
//!     critic.safetensors, critic_optimizer.safetensors     where the algorithm has a critic
//!     rollouts_ahead.json                  with a staleness: the rollouts collected for the steps to come
//!     trainer.json                         step, questions asked, configuration, what the run is made of, state of the algorithm
//! ```
//!
//! Random streams, the curriculum and the order of questions need no state: they follow from the seed, the step and the number of
//! questions asked.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_curriculum::SuccessRate;
use zerosearch_files::write_atomic;
use zerosearch_lm::{AdamW, Decoder, HostWeights, LanguageModel, LoraConfig, StoredDtype};

use crate::identity::Identity;
use crate::trainer::Learner;
use crate::validation::Best;
use crate::{TrainConfig, TrainError, Trainer};

const LATEST: &str = "latest_checkpointed_iteration.txt";
const PREFIX: &str = "global_step_";
const STATE: &str = "trainer.json";
/// Beside the policy with the adapters merged into it.
const ADAPTERS: &str = "lora_adapter";
const AHEAD: &str = "rollouts_ahead.json";

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    /// Absent in checkpoints of older versions, when every step asked the same number.
    cursor: Option<u64>,
    config: Value,
    #[serde(flatten)]
    identity: Identity,
    algorithm: Vec<f64>,
    success: SuccessRate,
    kl_beta: f64,
    best: Option<Best>,
    skipped: u64,
}

/// The step of the newest whole checkpoint, or `None` where there is none.
///
/// # Errors
/// When the file that names it cannot be read or is no number.
pub fn latest_step(checkpoints: &Path) -> Result<Option<u64>, TrainError> {
    let path = checkpoints.join(LATEST);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
    let step =
        text.trim().parse().map_err(|_| failed(&path, format!("holds {:?}, expected a step number", text.trim())))?;
    Ok(Some(step))
}

/// The configuration of the run whose newest whole checkpoint lies here, or `None` where there is none.
///
/// # Errors
/// When its `trainer.json` is damaged, or of a version whose configuration is not understood.
pub fn latest_config(checkpoints: &Path) -> Result<Option<TrainConfig>, TrainError> {
    let Some(step) = latest_step(checkpoints)? else { return Ok(None) };
    let path = checkpoints.join(format!("{PREFIX}{step}")).join(STATE);
    let state: State = read_json(&path)?;
    serde_json::from_value(state.config).map(Some).map_err(|error| failed(&path, format!("`config`: {error}")))
}

impl Trainer<'_> {
    /// Writes a checkpoint of the present state and deletes those beyond `keep_checkpoints`.
    ///
    /// # Errors
    /// When it cannot be written; an older checkpoint is then still whole.
    pub fn save(&self, checkpoints: &Path) -> Result<(), TrainError> {
        let folder = checkpoints.join(format!("{PREFIX}{}", self.step));
        let temporary = checkpoints.join(format!(".{PREFIX}{}.tmp", self.step));
        let state = format!("{:#}\n", json(&self.state()?));
        let there = || fs::read_to_string(folder.join(STATE)).is_ok_and(|there| there == state);
        if latest_step(checkpoints)? == Some(self.step) && there() {
            // The same step of the same run: what is there is what would be written.
            return Ok(());
        }
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(|error| failed(&temporary, error))?;
        self.model().save(&temporary.join("actor"), StoredDtype::F32)?;
        if let Some((lora, adapters)) = self.policy.decoder.lora() {
            lora.save(&temporary.join("actor").join(ADAPTERS), &adapters)?;
        }
        self.policy.optimizer.save(&temporary.join("actor_optimizer.safetensors"))?;
        if let Some(critic) = &self.critic {
            critic.decoder.to_host().write(&temporary.join("critic.safetensors"), StoredDtype::F32)?;
            critic.optimizer.save(&temporary.join("critic_optimizer.safetensors"))?;
        }
        if self.config.staleness > 0 {
            let path = temporary.join(AHEAD);
            let ahead = serde_json::to_vec(&self.ahead).map_err(|error| failed(&path, error))?;
            write_atomic(&path, &ahead)?;
        }
        write_atomic(temporary.join(STATE), state.as_bytes())?;
        sync(&temporary)?;
        remove(&folder)?;
        fs::rename(&temporary, &folder).map_err(|error| failed(&folder, error))?;
        write_atomic(checkpoints.join(LATEST), self.step.to_string().as_bytes())?;
        self.retain(checkpoints)
    }

    fn state(&self) -> Result<State, TrainError> {
        Ok(State {
            step: self.step,
            cursor: Some(self.cursor),
            config: json(&self.config),
            identity: Identity::of(self)?,
            algorithm: self.algorithm.state(),
            success: self.success,
            kl_beta: self.kl_beta,
            best: self.best,
            skipped: self.skipped,
        })
    }

    /// Goes on from the newest checkpoint. `false` when there is none.
    ///
    /// Keys of the configuration that an older version did not know count as their defaults, and what it did not
    /// name in `trainer.json` is not compared.
    ///
    /// # Errors
    /// When it is damaged, or belongs to a run of another configuration, algorithm, data set, tokenizer, base model,
    /// prompt template or reward.
    pub fn resume(&mut self, checkpoints: &Path) -> Result<bool, TrainError> {
        let Some(step) = latest_step(checkpoints)? else { return Ok(false) };
        let folder = checkpoints.join(format!("{PREFIX}{step}"));
        let path = folder.join(STATE);
        let state: State = read_json(&path)?;
        let config = serde_json::from_value::<TrainConfig>(state.config.clone());
        if let Some(key) = difference(&config.map_or(state.config, |config| json(&config)), &json(&self.config)) {
            return Err(failed(
                &path,
                format!("this run had another `{key}`: resume with the same configuration, or start in another folder"),
            ));
        }
        if let Some(what) = state.identity.differs_from(&Identity::of(self)?) {
            return Err(failed(&path, format!("this run {what}, or start in another folder")));
        }
        let ahead = if self.config.staleness > 0 { read_json(&folder.join(AHEAD))? } else { VecDeque::new() };
        let mut model = LanguageModel::read(&folder.join("actor"))?;
        if model.config != self.parts.model.config {
            return Err(failed(&folder.join("actor"), "this run trained a model of another shape"));
        }
        let device = self.parts.device;
        let optimizer = |name: &str| AdamW::load(self.config.optimizer, &folder.join(name), device);
        let policy = optimizer("actor_optimizer.safetensors")?;
        let critic = match &self.critic {
            Some(_) => {
                let weights = HostWeights::read_file(&folder.join("critic.safetensors"))?;
                let decoder = Decoder::trainable(&model.config, weights, device).with_bf16(self.config.bf16);
                Some(Learner { decoder, optimizer: optimizer("critic_optimizer.safetensors")? })
            }
            None => None,
        };
        self.critic = critic;
        self.algorithm.restore(&state.algorithm)?;
        self.success = state.success;
        self.kl_beta = state.kl_beta;
        self.best = state.best;
        self.skipped = state.skipped;
        self.step = state.step;
        self.cursor = state.cursor.unwrap_or(state.step * self.config.questions_per_step as u64);
        self.ahead = ahead;
        let decoder = match &self.config.lora {
            Some(lora) => {
                let (_, adapters) = LoraConfig::read(&folder.join("actor").join(ADAPTERS), &model.config)?;
                self.policy.decoder.with_adapters(lora, &adapters)
            }
            None => {
                Decoder::trainable(&self.parts.model.config, model.take_weights(), device).with_bf16(self.config.bf16)
            }
        };
        self.set_policy(decoder, policy);
        Ok(true)
    }

    /// Deletes what is not whole, and the oldest checkpoints beyond `keep_checkpoints`, save the best.
    pub(crate) fn retain(&self, checkpoints: &Path) -> Result<(), TrainError> {
        let entries = fs::read_dir(checkpoints).map_err(|error| failed(checkpoints, error))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_string());
        // Left by a process that was killed while it wrote: this one's own has its name by now.
        let unfinished = |path: &&PathBuf| name(path).is_some_and(|name| name.starts_with(&format!(".{PREFIX}")));
        paths.iter().filter(unfinished).try_for_each(|path| remove(path))?;
        // A later step's was left by a process that was killed before it could say that it is whole: it comes again, and
        // must not push out those that this run can go on from.
        let step = |path: &PathBuf| name(path)?.strip_prefix(PREFIX)?.parse().ok().filter(|step| *step <= self.step);
        let mut found: Vec<(u64, &PathBuf)> = paths.iter().filter_map(|path| Some((step(path)?, path))).collect();
        found.sort();
        let surplus = found.len().saturating_sub(self.config.keep_checkpoints);
        let best = self.best.map(|best| best.step);
        let mut old = found.iter().take(surplus).filter(|(step, _)| Some(*step) != best);
        old.try_for_each(|(_, path)| remove(path))
    }
}

fn failed(path: &Path, message: impl std::fmt::Display) -> TrainError {
    TrainError::Checkpoint { path: path.into(), message: message.to_string() }
}

fn remove(folder: &Path) -> Result<(), TrainError> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(|error| failed(folder, error)) } else { Ok(()) }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
    serde_json::from_str(&text).map_err(|error| failed(path, format!("{error}; was the write cut short?")))
}

/// Makes a folder and all in it survive a power failure.
fn sync(folder: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sync(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| failed(&path, error))?;
        }
    }
    // Not every file system can sync a folder; the files are safe all the same.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The first key whose values differ, as a path.
fn difference(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.keys().chain(b.keys()).find_map(|key| match (a.get(key), b.get(key)) {
                (Some(x), Some(y)) => {
                    difference(x, y).map(|inner| if inner.is_empty() { key.clone() } else { format!("{key}.{inner}") })
                }
                _ => Some(key.clone()),
            })
        }
        _ if a == b => None,
        _ => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_key_that_differs_is_named_with_its_path() {
        assert_eq!(difference(&json!({"a": {"b": 1}}), &json!({"a": {"b": 2}})), Some("a.b".into()));
        assert_eq!(difference(&json!({"a": 1}), &json!({"a": 1, "c": 0})), Some("c".into()));
        assert_eq!(difference(&json!({"a": [1, 2]}), &json!({"a": [1, 2]})), None);
    }
}
