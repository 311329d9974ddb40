//! The place where the policy is decoded.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use zerosearch_generate::Generator;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{LanguageModel, LmError, LocalGenerator};

use super::GeneratorConfig;
use super::keys::required;

/// The table `[policy]`: `backend = "local"`, or a server's name and the keys of its [`GeneratorConfig`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub struct PolicyConfig(pub Option<GeneratorConfig>);

impl PolicyConfig {
    /// A generator for a policy that does not change: of this process, on the device, or of the server
    /// ([`GeneratorConfig::generator_of`]). `folder` is the model's own.
    ///
    /// # Errors
    /// When the model does not fit the device, or no server is there or can load the folder.
    pub fn generator(
        &self,
        model: &LanguageModel,
        folder: &Path,
        format: &EpisodeFormat,
        device: &Device,
    ) -> Result<Box<dyn Generator>, LmError> {
        match &self.0 {
            Some(served) => Ok(served.generator_of(model, folder, format)?),
            None => Ok(Box::new(LocalGenerator::for_model_on(model, device)?)),
        }
    }
}

impl TryFrom<Table> for PolicyConfig {
    type Error = String;

    fn try_from(mut table: Table) -> Result<Self, String> {
        let backend = table.remove("backend").unwrap_or_else(|| "local".into());
        if backend.as_str() == Some("local") {
            return match table.keys().next() {
                Some(key) => Err(format!(
                    "`{key}` does not go with backend = \"local\", which is the default: expected backend = \"sglang\" or \"vllm\" \
                     beside it"
                )),
                None => Ok(Self(None)),
            };
        }
        if table.contains_key("kind") {
            return Err("`kind` is unknown here, expected `backend`".into());
        }
        let with = format!("backend = {backend}");
        // One address is one address, under either key.
        if let Some(Value::Array(urls)) = table.get("urls")
            && let ([url], false) = (urls.as_slice(), table.contains_key("url"))
        {
            table.insert("url".into(), url.clone());
            table.remove("urls");
        }
        table.insert("kind".into(), backend);
        let config = GeneratorConfig::deserialize(Value::Table(table)).map_err(|error| error.message().to_string())?;
        required(config.urls().first(), "urls", &with, "[\"http://127.0.0.1:30000\"]")?;
        Ok(Self(Some(config)))
    }
}

impl From<PolicyConfig> for Table {
    fn from(PolicyConfig(generator): PolicyConfig) -> Self {
        let Some(generator) = generator else { return Self::from_iter([("backend".to_string(), "local".into())]) };
        let urls: Value = generator.urls().into_iter().map(Value::from).collect::<Vec<_>>().into();
        let mut table = Self::try_from(generator).unwrap_or_default();
        table.remove("url");
        let backend = table.remove("kind").unwrap_or_else(|| "local".into());
        table.insert("backend".into(), backend);
        table.insert("urls".into(), urls);
        table
    }
}
