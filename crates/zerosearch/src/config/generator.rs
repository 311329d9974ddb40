//! Servers that decode the policy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zerosearch_generate::{GenerateError, Generator, WeightVersion};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{LanguageModel, LmError};
use zerosearch_remote::{RetryPolicy, SglangGenerator, VllmGenerator};
use zerosearch_train::TrainConfig;

use super::is_default;
use crate::ServedPolicy;

/// Servers that decode the policy during training.
///
/// Their kernels are not the trainer's, and neither are the log-probabilities that they report. So where a file with a served policy has
/// neither `train.old_logprobs` nor `train.importance_sampling`, they are `"recomputed"` and the default truncated importance
/// sampling; `old_logprobs = "generator"` takes the server's for exact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GeneratorConfig {
    /// SGLang. It is given the whole policy after every update.
    Sglang {
        /// Its address.
        #[serde(default, skip_serializing_if = "is_default")]
        url: String,
        /// The addresses of several, beside or in the place of `url`.
        #[serde(default, skip_serializing_if = "is_default")]
        urls: Vec<String>,
        /// The folder through which it is given new weights, under the same path on its machine; `served` in the run's folder
        /// if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
        /// Whether it is sent a seed with every turn, so that a run repeats. It must then have been started with
        /// `--enable-deterministic-inference`.
        #[serde(default = "yes")]
        seeds: bool,
    },
    /// vLLM. It is given the policy's adapters after every update, so `train.lora` must be there.
    Vllm {
        /// Its address.
        #[serde(default, skip_serializing_if = "is_default")]
        url: String,
        /// The addresses of several, beside or in the place of `url`.
        #[serde(default, skip_serializing_if = "is_default")]
        urls: Vec<String>,
        /// The folder through which it is given new adapters, under the same path on its machine; `served` in the run's folder
        /// if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
        /// Whether it is sent a seed with every turn. A run repeats to the bit where it was started with `VLLM_BATCH_INVARIANT=1`.
        #[serde(default = "yes")]
        seeds: bool,
    },
}

fn yes() -> bool {
    true
}

/// A run waits for its servers for some minutes: so long one takes that is started again.
const PATIENCE: RetryPolicy = RetryPolicy {
    timeout: Duration::from_secs(300),
    attempts: 40,
    first_pause: Duration::from_millis(250),
    longest_pause: Duration::from_secs(8),
};

impl GeneratorConfig {
    /// The addresses of the servers.
    pub fn urls(&self) -> Vec<&str> {
        let (Self::Sglang { url, urls, .. } | Self::Vllm { url, urls, .. }) = self;
        std::iter::once(url).filter(|url| !url.is_empty()).chain(urls).map(String::as_str).collect()
    }

    /// Refuses what cannot work with this training: no address, or whole weights on vLLM.
    ///
    /// # Errors
    /// Names the key and what is expected.
    pub fn check(&self, train: &TrainConfig) -> Result<(), LmError> {
        if self.urls().is_empty() {
            return Err(LmError::Config {
                path: "policy".into(),
                key: "urls".into(),
                value: "empty".into(),
                expected: "the address of at least one server, such as [\"http://localhost:30000\"]".into(),
            });
        }
        match (self, &train.lora) {
            (Self::Vllm { .. }, None) => Err(ServedPolicy::needs_adapters()),
            _ => Ok(()),
        }
    }

    /// Addresses the servers. Nothing is sent yet.
    pub fn generator(&self, model: &LanguageModel, format: &EpisodeFormat, out: impl AsRef<Path>) -> ServedPolicy {
        let (urls, context, stop) = (self.urls(), model.config.max_positions, format.stop_tags());
        let (Self::Sglang { folder, seeds, .. } | Self::Vllm { folder, seeds, .. }) = self;
        let folder = folder.clone().unwrap_or_else(|| out.as_ref().join("served"));
        match self {
            Self::Sglang { .. } => {
                let server = SglangGenerator::at(&urls, context).with_stop_strings(stop).with_retry(PATIENCE);
                ServedPolicy::new(if *seeds { server.with_seeds() } else { server }, model, folder)
            }
            Self::Vllm { .. } => {
                let server = VllmGenerator::at(&urls, context).with_stop_strings(stop).with_retry(PATIENCE);
                ServedPolicy::vllm(if *seeds { server.with_seeds() } else { server }, model, folder)
            }
        }
    }

    /// A generator for a policy that does not change. SGLang is made to load the model's own folder, under the path that it has here;
    /// vLLM serves the model that it was started with.
    ///
    /// # Errors
    /// When no server is there, or one cannot load the folder.
    pub fn generator_of(
        &self,
        model: &LanguageModel,
        folder: &Path,
        format: &EpisodeFormat,
    ) -> Result<Box<dyn Generator>, GenerateError> {
        let (urls, context, stop) = (self.urls(), model.config.max_positions, format.stop_tags());
        match self {
            Self::Sglang { seeds, .. } => {
                let server = SglangGenerator::at(&urls, context).with_stop_strings(stop);
                let mut server = if *seeds { server.with_seeds() } else { server };
                let absolute = std::path::absolute(folder).ok();
                let path = absolute.as_deref().and_then(Path::to_str).ok_or_else(|| GenerateError::Remote {
                    endpoint: urls.join(", "),
                    message: format!(
                        "{} has no absolute path in UTF-8, which the server could be told",
                        folder.display()
                    ),
                })?;
                server.refit(path, WeightVersion::default())?;
                Ok(Box::new(server))
            }
            Self::Vllm { seeds, .. } => {
                let server = VllmGenerator::at(&urls, context).with_stop_strings(stop);
                let server = if *seeds { server.with_seeds() } else { server };
                server.check()?;
                Ok(Box::new(server))
            }
        }
    }
}
