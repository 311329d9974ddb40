//! A configuration with all its defaults, to be read by people.

use toml::{Table, Value};
use zerosearch_http::HttpError;

use super::{ConfigError, Tables};

impl Tables {
    /// The whole effective configuration as TOML, defaults included. Keys that are off where they are left out are not there.
    /// Keys of services stand in the environment and not here; a user, a password or a query of an address is left out.
    ///
    /// # Errors
    /// When a path is no UTF-8, which TOML cannot hold.
    pub fn effective(&self) -> Result<String, ConfigError> {
        let failed = |error: toml::ser::Error| ConfigError::Print(error.to_string());
        let mut table = Table::try_from(self).map_err(failed)?;
        fill(&mut table, &[("device", &self.device.to_string()), ("reward", &self.reward.to_string())]);
        for (name, key, value) in [("policy", "backend", "local"), ("judge", "kind", "rule")] {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            fill_in(Some(inner), &[(key, value)]);
        }
        let rollout = table.get_mut("train").and_then(|train| train.get_mut("rollout"));
        fill_in(rollout, &[("format", "default")]);
        for (name, all) in [("collect", Table::try_from(&self.collect)), ("tune", Table::try_from(&self.tune))] {
            table.insert(name.into(), all.map_err(failed)?.into());
        }
        for name in ["engine", "judge"] {
            complete(table.get_mut(name));
        }
        complete(table.get_mut("validation").and_then(|validation| validation.get_mut("engine")));
        shown(&mut table);
        toml::to_string(&table).map_err(failed)
    }
}

fn fill_in(table: Option<&mut Value>, defaults: &[(&str, &str)]) {
    if let Some(Value::Table(table)) = table {
        fill(table, defaults);
    }
}

fn fill(table: &mut Table, defaults: &[(&str, &str)]) {
    for (key, value) in defaults {
        table.entry(*key).or_insert_with(|| (*value).into());
    }
}

/// The defaults of an engine or a judge, by its kind.
fn complete(table: Option<&mut Value>) {
    let Some(Value::Table(table)) = table else { return };
    let is = |table: &Table, key: &str, value: &str| table.get(key).and_then(Value::as_str) == Some(value);
    if is(table, "kind", "retriever") {
        fill(table, &[("dialect", "search_r1")]);
    }
    if is(table, "kind", "simulator") {
        fill(table, &[("mode", "sft")]);
    }
    if is(table, "kind", "simulator") || is(table, "kind", "llm") {
        fill(table, &[("backend", "local")]);
        if !is(table, "backend", "local") {
            fill(table, &[("api", "chat")]);
        }
    }
}

/// Addresses as they may be shown, and single-precision numbers in their own digits.
fn shown(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => shown(inner),
            Value::String(url) if key == "url" => *url = HttpError::new(url, "").endpoint,
            Value::Array(urls) if key == "urls" => {
                for url in urls {
                    if let Value::String(url) = url {
                        *url = HttpError::new(url, "").endpoint;
                    }
                }
            }
            Value::Float(number) => *number = in_own_digits(*number),
            _ => {}
        }
    }
}

/// 0.8, where 0.800000011920929 is the same number in single precision.
fn in_own_digits(number: f64) -> f64 {
    let single = number as f32;
    if f64::from(single) == number { single.to_string().parse().unwrap_or(number) } else { number }
}
