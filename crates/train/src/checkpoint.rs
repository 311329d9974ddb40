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
//!     unrecorded.json                      a step whose figures or samples could not be written
//!     trainer.json                         step, questions asked, configuration, what the run is made of, state of the algorithm
//! ```
//!
//! Random streams, the curriculum and the order of questions need no state: they follow from the seed, the step and the number of
//! questions asked.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_curriculum::SuccessRate;
use zerosearch_files::write_atomic;
use zerosearch_lm::{AdamW, Decoder, HostWeights, LanguageModel, LoraConfig, StoredDtype};

use crate::critic::VALUE_HEAD;
use crate::identity::Identity;
use crate::keys::{change, comparable};
use crate::learner::Learner;
use crate::validation::Best;
use crate::{Sample, StepReport, TrainConfig, TrainError, Trainer};

const LATEST: &str = "latest_checkpointed_iteration.txt";
const PREFIX: &str = "global_step_";
const STATE: &str = "trainer.json";
/// Beside the policy with the adapters merged into it.
const ADAPTERS: &str = "lora_adapter";
const AHEAD: &str = "rollouts_ahead.json";
const UNRECORDED: &str = "unrecorded.json";

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    cursor: u64,
    config: Value,
    #[serde(flatten)]
    identity: Identity,
    algorithm: Vec<f64>,
    success: SuccessRate,
    kl_beta: f64,
    best: Option<Best>,
    skipped: u64,
}

/// A step whose figures or samples could not be written.
#[derive(Serialize, Deserialize)]
struct Unrecorded {
    step: u64,
    /// JSON has no NaN and no infinity: such a figure is null.
    metrics: BTreeMap<String, Option<f64>>,
    samples: Vec<Sample>,
}

impl From<&StepReport> for Unrecorded {
    fn from(report: &StepReport) -> Self {
        let figure = |(name, value): (&str, f64)| (name.to_owned(), Some(value).filter(|value| value.is_finite()));
        Self {
            step: report.step,
            metrics: report.metrics.iter().map(figure).collect(),
            samples: report.samples.clone(),
        }
    }
}

impl From<Unrecorded> for StepReport {
    fn from(unrecorded: Unrecorded) -> Self {
        let figures = unrecorded.metrics.into_iter();
        Self {
            step: unrecorded.step,
            metrics: figures.map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect(),
            samples: unrecorded.samples,
        }
    }
}

/// The step of the newest whole checkpoint, or `None` where there is none.
///
/// # Errors
/// When the file that names it cannot be read or is no number.
pub fn latest_step(checkpoints: impl AsRef<Path>) -> Result<Option<u64>, TrainError> {
    let path = checkpoints.as_ref().join(LATEST);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).and_then(zerosearch_files::decode_text).map_err(|error| failed(&path, error))?;
    let text = text.trim();
    let message = || format!("holds {text:?}, expected a step number: write that of the newest `{PREFIX}…` beside it");
    text.parse().map(Some).map_err(|_| failed(&path, message()))
}

/// The configuration of the run whose newest whole checkpoint lies here, or `None` where there is none.
///
/// # Errors
/// When its `trainer.json` is damaged, or of a version whose configuration is not understood.
pub fn latest_config(checkpoints: impl AsRef<Path>) -> Result<Option<TrainConfig>, TrainError> {
    let checkpoints = checkpoints.as_ref();
    let Some(step) = latest_step(checkpoints)? else { return Ok(None) };
    let path = checkpoints.join(format!("{PREFIX}{step}")).join(STATE);
    let state: State = read_json(&path)?;
    serde_json::from_value(state.config).map(Some).map_err(|error| failed(&path, format!("`config`: {error}")))
}

