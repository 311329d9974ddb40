//! JSON files as Python's `json` module writes them, with `NaN` and infinities.

use serde::de::DeserializeOwned;
use zerosearch_files::replace_non_numbers;

/// Parses JSON that Python's `json` module wrote: a byte-order mark before it is passed over, and `NaN`, `Infinity` and
/// `-Infinity`, which JSON does not have, become what transformers spells them as where it keeps to JSON,
/// `{"__float__": "NaN"}`.
///
/// # Errors
/// When it is not JSON otherwise, or another kind of value than expected.
pub fn from_python_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let text = text.trim_start_matches('\u{feff}');
    let tagged = replace_non_numbers(text, |name| format!("{{\"__float__\": \"{name}\"}}"));
    serde_json::from_str(tagged.as_deref().unwrap_or(text))
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
