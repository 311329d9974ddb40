//! A language model behind OpenAI's protocol.

use serde::{Deserialize, Serialize};
use zerosearch_remote::{OpenAiServer, RetryPolicy, served_models};
use zerosearch_search::key_from_env;

use super::EngineError;
use super::keys::{Given, required};

/// A server that completes texts: SGLang, vLLM, llama.cpp, or any other that speaks OpenAI's protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedModel {
    /// The kind of server.
    pub backend: ServerKind,
    /// Its address, or those of several that serve the same model.
    pub urls: Vec<String>,
    /// The endpoint that is asked.
    pub api: Api,
    /// The system message of every chat; none is sent where it is left out.
    pub system: Option<String>,
    /// The model's name; the only one that the server offers where it is left out.
    pub served_model: Option<String>,
    /// The environment variable that holds the key; no key is sent where it is left out.
    pub key_env: Option<String>,
    /// Most requests under way at once; 64 where it is left out.
    pub concurrency: Option<usize>,
}

/// The kinds of servers that complete texts. All are asked in OpenAI's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// Any server that speaks the protocol.
    OpenAi,
    /// SGLang.
    Sglang,
    /// vLLM.
    Vllm,
}

/// Where a text is completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    /// In this process.
    #[default]
    Local,
    OpenAi,
    Sglang,
    Vllm,
}

/// The endpoint of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/v1/chat/completions`: the server puts its chat template around the prompt.
    #[default]
    Chat,
    /// `/v1/completions`: the prompt is continued as it stands, as a simulator of this program was fine-tuned.
    Completions,
}

impl Backend {
    pub(super) fn server(self) -> Option<ServerKind> {
        match self {
            Self::Local => None,
            Self::OpenAi => Some(ServerKind::OpenAi),
            Self::Sglang => Some(ServerKind::Sglang),
            Self::Vllm => Some(ServerKind::Vllm),
        }
    }
}

impl From<ServerKind> for Backend {
    fn from(kind: ServerKind) -> Self {
        match kind {
            ServerKind::OpenAi => Self::OpenAi,
            ServerKind::Sglang => Self::Sglang,
            ServerKind::Vllm => Self::Vllm,
        }
    }
}

/// The keys of a server, as they stand in the table of what it plays.
#[derive(Default)]
pub(super) struct ServerKeys {
    pub(super) backend: Option<Backend>,
    pub(super) url: Option<String>,
    pub(super) urls: Option<Vec<String>>,
    pub(super) api: Option<Api>,
    pub(super) system: Option<String>,
    pub(super) served_model: Option<String>,
    pub(super) key_env: Option<String>,
    pub(super) concurrency: Option<usize>,
}

/// The names of the keys that only a server takes.
pub(super) const OF_SERVERS: [&str; 7] = ["urls", "url", "api", "system", "served_model", "key_env", "concurrency"];

impl ServerKeys {
    /// The keys that only a server takes, and whether each was given.
    pub(super) fn given(&self) -> [Given; 7] {
        let Self { backend: _, url, urls, api, system, served_model, key_env, concurrency } = self;
        [
            ("url", url.is_some()),
            ("urls", urls.is_some()),
            ("api", api.is_some()),
            ("system", system.is_some()),
            ("served_model", served_model.is_some()),
            ("key_env", key_env.is_some()),
            ("concurrency", concurrency.is_some()),
        ]
    }

