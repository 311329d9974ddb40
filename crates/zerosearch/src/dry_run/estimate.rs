//! Time and cost from rates that were measured.

use serde::Serialize;
use zerosearch_train::TrainConfig;

use super::{Rates, Tokens};

/// Time and cost of a run. A figure whose rate is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Whether it is of the expected tokens; else of the most.
    pub is_expected: bool,
    /// Seconds of a step's rollouts.
    pub rollouts_s: Option<f64>,
    /// Seconds of a step's update.
    pub update_s: Option<f64>,
    /// Hours of the run, without validations and checkpoints.
    pub hours: Option<f64>,
    /// Cost of the devices.
    pub devices_cost: Option<f64>,
    /// Cost of the searches.
    pub searches_cost: Option<f64>,
    /// Currency of the costs.
    pub currency: String,
    /// Origin of the rates.
    pub source: String,
}

impl Estimate {
    /// The estimate, where any rate is known.
    pub(super) fn of(rates: &Rates, expected: Option<&Tokens>, at_most: &Tokens, train: &TrainConfig) -> Option<Self> {
        let tokens = expected.unwrap_or(at_most);
        let rollouts_s = rates.decoded_tokens_per_s.map(|rate| tokens.step.policy_tokens / rate);
        let update_s = rates.trained_tokens_per_s.map(|rate| tokens.step.trained_tokens / rate);
        let step_s = rollouts_s.zip(update_s).map(|(rollouts, update)| match train.staleness {
            0 => rollouts + update,
            // One beside the other.
            _ => rollouts.max(update),
        });
        let hours = step_s.map(|seconds| seconds * train.steps as f64 / 3600.0);
        let searches_cost = rates.price_per_1000_searches.map(|price| price * tokens.run.searches / 1000.0);
        (rollouts_s.is_some() || update_s.is_some() || searches_cost.is_some()).then(|| Self {
            is_expected: expected.is_some(),
            rollouts_s,
            update_s,
            hours,
            devices_cost: hours.zip(rates.price_per_hour).map(|(hours, price)| hours * price),
            searches_cost,
            currency: rates.currency.clone(),
            source: rates.source.clone(),
        })
    }
}
