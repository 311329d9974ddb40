//! The tables that make a simulator.

use toml::{Table, Value};

use super::{ConfigError, EngineConfig, Tables};
use crate::simulator_training::SimulatorTrainingConfig;

/// Keys of an engine, a policy or a judge that may change while a run is resumed: servers move, budgets are raised.
const MOVABLE: [&str; 6] = ["url", "urls", "wrap", "key_env", "concurrency", "folder"];

impl Tables {
    /// The settings of a simulator's making, from `[collect]`, `[tune]` and `[train]`.
    pub fn simulator_training(&self) -> SimulatorTrainingConfig {
        let Self { train, collect, tune, .. } = self;
        let (collect, tune) = (collect.clone(), tune.clone());
        SimulatorTrainingConfig { seed: train.seed, rollout: train.rollout, collect, tune }
    }

    /// The engine that interactions are collected with.
    ///
    /// # Errors
    /// When there is none, or it is a simulator.
    pub fn engine_of_collection(&self) -> Result<&EngineConfig, ConfigError> {
        let found = match &self.engine {
            None => "missing",
            Some(EngineConfig::None) => "\"none\"",
            Some(engine) if engine.is_simulated() => "a simulator",
            Some(engine) => return Ok(engine),
        };
        Err(ConfigError::NoRealEngine { found })
    }

    /// The names of model, policy, engine and judge, for
    /// [`SimulatorTraining::settings`](crate::simulator_training::SimulatorTraining::settings): without addresses and wrappers, which may
    /// change while a run is resumed.
    ///
    /// # Errors
    /// As [`effective`](Self::effective).
    pub fn settings_of_collection(&self) -> Result<serde_json::Value, ConfigError> {
        let failed = |error: String| ConfigError::Print(error);
        let all: Table = toml::from_str(&self.effective()?).map_err(|error| failed(error.to_string()))?;
        let chosen = ["model", "policy", "engine", "judge"].into_iter().filter_map(|name| {
            let mut value = all.get(name)?.clone();
            if let Value::Table(table) = &mut value {
                table.retain(|key, _| !MOVABLE.contains(&key));
            }
            Some((name.to_string(), value))
        });
        serde_json::to_value(chosen.collect::<Table>()).map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> Tables {
        Tables::parse("file.toml", text, &[]).unwrap()
    }

    #[test]
    fn only_a_real_engine_is_collected_with() {
        for (text, expected) in [
            ("[engine]\nkind = \"bm25\"\ncorpus = \"c\"", None),
            ("[engine]\nkind = \"web\"\nprovider = \"serper\"", None),
            ("", Some("`engine` is missing")),
            ("[engine]\nkind = \"none\"", Some("`engine` is \"none\"")),
            ("[engine]\nkind = \"simulator\"\nmodel = \"m\"", Some("`engine` is a simulator")),
            ("[engine]\nkind = \"simulator\"\nmodel = \"m\"\nmode = \"prompt\"", Some("`engine` is a simulator")),
        ] {
            let message = tables(text).engine_of_collection().err().map(|error| error.to_string());
            assert!(message.as_deref().is_none_or(|message| message.contains("--data FILE")));
            assert_eq!(message.is_some(), expected.is_some(), "{text}");
            assert!(message.is_none_or(|message| message.contains(expected.unwrap_or_default())), "{text}");
        }
    }

    #[test]
    fn a_run_is_the_same_wherever_its_servers_are() {
        let settings = |text: &str| {
            let text = format!("model = \"m\"\n[engine]\nkind = \"retriever\"\n{text}");
            tables(&text).settings_of_collection().unwrap()
        };
        assert_eq!(settings("url = \"http://a\""), settings("url = \"http://b\"\nwrap = { budget = { calls = 9 } }"));
        assert_ne!(settings("url = \"http://a\""), settings("url = \"http://a\"\ndialect = \"zerosearch\""));
    }

    #[test]
    fn the_tables_of_a_simulator_are_read_and_printed_with_their_defaults() {
        let tables = tables("[train]\nseed = 7\n[collect]\nchunk = 5\n[tune]\nsteps = 9\nlora = { rank = 4 }");
        let config = tables.simulator_training();
        assert_eq!((config.seed, config.collect.chunk, config.tune.steps), (7, 5, 9));
        assert_eq!(config.tune.lora.as_ref().map(|lora| lora.rank), Some(4));
        let printed = tables.effective().unwrap();
        assert!(printed.contains("contrast = true") && printed.contains("held_out = 0.1"), "{printed}");
        assert_eq!(Tables::parse("printed", &printed, &[]).unwrap().simulator_training(), config);
        let message = Tables::parse("f", "[tune]\nrank = 4", &[]).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("rank"), "{message}");
    }
}
