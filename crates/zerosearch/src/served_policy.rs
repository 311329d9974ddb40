//! A policy that is decoded by a server beside the trainer.

use std::path::{Path, PathBuf};

use zerosearch_generate::{
    Finished, GenerateError, Generator, Request, RolloutGenerator, SequenceId, Statistics, TokenId, Turn, Wake,
    WeightVersion,
};
use zerosearch_lm::{Decoder, LanguageModel, LmError, ModelFiles, Refit, StoredDtype};
use zerosearch_remote::SglangGenerator;

/// An SGLang server that follows the trainer: after every update the policy is written as a model folder, and the server
/// is made to load it.
///
/// The server must see the folder under the same path: it runs on the same machine or on a shared file system. Its caches
/// and its memory are its own, so it neither sleeps nor obeys `kv_cache_memory_bytes`. Rollouts repeat where the server
/// honours seeds ([`SglangGenerator::with_seeds`]).
///
/// ```no_run
/// use zerosearch::prelude::*;
/// use zerosearch::{ServedPolicy, remote::SglangGenerator};
///
/// # fn main() -> Result<()> {
/// let policy = LanguageModel::read("base")?;
/// let server = SglangGenerator::new("http://localhost:30000", policy.config.max_positions).with_seeds();
/// let served = ServedPolicy::new(server, &policy, "served");
/// let engine = SimulatedEngine::read("simulator")?;
/// let mut trainer =
///     Trainer::builder(policy, read_questions("questions.jsonl")?, engine).generator(served).build()?;
/// # Ok(())
/// # }
/// ```
pub struct ServedPolicy {
    server: SglangGenerator,
    files: ModelFiles,
    folder: PathBuf,
    /// The folder that the server has loaded.
    loaded: Option<PathBuf>,
    statistics: Statistics,
}

impl ServedPolicy {
    /// A policy of this model's shape on `server`. Its weights go through `folder`, which holds those of the newest version.
    pub fn new(server: SglangGenerator, model: &LanguageModel, folder: impl Into<PathBuf>) -> Self {
        Self { server, files: model.files(), folder: folder.into(), loaded: None, statistics: Statistics::default() }
    }

    fn counted(&mut self, finished: Vec<Finished>) -> Vec<Finished> {
        self.statistics.sampled += finished.iter().map(|turn| turn.tokens.len() as u64).sum::<u64>();
        finished
    }
}

impl Generator for ServedPolicy {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        self.server.start(request)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.server.extend(id, observation, turn)
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let finished = self.server.poll()?;
        Ok(self.counted(finished))
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        let finished = self.server.poll_until(wake)?;
        Ok(self.counted(finished))
    }

    fn cancel(&mut self, id: SequenceId) {
        self.server.cancel(id);
    }

    fn release(&mut self, id: SequenceId) {
        self.server.release(id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.server.weight_version()
    }
}

impl RolloutGenerator for ServedPolicy {
    /// Sampled tokens alone: the server does not tell the rest.
    fn take_statistics(&mut self) -> Statistics {
        std::mem::take(&mut self.statistics)
    }
}

impl Refit for ServedPolicy {
    fn refit(&mut self, policy: &Decoder, version: WeightVersion) -> Result<(), LmError> {
        // A folder of its own for every version: the server may still be reading the one before.
        let folder = self.folder.join(format!("version_{}", version.0));
        self.files.with_weights(policy.to_host()).save(&folder, StoredDtype::F32)?;
        let folder = absolute(&folder)?;
        let path = folder.to_str().ok_or_else(|| file(&folder, "is no UTF-8, which a server cannot be told"))?;
        self.server.refit(path, version)?;
        if let Some(before) = self.loaded.replace(folder.clone()).filter(|before| *before != folder) {
            std::fs::remove_dir_all(&before).map_err(|error| file(&before, error))?;
        }
        Ok(())
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, LmError> {
    std::path::absolute(folder).map_err(|error| file(folder, error))
}

fn file(path: &Path, message: impl std::fmt::Display) -> LmError {
    LmError::File { path: path.into(), message: message.to_string() }
}
