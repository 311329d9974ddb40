//! Engines that answer searches.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_generate::{GenerateError, Ledger, Role};
use zerosearch_lm::{LanguageModel, LocalCompleter};
use zerosearch_search::{
    Bm25Folder, Bm25Index, Dialect, Document, Query, RetrieverServer, SearchEngine, SearchError, WebProvider, WebSearch,
};
use zerosearch_simulator::{SimulatedEngine, SimulationConfig, SimulatorError, SimulatorPrompt};

use super::engine_keys::EngineKeys;
use super::{SimulatorConfig, WrapConfig};
use crate::device::DeviceError;

/// An engine to train against or to evaluate with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "EngineKeys", into = "EngineKeys")]
pub enum EngineConfig {
    /// A fine-tuned model of this process that plays the engine: the method.
    Simulator {
        /// Its folder.
        model: PathBuf,
        /// How it samples.
        simulation: SimulationConfig,
    },
    /// A simulator with a mode, a template or a server of its own.
    Simulated(Box<SimulatorConfig>),
    /// BM25 over a corpus: the Search-R1 baseline.
    Bm25 {
        /// JSONL or Parquet rows `id?, title?, contents`.
        corpus: PathBuf,
        /// A folder for the index, which is built once and then opened in milliseconds; in memory if it is left out.
        index: Option<PathBuf>,
    },
    /// Retrieval servers: the Search-R1 baseline.
    Retriever {
        /// The address, or those of several that search the same corpus.
        urls: Vec<String>,
        /// The form of their requests, `search_r1` or `zerosearch`.
        dialect: Dialect,
    },
    /// Google through a service, whose key is read from `SERPAPI_API_KEY`, `SERPER_API_KEY`, or `GOOGLE_API_KEY` and `GOOGLE_CSE_ID`.
    Web {
        /// The service, `serpapi`, `serper` or `google_cse`.
        provider: WebProvider,
    },
    /// No engine: reinforcement learning without search (R1). Episodes have one turn, and a search in it is not executed.
    None,
    /// An engine with something around it, such as a cache.
    Wrapped {
        /// The engine.
        engine: Box<EngineConfig>,
        /// Its wrappers.
        wrap: WrapConfig,
    },
}

impl EngineConfig {
    /// Reads the model or the corpus, or addresses the server.
    ///
    /// # Errors
    /// When a file is missing or broken, or there is no key for the web service.
    pub fn read(&self) -> Result<Box<dyn SearchEngine>, EngineError> {
        self.read_on(&Device::flex())
    }

    /// As [`read`](Self::read); a simulator is decoded on a device.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_on(&self, device: &Device) -> Result<Box<dyn SearchEngine>, EngineError> {
        self.read_with(device, &Ledger::new())
    }

    /// As [`read_on`](Self::read_on); a simulator and a cache report what they use to a ledger.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(&self, device: &Device, ledger: &Ledger) -> Result<Box<dyn SearchEngine>, EngineError> {
        Ok(match self {
            Self::Simulator { model: folder, simulation } => {
                let model = LanguageModel::read(folder).map_err(SimulatorError::from)?;
                let completer = LocalCompleter::on(&model, device).map_err(SimulatorError::from)?;
                let completer = completer.with_account(ledger.account(Role::Simulator));
                Box::new(SimulatedEngine::new(completer, SimulatorPrompt::for_model(folder)?, *simulation))
            }
            Self::Bm25 { corpus, index: None } => Box::new(Bm25Index::read(corpus)?),
            Self::Bm25 { corpus, index: Some(folder) } => Box::new(Bm25Folder::open_or_build(corpus, folder)?),
            Self::Retriever { urls, dialect } => Box::new(RetrieverServer::at(urls, *dialect)),
            Self::Web { provider } => Box::new(WebSearch::from_env(*provider)?),
            Self::Simulated(simulator) => simulator.read_with(device, ledger)?,
            Self::None => Box::new(Absent),
            Self::Wrapped { engine, wrap } => wrap.around(engine, device, ledger)?,
        })
    }

    /// Whether a model plays the engine, which then must be told question and answers.
    pub fn is_simulated(&self) -> bool {
        match self {
            Self::Simulator { .. } | Self::Simulated(_) => true,
            Self::Wrapped { engine, .. } => engine.is_simulated(),
            Self::Bm25 { .. } | Self::Retriever { .. } | Self::Web { .. } | Self::None => false,
        }
    }

    /// The prompt of a simulator, `None` for another engine.
    ///
    /// # Errors
    /// When the template or the folder is missing or broken.
    pub fn simulator_prompt(&self) -> Result<Option<SimulatorPrompt>, EngineError> {
        Ok(match self {
            Self::Simulator { model, .. } => Some(SimulatorPrompt::for_model(model)?),
            Self::Simulated(simulator) => Some(simulator.prompt()?),
            Self::Wrapped { engine, .. } => engine.simulator_prompt()?,
            Self::Bm25 { .. } | Self::Retriever { .. } | Self::Web { .. } | Self::None => None,
        })
    }
}

/// Stands where nothing is searched.
struct Absent;

impl SearchEngine for Absent {
    fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Err(SearchError::Index("there is no engine (kind = \"none\")".into()))
    }
}

/// An engine that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The simulator's model or prompt.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The corpus, or the key of a web service.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The device of a simulator.
    #[error("engine.device: {0}")]
    Device(#[from] DeviceError),
    /// A server that does not answer as it should.
    #[error(transparent)]
    Server(#[from] GenerateError),
    /// A server's key is not where `key_env` says.
    #[error("the environment variable {0} is not set: put the server's key there, or leave `key_env` out")]
    Key(String),
    /// A server that offers no model, or several.
    #[error("{url} does not offer exactly one model, but [{offered}]: say which with `served_model`")]
    ModelName {
        /// The address.
        url: String,
        /// The models that it lists.
        offered: String,
    },
}
