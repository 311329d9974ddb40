//! The `tojson` filter of chat templates, spelled as Python's `json.dumps(…, ensure_ascii=False)`.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

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
