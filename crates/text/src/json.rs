//! JSON as Python writes it: files with `NaN` in them, and the `tojson` filter of chat templates, spelled as
//! `json.dumps(…, ensure_ascii=False)`.

use std::borrow::Cow;
use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Parses JSON that Python's `json` module wrote: a byte-order mark before it is passed over, and `NaN`, `Infinity` and
/// `-Infinity`, which JSON does not have, become what transformers spells them as where it keeps to JSON,
/// `{"__float__": "NaN"}`.
///
/// # Errors
/// When it is not JSON otherwise, or another kind of value than expected.
pub fn from_python_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(&with_tagged_floats(text.trim_start_matches('\u{feff}')))
}

fn with_tagged_floats(text: &str) -> Cow<'_, str> {
    const FLOATS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if !FLOATS.iter().any(|name| text.contains(name)) {
        return text.into();
    }
    let mut tagged = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(next) = rest.chars().next() {
        let name = FLOATS.into_iter().find(|name| !quoted && rest.starts_with(name));
        let length = match (next, name) {
            (_, Some(name)) => {
                tagged.push_str(&format!("{{\"__float__\": \"{name}\"}}"));
                rest = &rest[name.len()..];
                continue;
            }
            ('\\', None) if quoted => next.len_utf8() + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => next.len_utf8(),
        };
        quoted ^= next == '"';
        tagged.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    tagged.into()
}

/// More than this is a mistake, and could be more than there is memory.
const MOST_INDENT: usize = 1000;

/// Writes a value as JSON, on one line, or indented by `indent` blanks.
pub(crate) fn dumps(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson does not support ensure_ascii=true"));
    }
    options.assert_all_used()?;
    if let Some(indent) = indent.filter(|indent| *indent > MOST_INDENT) {
        let message = format!("tojson has indent={indent}, expected at most {MOST_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let mut bytes = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, Python)),
        Some(width) => {
            let blanks = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        }
    };
    let failed = |error: String| Error::new(ErrorKind::InvalidOperation, format!("cannot write as JSON: {error}"));
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map(Value::from_safe_string).map_err(|error| failed(error.to_string()))
}

/// A blank after every comma and colon.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_json_does_not_have_are_tagged_outside_of_strings() {
        let text = "\u{feff}{\"a\": NaN, \"NaN\": [-Infinity, Infinity], \"b\": \"\\\"NaN\\\\\", \"c\": 1}";
        let expected = r#"{"a": {"__float__": "NaN"}, "NaN": [{"__float__": "-Infinity"}, {"__float__": "Infinity"}],
            "b": "\"NaN\\", "c": 1}"#;
        let value = |text: &str| from_python_json::<serde_json::Value>(text).unwrap();
        assert_eq!(value(text), value(expected));
        assert!(from_python_json::<serde_json::Value>("[NaN").is_err());
    }
}
