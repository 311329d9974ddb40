//! The tables `[dry_run]` and `[rates]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DryRunError;

/// The table `[dry_run]`: figures that a [`DryRun`](super::DryRun) cannot take from the rest of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DryRunConfig {
    /// Memory of the training device in GiB. A run that needs more is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<f64>,
    /// Expected tokens of a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<f64>,
    /// Expected tokens that the policy samples in a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_tokens: Option<f64>,
    /// Expected searches of a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searches: Option<f64>,
    /// Expected tokens of a search's documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observation_tokens: Option<f64>,
    /// Folders with a `config.json` of the same sizes, by a model folder of the file that is not on this machine. Relative paths begin
    /// at the configuration file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, PathBuf>,
}

/// The table `[rates]`: measured speeds and prices, from which a [`DryRun`](super::DryRun) estimates time and cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Tokens that the policy samples in a second of rollouts, searches included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded_tokens_per_s: Option<f64>,
    /// Tokens of rollouts, prompts and documents included, that an update takes in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_tokens_per_s: Option<f64>,
    /// Price of an hour of all devices together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
    /// Price of a thousand searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_1000_searches: Option<f64>,
    /// Currency of the prices.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// Origin of the figures.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

impl DryRunConfig {
    /// Refuses values out of range.
    pub(super) fn check(&self) -> Result<(), DryRunError> {
        above_zero("dry_run.memory_gib", self.memory_gib)?;
        let expected = [
            ("dry_run.prompt_tokens", self.prompt_tokens),
            ("dry_run.policy_tokens", self.policy_tokens),
            ("dry_run.searches", self.searches),
            ("dry_run.observation_tokens", self.observation_tokens),
        ];
        expected.into_iter().try_for_each(|(key, value)| zero_or_more(key, value))
    }

    /// These figures, and those of another table where this has none.
    #[must_use]
    pub(super) fn or(mut self, other: &Self) -> Self {
        self.prompt_tokens = self.prompt_tokens.or(other.prompt_tokens);
        self.policy_tokens = self.policy_tokens.or(other.policy_tokens);
        self.searches = self.searches.or(other.searches);
        self.observation_tokens = self.observation_tokens.or(other.observation_tokens);
        self
    }
}

impl Rates {
    /// Refuses values out of range.
    pub(super) fn check(&self) -> Result<(), DryRunError> {
        above_zero("rates.decoded_tokens_per_s", self.decoded_tokens_per_s)?;
        above_zero("rates.trained_tokens_per_s", self.trained_tokens_per_s)?;
        zero_or_more("rates.price_per_hour", self.price_per_hour)?;
        zero_or_more("rates.price_per_1000_searches", self.price_per_1000_searches)
    }

    /// These rates, and those of another table where this has none.
    #[must_use]
    pub(super) fn or(mut self, other: &Self) -> Self {
        self.decoded_tokens_per_s = self.decoded_tokens_per_s.or(other.decoded_tokens_per_s);
        self.trained_tokens_per_s = self.trained_tokens_per_s.or(other.trained_tokens_per_s);
        self.price_per_hour = self.price_per_hour.or(other.price_per_hour);
        self.price_per_1000_searches = self.price_per_1000_searches.or(other.price_per_1000_searches);
        for (own, other) in [(&mut self.currency, &other.currency), (&mut self.source, &other.source)] {
            if own.is_empty() {
                own.clone_from(other);
            }
        }
        self
    }
}

fn above_zero(key: &'static str, value: Option<f64>) -> Result<(), DryRunError> {
    match value.filter(|value| !(value.is_finite() && *value > 0.0)) {
        Some(value) => Err(DryRunError::Key { key, value, expected: "a number above 0" }),
        None => Ok(()),
    }
}

fn zero_or_more(key: &'static str, value: Option<f64>) -> Result<(), DryRunError> {
    match value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
        Some(value) => Err(DryRunError::Key { key, value, expected: "a number, 0 or more" }),
        None => Ok(()),
    }
}
