//! Judges, which say whether the answer can be found in documents.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_generate::{Ledger, Role};
use zerosearch_simulator::{CompleterJudge, Judge, RuleJudge};

use super::keys::{Given, refuse_misplaced, required};
use super::served_model::{Api, Backend, OF_SERVERS, ServerKeys};
use super::simulator::local;
use super::{EngineError, ServedModel};

/// The table `[judge]`: the judge that labels interactions.
///
/// ```
/// use zerosearch::burn::tensor::Device;
/// use zerosearch::config::JudgeConfig;
///
/// let judge = JudgeConfig::default().read_on(&Device::flex())?;
/// assert_eq!(judge.undecided(), 0);
/// # Ok::<(), zerosearch::config::EngineError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "JudgeKeys", into = "JudgeKeys")]
pub enum JudgeConfig {
    /// The exact rule: some document mentions a golden answer.
    #[default]
    Rule,
    /// A language model of this process, from its folder.
    Local(PathBuf),
    /// A language model on a server.
    Served(ServedModel),
}

impl JudgeConfig {
    /// Reads the model, or addresses the server.
    ///
    /// # Errors
    /// When a file of the folder is missing or broken, or the server cannot be used.
    pub fn read_on(&self, device: &Device) -> Result<Box<dyn Judge>, EngineError> {
        self.read_with(device, &Ledger::new())
    }

    /// As [`read_on`](Self::read_on); a model reports what it uses to a ledger.
    ///
    /// # Errors
    /// As [`read_on`](Self::read_on).
    pub fn read_with(&self, device: &Device, ledger: &Ledger) -> Result<Box<dyn Judge>, EngineError> {
        let account = ledger.account(Role::Judge);
        Ok(match self {
            Self::Rule => Box::new(RuleJudge),
            Self::Local(model) => Box::new(CompleterJudge::new(local(model, device)?.with_account(account))),
            Self::Served(server) => Box::new(CompleterJudge::new(server.completer()?.with_account(account))),
        })
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Rule,
    Llm,
}

/// The keys of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeKeys {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<Backend>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
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
}

impl TryFrom<JudgeKeys> for JudgeConfig {
    type Error = String;

    fn try_from(keys: JudgeKeys) -> Result<Self, String> {
        let JudgeKeys { kind, backend, model, url, urls, api, system, served_model, key_env, concurrency } = keys;
        let is_local = backend.unwrap_or_default() == Backend::Local;
        let keys = ServerKeys { backend, url, urls, api, system, served_model, key_env, concurrency };
        let own = [("backend", backend.is_some()), ("model", model.is_some())];
        let given: Vec<Given> = own.into_iter().chain(keys.given()).collect();
        if let Kind::Rule = kind {
            return refuse_misplaced(&given, &[], "kind = \"rule\"").map(|()| Self::Rule);
        }
        if !is_local {
            let taken: Vec<&str> = ["backend"].into_iter().chain(OF_SERVERS).collect();
            refuse_misplaced(&given, &taken, "a backend that is a server")?;
        }
        match keys.server()? {
            Some(server) => Ok(Self::Served(server)),
            None => Ok(Self::Local(required(
                model,
                "model",
                "kind = \"llm\" with backend = \"local\"",
                "\"models/judge\"",
            )?)),
        }
    }
}

impl From<JudgeConfig> for JudgeKeys {
    fn from(judge: JudgeConfig) -> Self {
        let (kind, model, server) = match judge {
            JudgeConfig::Rule => (Kind::Rule, None, ServerKeys::default()),
            JudgeConfig::Local(model) => (Kind::Llm, Some(model), ServerKeys::default()),
            JudgeConfig::Served(server) => (Kind::Llm, None, server.into()),
        };
        let ServerKeys { backend, url, urls, api, system, served_model, key_env, concurrency } = server;
        Self { kind, backend, model, url, urls, api, system, served_model, key_env, concurrency }
    }
}
