//! Where the policy is decoded.

use serde::{Deserialize, Serialize};

use super::GeneratorConfig;

/// The table `[policy]`: `backend = "local"`, or a server's name and the keys of its [`GeneratorConfig`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub struct PolicyConfig(pub Option<GeneratorConfig>);

impl TryFrom<toml::Table> for PolicyConfig {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let backend = table.remove("backend").unwrap_or_else(|| "local".into());
        if backend.as_str() == Some("local") {
            return match table.keys().next() {
                Some(key) => Err(format!(
                    "`{key}` does not go with backend = \"local\", which is the default: expected backend = \"sglang\" beside it"
                )),
                None => Ok(Self(None)),
            };
        }
        if table.contains_key("kind") {
            return Err("`kind` is unknown here, expected `backend`".into());
        }
        if let Some(toml::Value::Array(urls)) = table.get("urls") {
            if table.contains_key("url") {
                return Err("`url` stands beside `urls`, expected one of the two".into());
            }
            if let [url] = urls.as_slice() {
                table.insert("url".into(), url.clone());
                table.remove("urls");
            }
        }
        table.insert("kind".into(), backend);
        let config = GeneratorConfig::deserialize(toml::Value::Table(table));
        config.map(|config| Self(Some(config))).map_err(|error| error.message().replace("`url`", "`urls`"))
    }
}

impl From<PolicyConfig> for toml::Table {
    fn from(PolicyConfig(generator): PolicyConfig) -> Self {
        let table = generator.and_then(|generator| Self::try_from(generator).ok()).unwrap_or_default();
        let backend = table.get("kind").cloned().unwrap_or_else(|| "local".into());
        let urls =
            table.get("url").filter(|url| url.as_str() != Some("")).map(|url| toml::Value::Array(vec![url.clone()]));
        let rest = table.into_iter().filter(|(key, _)| key != "kind" && key != "url");
        let own = [("backend".to_string(), backend)].into_iter().chain(urls.map(|urls| ("urls".to_string(), urls)));
        // Several addresses stand under `urls` themselves.
        own.chain(rest).collect()
    }
}
