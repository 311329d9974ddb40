//! The keys of a table `[engine]`, and which go together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zerosearch_search::{Dialect, WebProvider};
use zerosearch_simulator::SimulationConfig;

use super::keys::{refuse_misplaced, required};
use super::served_model::{Api, Backend, OF_SERVERS, ServerKeys, addresses};
use super::{EngineConfig, SimulatorConfig, SimulatorMode, WrapConfig};
use crate::device::DeviceName;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Simulator,
    Bm25,
    Retriever,
    Web,
    None,
}

/// Every key that the table may have. A struct and no enum, so that an unknown key is named with its line and a value of the wrong
/// type with its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineKeys {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<SimulatorMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<Backend>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api: Option<Api>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served_model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corpus: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dialect: Option<Dialect>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<WebProvider>,
    // Tables stand behind all plain keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    simulation: Option<SimulationConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrap: Option<WrapConfig>,
}

impl EngineKeys {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            mode: None,
            model: None,
            template: None,
            device: None,
            backend: None,
            url: None,
            urls: None,
            api: None,
            system: None,
            served_model: None,
            key_env: None,
            concurrency: None,
            corpus: None,
            index: None,
            dialect: None,
            provider: None,
            simulation: None,
            wrap: None,
        }
    }

    /// Refuses keys of other kinds of engines.
    fn refuse_others(&self) -> Result<&'static str, String> {
        let of_simulators: Vec<&str> = ["model", "mode", "template", "device", "simulation", "wrap", "backend"]
            .into_iter()
            .chain(OF_SERVERS)
            .collect();
        let (with, taken): (&str, &[&str]) = match self.kind {
            Kind::Simulator => ("kind = \"simulator\"", &of_simulators),
            Kind::Bm25 => ("kind = \"bm25\"", &["corpus", "index", "wrap"]),
            Kind::Retriever => ("kind = \"retriever\"", &["url", "urls", "dialect", "wrap"]),
            Kind::Web => ("kind = \"web\"", &["provider", "wrap"]),
            Kind::None => ("kind = \"none\"", &[]),
        };
        let given = [
            ("mode", self.mode.is_some()),
            ("model", self.model.is_some()),
            ("template", self.template.is_some()),
            ("device", self.device.is_some()),
            ("simulation", self.simulation.is_some()),
            ("backend", self.backend.is_some()),
            ("url", self.url.is_some()),
            ("urls", self.urls.is_some()),
            ("api", self.api.is_some()),
            ("system", self.system.is_some()),
            ("served_model", self.served_model.is_some()),
            ("key_env", self.key_env.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("corpus", self.corpus.is_some()),
            ("index", self.index.is_some()),
            ("dialect", self.dialect.is_some()),
            ("provider", self.provider.is_some()),
            ("wrap", self.wrap.is_some()),
        ];
        refuse_misplaced(&given, taken, with).map(|()| with)
    }
}

impl TryFrom<EngineKeys> for EngineConfig {
    type Error = String;

    fn try_from(keys: EngineKeys) -> Result<Self, String> {
        let with = keys.refuse_others()?;
        let EngineKeys { kind, wrap, mode, model, template, device, simulation, .. } = keys;
        let EngineKeys { backend, url, urls, api, system, served_model, key_env, concurrency, .. } = keys;
        let engine = match kind {
            Kind::Simulator => {
                let server = ServerKeys { backend, url, urls, api, system, served_model, key_env, concurrency };
                let server = server.server()?;
                let (mode, simulation) = (mode.unwrap_or_default(), simulation.unwrap_or_default());
                if server.is_none() {
                    required(model.as_ref(), "model", "kind = \"simulator\"", "\"runs/simulator\"")?;
                }
                match (model, mode, template, device, server) {
                    (.., Some(_), Some(_)) => {
                        return Err("`device` is where this process decodes a simulator; a server has its own".into());
                    }
                    (Some(model), SimulatorMode::Sft, None, None, None) => Self::Simulator { model, simulation },
                    (model, mode, template, device, server) => {
                        let simulator = SimulatorConfig { model, mode, template, device, simulation, server };
                        Self::Simulated(Box::new(simulator))
                    }
                }
            }
            Kind::Bm25 => {
                let corpus = required(keys.corpus, "corpus", with, "\"corpus.jsonl\"")?;
                Self::Bm25 { corpus, index: keys.index }
            }
            Kind::Retriever => {
                let urls = required(addresses(url, urls)?, "url", with, "\"http://127.0.0.1:8000\"")?;
                Self::Retriever { urls, dialect: keys.dialect.unwrap_or_default() }
            }
            Kind::Web => Self::Web { provider: required(keys.provider, "provider", with, "\"serper\"")? },
            Kind::None => Self::None,
        };
        match wrap.filter(|wrap| *wrap != WrapConfig::default()) {
            Some(wrap) => {
                wrap.check()?;
                Ok(Self::Wrapped { engine: Box::new(engine), wrap })
            }
            None => Ok(engine),
        }
    }
}

impl From<EngineConfig> for EngineKeys {
    fn from(engine: EngineConfig) -> Self {
        match engine {
            EngineConfig::Simulator { model, simulation } => {
                Self { model: Some(model), simulation: Some(simulation), ..Self::of(Kind::Simulator) }
            }
            EngineConfig::Simulated(simulator) => {
                let SimulatorConfig { model, mode, template, device, simulation, server } = *simulator;
                let server = server.map(ServerKeys::from).unwrap_or_default();
                let ServerKeys { backend, url, urls, api, system, served_model, key_env, concurrency } = server;
                let mode = (mode != SimulatorMode::default()).then_some(mode);
                let simulation = Some(simulation);
                let keys = Self { mode, model, template, device, simulation, ..Self::of(Kind::Simulator) };
                Self { backend, url, urls, api, system, served_model, key_env, concurrency, ..keys }
            }
            EngineConfig::Bm25 { corpus, index } => Self { corpus: Some(corpus), index, ..Self::of(Kind::Bm25) },
            EngineConfig::Retriever { urls, dialect } => {
                let dialect = (dialect != Dialect::default()).then_some(dialect);
                let (url, urls) = match <[String; 1]>::try_from(urls) {
                    Ok([url]) => (Some(url), None),
                    Err(urls) => (None, Some(urls)),
                };
                Self { url, urls, dialect, ..Self::of(Kind::Retriever) }
            }
            EngineConfig::Web { provider } => Self { provider: Some(provider), ..Self::of(Kind::Web) },
            EngineConfig::None => Self::of(Kind::None),
            EngineConfig::Wrapped { engine, wrap } => Self { wrap: Some(wrap), ..Self::from(*engine) },
        }
    }
}