impl Trainer {
    /// Writes a checkpoint of the present state into the folder that the builder was given, and deletes those beyond
    /// `keep_checkpoints`.
    ///
    /// # Errors
    /// When there is no such folder or it cannot be written; an older checkpoint is then still whole.
    pub fn checkpoint(&self) -> Result<(), TrainError> {
        self.refuse_broken()?;
        let checkpoints = self.outputs.checkpoints.as_deref().ok_or(TrainError::NoCheckpoints)?;
        let folder = checkpoints.join(format!("{PREFIX}{}", self.step));
        let temporary = checkpoints.join(format!(".{PREFIX}{}.tmp", self.step));
        let state = json(&self.state());
        let there = || read_json::<Value>(&folder.join(STATE)).is_ok_and(|there| is_same_run(&there, &state));
        if latest_step(checkpoints)? == Some(self.step) && there() {
            // The same step of the same run. At most it has been recorded since then, or could not be.
            return self.write_unrecorded(&folder);
        }
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(|error| failed(&temporary, error))?;
        let written = self.write(&temporary, &format!("{state:#}\n"));
        if written.is_err() {
            // Nothing half-written is left to fill a disk that is full.
            let _ = fs::remove_dir_all(&temporary);
        }
        written?;
        remove(&folder)?;
        fs::rename(&temporary, &folder).map_err(|error| failed(&folder, error))?;
        write_atomic(checkpoints.join(LATEST), self.step.to_string().as_bytes())?;
        self.retain(checkpoints)
    }

    /// Writes every file of a checkpoint into a folder.
    fn write(&self, folder: &Path, state: &str) -> Result<(), TrainError> {
        let policy = &self.updater.policy;
        self.model()?.save(folder.join("actor"), StoredDtype::F32)?;
        if let Some((lora, adapters)) = policy.decoder.lora() {
            lora.save(folder.join("actor").join(ADAPTERS), &adapters)?;
        }
        policy.optimizer.save(folder.join("actor_optimizer.safetensors"))?;
        if let Some(critic) = &self.updater.critic {
            critic.decoder.to_host().write(folder.join("critic.safetensors"), StoredDtype::F32)?;
            critic.optimizer.save(folder.join("critic_optimizer.safetensors"))?;
        }
        if self.config.staleness > 0 || !self.collector.ahead.is_empty() {
            write_json(&folder.join(AHEAD), &self.collector.ahead)?;
        }
        self.write_unrecorded(folder)?;
        write_atomic(folder.join(STATE), state.as_bytes())?;
        sync(folder)
    }

    /// Has a checkpoint remember the last step if that could not be recorded, and forget it otherwise.
    fn write_unrecorded(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(UNRECORDED);
        match &self.outputs.unrecorded {
            Some(report) => write_json(&path, &Unrecorded::from(report)),
            None if path.exists() => fs::remove_file(&path).map_err(|error| failed(&path, error)),
            None => Ok(()),
        }
    }

    fn state(&self) -> State {
        State {
            step: self.step,
            cursor: self.collector.cursor,
            config: json(&*self.config),
            identity: self.identity.clone(),
            algorithm: self.updater.algorithm.state(),
            success: self.collector.success,
            kl_beta: self.updater.kl_beta,
            best: self.best,
            skipped: self.skipped,
        }
    }

