//! The `tojson` filter of chat templates: transformers' own, which is Python's `json.dumps(…, ensure_ascii=False)`.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, Value};

/// More than this is a mistake, and could be more than there is memory.
const MOST_INDENT: usize = 1000;

const KEYS: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];

/// Writes a value as JSON. In this order or by name: `ensure_ascii`, `indent` (a number of blanks, or a text), `separators` (of
/// items, and of a key and its value) and `sort_keys`.
pub(crate) fn dumps(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (given, keywords): (&[Value], Kwargs) = from_args(&arguments)?;
    if given.len() > KEYS.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let argument = |index: usize| -> Result<Option<Value>, Error> {
        match given.get(index) {
            Some(value) => Ok(Some(value.clone()).filter(|value| !value.is_none())),
            None => keywords.get(KEYS[index]),
        }
    };
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = argument(1)?.map(|indent| indentation(&indent)).transpose()?;
    let (item, key) = match argument(2)? {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => {
            let texts: Vec<String> = pair.try_iter()?.map(|text| text.to_string()).collect();
            <[String; 2]>::try_from(texts).map(Into::into).map_err(|_| failed("separators must be two texts".into()))?
        }
    };
    let style = Style { ensure_ascii: is_set(argument(0)?), indent, item, key, sort_keys: is_set(argument(3)?) };
    keywords.assert_all_used()?;
    let mut json = String::new();
    style.write(value, 0, &mut json)?;
    Ok(Value::from_safe_string(json))
}

fn indentation(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let width = usize::try_from(i64::try_from(indent.clone())?).unwrap_or(0);
    if width > MOST_INDENT {
        return Err(failed(format!("tojson has indent={width}, expected at most {MOST_INDENT}")));
    }
    Ok(" ".repeat(width))
}

struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Style {
    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&number(value)?),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.items(['[', ']'], items, depth, json)?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()? {
                    items.push((Some(key_text(&key)?), value.get_item(&key)?));
                }
                if self.sort_keys {
                    items.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.items(['{', '}'], items, depth, json)?;
            }
            kind => return Err(failed(format!("a value that is {kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn items(
        &self,
        [open, close]: [char; 2],
        items: Vec<(Option<String>, Value)>,
        depth: usize,
        json: &mut String,
    ) -> Result<(), Error> {
        let line = |depth: usize, json: &mut String| {
            if let Some(indent) = &self.indent {
                json.push('\n');
                json.push_str(&indent.repeat(depth));
            }
        };
        json.push(open);
        let some = !items.is_empty();
        for (index, (key, value)) in items.into_iter().enumerate() {
            if index > 0 {
                json.push_str(&self.item);
            }
            line(depth + 1, json);
            if let Some(key) = key {
                self.text(&key, json);
                json.push_str(&self.key);
            }
            self.write(&value, depth + 1, json)?;
        }
        if some {
            line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn text(&self, text: &str, json: &mut String) {
        json.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => json.extend(['\\', c]),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing into a text does not fail.
                        let _ = write!(json, "\\u{unit:04x}");
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.to_string()),
        ValueKind::None => Ok("null".into()),
        ValueKind::Bool => Ok(if key.is_true() { "true".into() } else { "false".into() }),
        ValueKind::Number => number(key),
        kind => Err(failed(format!("a key that is {kind} cannot be written as JSON"))),
    }
}

/// Integers as they are, other numbers as Python's `repr` has them.
fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    let number = f64::try_from(value.clone())?;
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        return Ok(if number < 0.0 { format!("-{name}") } else { name.to_owned() });
    }
    let text = format!("{number:?}");
    Ok(match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    })
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
