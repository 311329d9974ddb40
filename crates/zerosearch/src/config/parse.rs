//! From a file's text and assignments to typed tables.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::assignment::{Assignment, MOST_DOUBTFUL};

/// Reads a text with assignments on top of it. Messages name the key and, where it stands in the text, its line.
pub(super) fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    assignments: &[String],
) -> Result<(T, toml::Table), ConfigError> {
    let failed = |error: toml::de::Error| ConfigError::Parse { path: path.into(), message: located(text, error) };
    let table: toml::Table = toml::from_str(text).map_err(failed)?;
    if assignments.is_empty() {
        // Straight from the text, so that messages have line and column.
        return toml::from_str(text).map(|tables| (tables, table)).map_err(failed);
    }
    let assignments = assignments.iter().map(|assignment| Assignment::parse(assignment));
    let assignments = assignments.collect::<Result<Vec<_>, _>>()?;
    // Only the keys' types tell a date from a text that looks like one: the first reading that fits them all counts.
    let doubtful = assignments.iter().filter(|assignment| assignment.is_doubtful()).count().min(MOST_DOUBTFUL);
    let mut first_error = None;
    for as_text in 0..1_u32 << doubtful {
        let mut table = table.clone();
        let mut index = 0;
        for assignment in &assignments {
            let is_text = assignment.is_doubtful() && index < doubtful && as_text >> index & 1 == 1;
            index += usize::from(assignment.is_doubtful());
            assignment.apply(&mut table, is_text)?;
        }
        match table.clone().try_into() {
            Ok(tables) => return Ok((tables, table)),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    let message = first_error.map(|error| located(text, error)).unwrap_or_default();
    Err(ConfigError::Parse { path: path.into(), message })
}

/// The error's message with the line of the key that it begins with. A table that is checked as a whole only knows where it
/// begins itself.
fn located(text: &str, error: toml::de::Error) -> String {
    let mut plain = error.clone();
    plain.set_input(None);
    let plain = plain.to_string();
    let parent = plain.lines().rev().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or_default();
    match error.message().split('`').nth(1).and_then(|key| span_of(text, parent, key)) {
        Some(span) => pointed(text, span, error.message()),
        None => error.to_string().trim_end().to_string(),
    }
}

/// Where a key of a table stands.
fn span_of(text: &str, parent: &str, key: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    for name in parent.split('.').filter(|name| !name.is_empty()) {
        let DeValue::Table(inner) = table.get(name)?.get_ref() else { return None };
        table = inner;
    }
    table.get_key_value(key).map(|(key, _)| key.span())
}

/// A message in the form of the parser's own.
fn pointed(text: &str, span: Range<usize>, message: &str) -> String {
    let begin = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[..begin].matches('\n').count() + 1;
    let content = text[begin..].lines().next().unwrap_or_default();
    let column = text[begin..span.start].chars().count();
    let gutter = " ".repeat(line.to_string().len());
    let (blanks, marks) = (" ".repeat(column), "^".repeat(text[span].chars().count().max(1)));
    format!(
        "TOML parse error at line {line}, column {}\n{gutter} |\n{line} | {content}\n{gutter} | {blanks}{marks}\n{message}",
        column + 1
    )
}
