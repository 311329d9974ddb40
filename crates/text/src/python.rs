//! Differences between Jinja2 with Python's values and minijinja in a chat template.

use std::collections::VecDeque;

use minijinja::value::{Kwargs, Rest, StringInput, Tuple, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use zerosearch_grammar::is_space;

/// Replaces the tests, filters and methods that differ.
pub(crate) fn install(environment: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(environment);
    environment.set_unknown_method_callback(method);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", is_sequence);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("float", float);
    environment.add_filter("int", int);
    environment.add_filter("trim", trim);
}

/// Jinja2 asks for a length and for indexing: texts, mappings and slices have both.
fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | Map | String | Iterable | Undefined)
}

/// minijinja's takes no keywords, and templates write `default(none, boolean=true)`.
fn default(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (given, keywords): (&[Value], Kwargs) = from_args(&arguments)?;
    let other = match given.first() {
        Some(other) => other.clone(),
        None if keywords.has("default_value") => keywords.get("default_value")?,
        None => Value::from(""),
    };
    let falsy_too = match given.get(1) {
        Some(boolean) => boolean.is_true(),
        None => keywords.get::<Option<bool>>("boolean")?.unwrap_or(false),
    };
    keywords.assert_all_used()?;
    if given.len() > 2 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    Ok(if value.is_undefined() || (falsy_too && !value.is_true()) { other } else { value.clone() })
}

/// In Jinja2 a value that is no number becomes 0.0.
fn float(state: &State, value: &Value, default: Option<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let default = if default.is_some() { default } else { keywords.get("default")? };
    minijinja::filters::float(state, value, Some(default.unwrap_or_else(|| Value::from(0.0))), keywords)
}

/// In Jinja2 a value that is no number becomes 0.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    keywords: Kwargs,
) -> Result<Value, Error> {
    let default = if default.is_some() { default } else { keywords.get("default")? };
    minijinja::filters::int(state, value, Some(default.unwrap_or_else(|| Value::from(0))), base, keywords)
}

fn trim(text: StringInput<'_>, characters: Option<&str>) -> String {
    strip(text.as_str(), characters, Sides::Both).to_owned()
}

#[derive(Clone, Copy, PartialEq)]
enum Sides {
    Left,
    Right,
    Both,
}

fn strip<'t>(mut text: &'t str, characters: Option<&str>, sides: Sides) -> &'t str {
    let goes = |c: char| characters.map_or(is_space(c), |characters| characters.contains(c));
    if sides != Sides::Right {
        text = text.trim_start_matches(goes);
    }
    if sides != Sides::Left {
        text = text.trim_end_matches(goes);
    }
    text
}

/// A method of a Python value. An unknown one is an error that names it.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let found = match (value.kind(), value.as_str()) {
        (_, Some(text)) => method_of_text(text, name, arguments)?,
        (ValueKind::Seq | ValueKind::Map, _) if name == "copy" => {
            let () = from_args(arguments)?;
            Some(value.clone())
        }
        (ValueKind::Seq, _) if name == "index" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let position = value.try_iter()?.position(|item| item == *wanted);
            Some(position.map(Value::from).ok_or_else(|| failed(format!("{wanted} is not in the list")))?)
        }
        _ => None,
    };
    match found {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

fn method_of_text(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let stripped = |sides| {
        let (characters,): (Option<&str>,) = from_args(arguments)?;
        Ok::<_, Error>(Value::from(strip(text, characters, sides)))
    };
    Ok(Some(match name {
        "strip" => stripped(Sides::Both)?,
        "lstrip" => stripped(Sides::Left)?,
        "rstrip" => stripped(Sides::Right)?,
        "split" | "rsplit" => split(text, arguments, name == "rsplit")?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let found = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match (found, name) {
                (Some((before, after)), _) => [before, separator, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(arguments)?;
            let rest = if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Value::from(rest.unwrap_or(text))
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(arguments)?;
            lines(text, keep_ends.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "ljust" | "rjust" | "zfill" => {
            let (width, fill): (usize, Option<char>) = from_args(arguments)?;
            let fill = fill.unwrap_or(if name == "zfill" { '0' } else { ' ' });
            let filling: String = std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())).collect();
            let sign = usize::from(text.starts_with(['-', '+']));
            Value::from(match name {
                "ljust" => format!("{text}{filling}"),
                "rjust" => format!("{filling}{text}"),
                _ => format!("{}{filling}{}", &text[..sign], &text[sign..]),
            })
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(arguments)?;
            let found = if name == "index" { text.find(part) } else { text.rfind(part) };
            let start = found.ok_or_else(|| failed(format!("{part:?} is not in the text")))?;
            Value::from(text[..start].chars().count())
        }
        _ => return Ok(None),
    }))
}

/// Python's `split(sep=None, maxsplit=-1)`, from the left or from the right.
fn split(text: &str, arguments: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most, keywords): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = if separator.is_some() { separator } else { keywords.get("sep")? };
    let most = if most.is_some() { most } else { keywords.get("maxsplit")? };
    keywords.assert_all_used()?;
    if separator == Some("") {
        return Err(failed("empty separator".into()));
    }
    let mut left = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let near = if from_right { Sides::Right } else { Sides::Left };
    let (mut parts, mut rest) = (VecDeque::new(), text);
    loop {
        if separator.is_none() {
            rest = strip(rest, None, near);
            if rest.is_empty() {
                break;
            }
        }
        let cut = match (separator, from_right) {
            _ if left == 0 => None,
            (Some(separator), false) => rest.split_once(separator),
            (Some(separator), true) => rest.rsplit_once(separator),
            (None, false) => rest.split_once(is_space),
            (None, true) => rest.rsplit_once(is_space),
        };
        let (part, remaining) = match cut {
            Some((before, after)) if from_right => (after, Some(before)),
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        if from_right {
            parts.push_front(part)
        } else {
            parts.push_back(part)
        }
        let Some(remaining) = remaining else { break };
        (rest, left) = (remaining, left - 1);
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Python's `splitlines`, which knows more ends of lines than Rust.
fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(length) = rest.find(ends) {
        let end = &rest[length..];
        let width = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        lines.push(&rest[..length + if keep_ends { width } else { 0 }]);
        rest = &end[width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
