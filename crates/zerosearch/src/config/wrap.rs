//! Wrappers around an engine.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_generate::{Ledger, Role};
use zerosearch_search::{Budgeted, Cached, RateLimited, Replay, SearchEngine};

use super::{EngineConfig, EngineError};

/// Wrappers around an engine, from the outside: an answer is looked for in the cache, then paid for, and then waits for its turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrapConfig {
    /// A JSONL file that records every answer, across runs. Another name of the key is `record`.
    #[serde(alias = "record", skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// A file that `cache` left: it answers alone, and the engine is neither read nor asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<PathBuf>,
    /// The most queries in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<f64>,
    /// The most queries in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetConfig>,
}

/// The most queries that an engine is asked: `calls`, or as many as an `amount` of money pays for at a `price` each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// The number of queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// An amount of money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<f64>,
    /// The price of a query in the same currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// A file that keeps the count, so that a resumed run goes on with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl WrapConfig {
    /// Puts the wrappers around an engine, which is read only where it is needed.
    pub(super) fn around(
        &self,
        engine: &EngineConfig,
        device: &Device,
        ledger: &Ledger,
    ) -> Result<Box<dyn SearchEngine>, EngineError> {
        let prompt = engine.simulator_prompt()?;
        if let Some(file) = &self.replay {
            return Ok(Box::new(match &prompt {
                Some(prompt) => Replay::simulated(file, prompt.source())?,
                None => Replay::read(file)?,
            }));
        }
        let mut inside = engine.read_with(device, ledger)?;
        if let Some(per_second) = self.rate_limit {
            inside = Box::new(RateLimited::new(inside, per_second)?);
        }
        if let Some(budget) = &self.budget {
            let calls = budget.calls()?;
            inside = match &budget.file {
                Some(file) => Box::new(Budgeted::with_file(inside, calls, file)?),
                None => Box::new(Budgeted::new(inside, calls)),
            };
        }
        if let Some(file) = &self.cache {
            let cached = match &prompt {
                Some(prompt) => Cached::simulated(inside, file, prompt.source())?,
                None => Cached::with_file(inside, file)?,
            };
            inside = Box::new(cached.with_account(ledger.account(Role::Engine)));
        }
        Ok(inside)
    }

    /// Refuses keys that contradict each other.
    pub(super) fn check(&self) -> Result<(), String> {
        let beside = [
            ("cache", self.cache.is_some()),
            ("rate_limit", self.rate_limit.is_some()),
            ("budget", self.budget.is_some()),
        ];
        match beside.iter().find(|(_, is_given)| self.replay.is_some() && *is_given) {
            Some((key, _)) => {
                Err(format!("`wrap.{key}` stands beside `wrap.replay`, which answers alone: expected one of the two"))
            }
            None => self.budget.as_ref().map_or(Ok(()), BudgetConfig::check),
        }
    }
}

impl BudgetConfig {
    fn check(&self) -> Result<(), String> {
        match (self.calls, self.amount, self.price) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(()),
            _ => {
                Err("`wrap.budget` takes `calls`, or `amount` and `price`: expected for example { calls = 1000 }"
                    .into())
            }
        }
    }

    fn calls(&self) -> Result<u64, EngineError> {
        Ok(match self.calls {
            Some(calls) => calls,
            None => Budgeted::calls_for(self.amount.unwrap_or_default(), self.price.unwrap_or_default())?,
        })
    }
}
