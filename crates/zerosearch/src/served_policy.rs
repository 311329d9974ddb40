//! A policy that is decoded by a server beside the trainer.

use std::path::{Path, PathBuf};

use zerosearch_generate::{
    Finished, GenerateError, Generator, Request, RolloutGenerator, SequenceId, Statistics, TokenId, Turn, Wake,
    WeightVersion,
};
use zerosearch_lm::{Decoder, LanguageModel, LmError, LoraConfig, ModelFiles, Refit, StoredDtype};
use zerosearch_remote::{EndpointCounts, SglangGenerator, VllmGenerator};

/// SGLang or vLLM servers that follow the trainer: after every update what was trained is written to a folder, and each server
/// is made to load it. SGLang loads the whole policy, vLLM its adapters: a policy without adapters is refused there.
///
/// The servers must see the folder under the same path: they run on the same machine or on a shared file system. Their caches
/// and their memory are their own, so they neither sleep nor obey `kv_cache_memory_bytes`. Rollouts repeat where the servers
/// honour seeds ([`SglangGenerator::with_seeds`]).
///
/// Their kernels are not the trainer's, and so are the log-probabilities: train with `old_logprobs = "recomputed"` and
/// `importance_sampling`, as a configuration file does by itself ([`GeneratorConfig`](crate::config::GeneratorConfig)).
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
    server: Server,
    files: ModelFiles,
    folder: PathBuf,
    /// The folder that the servers have loaded.
    loaded: Option<PathBuf>,
    statistics: Statistics,
}

enum Server {
    Sglang(SglangGenerator),
    Vllm(VllmGenerator),
}

impl Server {
    fn generator(&self) -> &dyn Generator {
        match self {
            Self::Sglang(server) => server,
            Self::Vllm(server) => server,
        }
    }

    fn generator_mut(&mut self) -> &mut dyn Generator {
        match self {
            Self::Sglang(server) => server,
            Self::Vllm(server) => server,
        }
    }
}

impl ServedPolicy {
    /// A policy of this model's shape on SGLang. Its weights go through `folder`, which holds those of the newest version.
    pub fn new(server: SglangGenerator, model: &LanguageModel, folder: impl Into<PathBuf>) -> Self {
        Self::on(Server::Sglang(server), model, folder.into())
    }

    /// A policy of this model's shape on vLLM, which serves the weights that `model` has now. Its adapters go through `folder`, which
    /// holds those of the newest version.
    pub fn vllm(server: VllmGenerator, model: &LanguageModel, folder: impl Into<PathBuf>) -> Self {
        Self::on(Server::Vllm(server), model, folder.into())
    }

    fn on(server: Server, model: &LanguageModel, folder: PathBuf) -> Self {
        Self { server, files: model.files(), folder, loaded: None, statistics: Statistics::default() }
    }

    /// Whether a server is there: asks all for `/health`, once.
    ///
    /// # Errors
    /// [`GenerateError::Remote`] when none answers, with what each said.
    pub fn check(&self) -> Result<(), GenerateError> {
        match &self.server {
            Server::Sglang(server) => server.check(),
            Server::Vllm(server) => server.check(),
        }
    }

    /// Refuses to train whole weights on vLLM.
    pub(crate) fn needs_adapters() -> LmError {
        LmError::Config {
            path: "vllm".into(),
            key: "train.lora".into(),
            value: "absent".into(),
            expected: "adapters, such as `lora = { rank = 16 }`: vLLM's HTTP server can be given new LoRA adapters \
                       (`/v1/load_lora_adapter`) and has no way to be given whole weights; to train these, serve the policy with SGLang"
                .into(),
        }
    }

    fn counted(&mut self, finished: Vec<Finished>) -> Vec<Finished> {
        self.statistics.sampled += finished.iter().map(|turn| turn.tokens.len() as u64).sum::<u64>();
        finished
    }
}

impl Generator for ServedPolicy {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        self.server.generator_mut().start(request)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.server.generator_mut().extend(id, observation, turn)
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let finished = self.server.generator_mut().poll()?;
        Ok(self.counted(finished))
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        let finished = self.server.generator_mut().poll_until(wake)?;
        Ok(self.counted(finished))
    }

    fn cancel(&mut self, id: SequenceId) {
        self.server.generator_mut().cancel(id);
    }

    fn release(&mut self, id: SequenceId) {
        self.server.generator_mut().release(id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.server.generator().weight_version()
    }
}

impl RolloutGenerator for ServedPolicy {
    /// Sampled tokens alone: the server does not tell the rest.
    fn take_statistics(&mut self) -> Statistics {
        std::mem::take(&mut self.statistics)
    }

    fn counters(&self) -> Vec<(String, f64)> {
        let endpoints = match &self.server {
            Server::Sglang(server) => server.endpoints(),
            Server::Vllm(server) => server.endpoints(),
        };
        EndpointCounts::counters(&endpoints)
    }
}

impl Refit for ServedPolicy {
    fn refit(&mut self, policy: &Decoder, version: WeightVersion) -> Result<(), LmError> {
        // A folder of its own for every version: the server may still be reading the one before.
        let folder = self.folder.join(format!("version_{}", version.0));
        let path = path_of(&absolute(&folder)?)?;
        match &mut self.server {
            Server::Sglang(server) => {
                self.files.with_weights(policy.to_host()).save(&folder, StoredDtype::F32)?;
                server.refit(&path, version)?;
            }
            Server::Vllm(server) => {
                let (lora, adapters) = policy.lora().ok_or_else(Self::needs_adapters)?;
                // Dropout is the trainer's: servers refuse or ignore it.
                LoraConfig { dropout: 0.0, ..lora.clone() }.save(&folder, &adapters)?;
                server.load_adapter(&path, version)?;
            }
        }
        let folder = absolute(&folder)?;
        if let Some(before) = self.loaded.replace(folder.clone()).filter(|before| *before != folder) {
            std::fs::remove_dir_all(&before).map_err(|error| file(&before, error))?;
        }
        Ok(())
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, LmError> {
    std::path::absolute(folder).map_err(|error| file(folder, error))
}

fn path_of(folder: &Path) -> Result<String, LmError> {
    folder.to_str().map(String::from).ok_or_else(|| file(folder, "is no UTF-8, which a server cannot be told"))
}

fn file(path: &Path, message: impl std::fmt::Display) -> LmError {
    LmError::File { path: path.into(), message: message.to_string() }
}