    /// Goes on from the newest checkpoint in the folder that the builder was given, or goes back to it after an error. `false`
    /// when there is none. [`TrainerBuilder::build`](crate::TrainerBuilder::build) has done so already.
    ///
    /// Keys of the configuration that are missing in the checkpoint count as their defaults.
    ///
    /// # Errors
    /// When it is damaged, or belongs to a run of another configuration, algorithm, data set, tokenizer, base model,
    /// prompt template or reward. Keys that change memory, speed or what is kept may differ: see [`TrainConfig::change_from`].
    pub fn resume(&mut self) -> Result<bool, TrainError> {
        let checkpoints = self.outputs.checkpoints.clone().ok_or(TrainError::NoCheckpoints)?;
        let Some(step) = latest_step(&checkpoints)? else { return Ok(false) };
        let folder = checkpoints.join(format!("{PREFIX}{step}"));
        let path = folder.join(STATE);
        let state: State = read_json(&path)?;
        let config = serde_json::from_value::<TrainConfig>(state.config.clone());
        let before = config.map_or(state.config, |config| comparable(&config));
        if let Some(change) = change(&before, &comparable(&self.config)) {
            let remedy = match change.key.as_str() {
                "steps" => {
                    "rates and noise are spread over all steps: to train on, start from its policy in another folder"
                }
                _ => "resume with the same value, or start in another folder",
            };
            return Err(failed(&path, format!("{change}; {remedy}")));
        }
        if let Some(what) = state.identity.differs_from(&self.identity) {
            return Err(failed(&path, format!("this run {what}, or start in another folder")));
        }
        let optional = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let ahead = if self.config.staleness > 0 { Some(folder.join(AHEAD)) } else { optional(AHEAD) };
        let ahead = ahead.map_or(Ok(VecDeque::new()), |path| read_json(&path))?;
        let unrecorded = optional(UNRECORDED).map(|path| read_json::<Unrecorded>(&path)).transpose()?;
        let model = LanguageModel::read(folder.join("actor"))?;
        if model.config != self.files.config {
            return Err(failed(&folder.join("actor"), "this run trained a model of another shape"));
        }
        let device = &self.updater.device;
        let optimizer = |name: &str| AdamW::read(self.config.optimizer, folder.join(name), device);
        let critic = match &self.updater.critic {
            Some(_) => {
                let path = folder.join("critic.safetensors");
                let weights = HostWeights::read_file(&path)?;
                if weights.get(VALUE_HEAD).is_none() {
                    return Err(failed(&path, format!("has no tensor `{VALUE_HEAD}`: it is no critic")));
                }
                let decoder = self.config.precise(Decoder::trainable(&model.config, weights, device)?);
                Some(Learner { decoder, optimizer: optimizer("critic_optimizer.safetensors")? })
            }
            None => None,
        };
        let decoder = match &self.config.lora {
            Some(lora) => {
                let (_, adapters) = LoraConfig::read(folder.join("actor").join(ADAPTERS), &model.config)?;
                self.updater.policy.decoder.with_adapters(lora, &adapters)?
            }
            None => self.config.precise_policy(Decoder::trainable(&self.files.config, model.into_weights(), device)?),
        };
        let policy = Learner { decoder, optimizer: optimizer("actor_optimizer.safetensors")? };
        self.updater.algorithm.restore(&state.algorithm)?;
        (self.updater.policy, self.updater.critic, self.updater.kl_beta) = (policy, critic, state.kl_beta);
        (self.collector.cursor, self.collector.success, self.collector.ahead) = (state.cursor, state.success, ahead);
        self.collector.is_current = false;
        (self.step, self.best, self.skipped) = (state.step, state.best, state.skipped);
        self.outputs.unrecorded = unrecorded.map(StepReport::from);
        self.is_broken = false;
        Ok(true)
    }

    /// Looks at the folder of the checkpoints before the first step: it must hold none of a later one.
    pub(crate) fn begin(&mut self) -> Result<(), TrainError> {
        if self.outputs.has_begun {
            return Ok(());
        }
        if let Some(checkpoints) = &self.outputs.checkpoints {
            match latest_step(checkpoints)? {
                Some(step) if step > self.step => {
                    let message =
                        format!("holds a checkpoint of step {step}: resume from it, or start in another folder");
                    return Err(failed(checkpoints, message));
                }
                // A process that was killed right after this checkpoint has left older ones to be deleted.
                Some(step) if step == self.step => self.retain(checkpoints)?,
                _ => {}
            }
        }
        self.outputs.has_begun = true;
        Ok(())
    }

    /// Deletes unfinished checkpoints, and the oldest checkpoints beyond `keep_checkpoints`, save the best.
    fn retain(&self, checkpoints: &Path) -> Result<(), TrainError> {
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
    TrainError::file(path, message)
}

fn remove(folder: &Path) -> Result<(), TrainError> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(|error| failed(folder, error)) } else { Ok(()) }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = fs::read(path).and_then(zerosearch_files::decode_text).map_err(|error| failed(path, error))?;
    serde_json::from_str(&text).map_err(|error| failed(path, format!("{error}; was the write cut short?")))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text = serde_json::to_vec(value).map_err(|error| failed(path, error))?;
    Ok(write_atomic(path, &text)?)
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

/// Whether two states are those of the same step of the same run, whatever resources it has now.
fn is_same_run(there: &Value, now: &Value) -> bool {
    let without_config = |state: &Value| {
        let mut state = state.clone();
        state.as_object_mut().and_then(|state| state.remove("config"));
        state
    };
    without_config(there) == without_config(now) && change(&there["config"], &now["config"]).is_none()
}