    /// The server; none where the model is local.
    pub(super) fn server(self) -> Result<Option<ServedModel>, String> {
        let Some(backend) = self.backend.unwrap_or_default().server() else {
            return match self.given().iter().find(|(_, is_given)| *is_given) {
                Some((key, _)) => Err(format!(
                    "`{key}` does not go with backend = \"local\", which is the default: expected backend = \"openai\", \
                     \"sglang\" or \"vllm\" beside it"
                )),
                None => Ok(None),
            };
        };
        let with = format!("backend = {:?}", name(backend));
        let urls = required(addresses(self.url, self.urls)?, "urls", &with, "[\"http://127.0.0.1:8000\"]")?;
        let api = self.api.unwrap_or_default();
        if self.system.is_some() && api == Api::Completions {
            return Err("`system` goes with api = \"chat\": a plain completion has no system message".into());
        }
        if self.concurrency == Some(0) {
            return Err("`concurrency` is 0, expected at least 1".into());
        }
        let Self { system, served_model, key_env, concurrency, .. } = self;
        Ok(Some(ServedModel { backend, urls, api, system, served_model, key_env, concurrency }))
    }
}

impl From<ServedModel> for ServerKeys {
    fn from(server: ServedModel) -> Self {
        let ServedModel { backend, urls, api, system, served_model, key_env, concurrency } = server;
        let (backend, api) = (Some(backend.into()), (api != Api::default()).then_some(api));
        Self { backend, url: None, urls: Some(urls), api, system, served_model, key_env, concurrency }
    }
}

fn name(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::OpenAi => "openai",
        ServerKind::Sglang => "sglang",
        ServerKind::Vllm => "vllm",
    }
}

/// The addresses under `url` or `urls`, if there are any.
pub(super) fn addresses(url: Option<String>, urls: Option<Vec<String>>) -> Result<Option<Vec<String>>, String> {
    match (url, urls) {
        (Some(_), Some(_)) => Err("`url` stands beside `urls`, expected one of the two".into()),
        (Some(url), None) if url.trim().is_empty() => Err("`url` is empty, expected an address".into()),
        (Some(url), None) => Ok(Some(vec![url])),
        (None, Some(urls)) if urls.iter().all(|url| url.trim().is_empty()) => {
            Err("`urls` is empty, expected at least one address".into())
        }
        (None, urls) => Ok(urls),
    }
}

impl ServedModel {
    /// Addresses the server. It is asked for its list of models, so that one that is not there, or does not take the key, is known
    /// before the run.
    ///
    /// # Errors
    /// When the key's variable is not set, the server does not answer, or its model must be named.
    pub fn completer(&self) -> Result<OpenAiServer, EngineError> {
        let key = self.key_env.as_deref().map(|name| key_from_env(name).map_err(|_| EngineError::Key(name.into())));
        let key = key.transpose()?;
        let (url, offered) = self.offered(key.as_deref())?;
        let model = match (&self.served_model, offered.as_slice()) {
            (Some(name), offered) => {
                if !offered.is_empty() && !offered.contains(name) {
                    tracing::warn!("{url} does not list the model `{name}`, but {}", offered.join(", "));
                }
                name
            }
            (None, [one]) => one,
            (None, offered) => {
                return Err(EngineError::ModelName { url: url.into(), offered: offered.join(", ") });
            }
        };
        let mut server = match self.api {
            Api::Chat => OpenAiServer::chat_at(&self.urls, model),
            Api::Completions => OpenAiServer::completions_at(&self.urls, model),
        };
        if let Some(key) = key {
            server = server.with_key(key);
        }
        if let Some(system) = &self.system {
            server = server.with_system(system);
        }
        if let Some(concurrency) = self.concurrency {
            server = server.with_concurrency(concurrency);
        }
        Ok(server)
    }

    /// The models of the first server that answers: of several, some may be down when a run begins.
    fn offered(&self, key: Option<&str>) -> Result<(&str, Vec<String>), EngineError> {
        let mut first_error = None;
        for url in &self.urls {
            match served_models(url, key, RetryPolicy::default()) {
                Ok(offered) => return Ok((url, offered)),
                Err(error) if first_error.is_none() => first_error = Some(error),
                Err(_) => {}
            }
        }
        Err(first_error
            .map_or_else(|| EngineError::ModelName { url: String::new(), offered: String::new() }, EngineError::Server))
    }
}
