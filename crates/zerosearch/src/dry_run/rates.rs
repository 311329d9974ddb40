//! Rates that were measured: from a file, or from the figures of a finished run.

use std::path::Path;

use serde_json::{Map, Value};
use zerosearch_files::{FileError, parse_rows, read_text};
use zerosearch_generate::Role;
use zerosearch_train::{latest_config, read_ledger};

use super::{DryRunConfig, DryRunError, Rates};

/// Rates and lengths of rollouts that were measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) rates: Rates,
    pub(super) rollouts: DryRunConfig,
    /// Tokens of the simulator for a search.
    pub(super) simulated_tokens: Option<f64>,
}

impl Measured {
    /// Reads the folder of a run, or a TOML file with the keys of `[rates]`.
    pub(super) fn read(path: &Path) -> Result<Self, DryRunError> {
        if path.is_dir() {
            return Self::of_run(path);
        }
        let failed = |error: toml::de::Error| DryRunError::Rates { path: path.into(), message: error.to_string() };
        let mut rates: Rates = toml::from_str(&read_text(path)?).map_err(failed)?;
        rates.check()?;
        if rates.source.is_empty() {
            rates.source = path.display().to_string();
        }
        Ok(Self { rates, ..Self::default() })
    }

    /// Sums over the steps in `metrics.jsonl`; the simulator's tokens from `ledger.json`.
    fn of_run(folder: &Path) -> Result<Self, DryRunError> {
        let path = folder.join("metrics.jsonl");
        let failed = |message: String| DryRunError::Rates { path: path.clone(), message };
        let bytes = std::fs::read(&path).map_err(FileError::read(&path))?;
        let rows: Vec<Map<String, Value>> =
            parse_rows(&path, &bytes, serde_json::from_slice).map_err(|error| failed(error.to_string()))?;
        let mut totals = Totals::default();
        rows.iter().for_each(|row| totals.add(row));
        if totals.steps == 0.0 || totals.rollout_s <= 0.0 || totals.update_s <= 0.0 {
            return Err(failed(format!(
                "{} rows and no step with `timing_s/rollout`, `timing_s/update`, `cost/policy_tokens_in` and \
                 `cost/policy_tokens_out`: expected the folder of a run that took steps",
                rows.len()
            )));
        }
        let epochs = latest_config(folder.join("checkpoints"))?.map_or(1.0, |config| config.epochs as f64);
        let used = read_ledger(folder.join("ledger.json"))?;
        let simulated_tokens = match (used.get(&Role::Simulator), used.get(&Role::Engine)) {
            (Some(simulator), Some(engine)) if engine.calls > 0 => {
                Some(simulator.tokens_out as f64 / engine.calls as f64)
            }
            _ => None,
        };
        let source = format!("{} ({} steps)", folder.display(), totals.steps);
        Ok(Self { rates: totals.rates(epochs, source), rollouts: totals.rollouts(), simulated_tokens })
    }
}

/// Sums over steps.
#[derive(Default)]
struct Totals {
    steps: f64,
    rollout_s: f64,
    update_s: f64,
    sampled: f64,
    read: f64,
    policy_tokens: f64,
    prompt_tokens: f64,
    response_tokens: f64,
    searches: f64,
}

impl Totals {
    /// Adds a row; one that lacks a figure, as that of an older version does, is left out.
    fn add(&mut self, row: &Map<String, Value>) {
        let figure = |name: &str| row.get(name).and_then(Value::as_f64);
        let figures = (
            figure("timing_s/rollout"),
            figure("timing_s/update"),
            figure("cost/policy_tokens_out"),
            figure("cost/policy_tokens_in"),
            figure("env/policy_tokens"),
        );
        let (Some(rollout_s), Some(update_s), Some(sampled), Some(read), Some(policy_tokens)) = figures else { return };
        self.steps += 1.0;
        self.rollout_s += rollout_s;
        self.update_s += update_s + figure("timing_s/refit").unwrap_or(0.0);
        self.sampled += sampled;
        self.read += read;
        self.policy_tokens += policy_tokens;
        self.prompt_tokens += figure("prompt_length/mean").unwrap_or(0.0);
        self.response_tokens += figure("response_length/mean").unwrap_or(0.0);
        self.searches += figure("env/number_of_valid_search").unwrap_or(0.0);
    }

    fn rates(&self, epochs: f64, source: String) -> Rates {
        Rates {
            decoded_tokens_per_s: Some(self.sampled / self.rollout_s),
            trained_tokens_per_s: Some(epochs * (self.sampled + self.read) / self.update_s),
            source,
            ..Rates::default()
        }
    }

    /// Means of a rollout.
    fn rollouts(&self) -> DryRunConfig {
        let mean = |sum: f64| Some(sum / self.steps);
        let documents = (self.response_tokens - self.policy_tokens).max(0.0);
        DryRunConfig {
            prompt_tokens: mean(self.prompt_tokens),
            policy_tokens: mean(self.policy_tokens),
            searches: mean(self.searches),
            observation_tokens: (self.searches > 0.0).then(|| documents / self.searches),
            ..DryRunConfig::default()
        }
    }
}
