//! Numbers of Python's that JSON does not have.

/// The text with something else in the place of each `NaN`, `Infinity` and `-Infinity` outside of strings, which Python's
/// `json.dumps` writes. `None` where there is none, or a string does not end.
pub fn replace_non_numbers(text: &str, replacement: impl Fn(&str) -> String) -> Option<String> {
    let (mut kept, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name));
        let length = match name {
            Some(name) => {
                kept.push_str(&replacement(name));
                found = true;
                rest = &rest[name.len()..];
                continue;
            }
            None if rest.starts_with('"') => string_length(rest)?,
            None => 1,
        };
        kept.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    kept.push_str(rest);
    found.then_some(kept)
}

/// The length in bytes of the JSON string that `text` begins with, quotes included.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_numbers_are_null_outside_of_strings() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity, -1]}"#, Some(r#"{"a": null, "b": [null, null, -1]}"#)),
            (r#"{"NaN": "\"NaN", "a": NaN}"#, Some(r#"{"NaN": "\"NaN", "a": null}"#)),
            (r#"{"a": "NaN -Infinity"}"#, None),
            (r#"{"a": NaN, "cut"#, None),
        ] {
            assert_eq!(replace_non_numbers(text, |_| "null".into()).as_deref(), expected, "{text}");
        }
    }
}
