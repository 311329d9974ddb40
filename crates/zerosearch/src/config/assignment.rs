//! `--set key.path=value`.

use super::ConfigError;

/// So many values that may be texts or something else are tried in all combinations.
pub(super) const MOST_DOUBTFUL: usize = 12;

/// A `key.path=value`.
pub(super) struct Assignment<'a> {
    whole: &'a str,
    path: &'a str,
    text: &'a str,
    value: toml::Value,
}

impl<'a> Assignment<'a> {
    pub(super) fn parse(whole: &'a str) -> Result<Self, ConfigError> {
        let (path, text) = whole.split_once('=').ok_or_else(|| failed(whole, "has no ="))?;
        let (path, text) = (path.trim(), text.trim());
        if path.is_empty() {
            return Err(failed(whole, "has no key"));
        }
        if text.is_empty() {
            return Err(failed(whole, "has no value"));
        }
        // A value that is no TOML is a text: --set model=models/other needs no quotes.
        let parsed = toml::from_str::<toml::Table>(&format!("v = {text}")).ok().filter(|parsed| parsed.len() == 1);
        let value = parsed.and_then(|mut parsed| parsed.remove("v"));
        Ok(Self { whole, path, text, value: value.unwrap_or_else(|| text.into()) })
    }

    /// Whether the value has another reading, as a text.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.value.is_str() && !self.value.is_table()
    }

    pub(super) fn apply(&self, table: &mut toml::Table, as_text: bool) -> Result<(), ConfigError> {
        let mut keys: Vec<&str> = self.path.split('.').map(str::trim).collect();
        let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(|| failed(self.whole, "has no key"))?;
        let mut table = table;
        for key in keys {
            let entry = table.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = entry.as_table_mut().ok_or_else(|| failed(self.whole, "goes through a key that is no table"))?;
        }
        let value = if as_text { self.text.into() } else { self.value.clone() };
        table.insert(last.to_string(), value);
        Ok(())
    }
}

fn failed(assignment: &str, message: &str) -> ConfigError {
    ConfigError::Assignment { assignment: assignment.into(), message: message.into() }
}
