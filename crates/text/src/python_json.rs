//! JSON files as Python's `json` module writes them, with `NaN` and infinities.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

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
