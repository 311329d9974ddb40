//! JSON as servers write it, which is not always JSON.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads JSON, and what other languages take for it.
///
/// Text that is no JSON is read again with these put right: a byte-order mark is dropped; half a surrogate pair, which
/// JavaScript's `slice` leaves of an emoji, becomes U+FFFD; `NaN` and the infinities, which Python's `json.dumps` writes, become
/// null; control characters within strings are taken as they are.
///
/// ```
/// let document: String = zerosearch_http::parse_json(r#""cut \ud83c""#)?;
/// assert_eq!(document, "cut \u{fffd}");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// Those of `serde_json`.
pub fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&put_right(text)))
}

fn put_right(text: &str) -> String {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut right = String::with_capacity(rest.len());
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let (taken, written) = match (in_string, next) {
            (true, '\\') => escape(rest),
            (true, control) if control < ' ' => {
                right.push_str(&format!("\\u{:04x}", control as u32));
                rest = &rest[1..];
                continue;
            }
            (_, '"') => {
                in_string = !in_string;
                (1, "\"")
            }
            (false, 'N' | 'I' | '-') => {
                let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
                word.map_or((1, &rest[..1]), |word| (word.len(), "null"))
            }
            (_, other) => (other.len_utf8(), &rest[..other.len_utf8()]),
        };
        right.push_str(written);
        rest = &rest[taken..];
    }
    right
}

/// How much of the text the escape sequence at its beginning takes, and how it is to be written.
fn escape(text: &str) -> (usize, &str) {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    match unit(0) {
        Some(0xd800..0xdc00) if matches!(unit(6), Some(0xdc00..0xe000)) => (12, &text[..12]),
        Some(0xd800..0xe000) => (6, "\\ufffd"),
        Some(_) => (6, &text[..6]),
        None => {
            let length = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (length, &text[..length])
        }
    }
}

/// An error that an answer reports although its status says success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The server's words.
    pub message: String,
    /// Its number for it, which in most cases is the status that the answer should have had.
    pub code: Option<u16>,
}

/// The error that an object reports in one of the usual ways: under `error` (a text or an object), under FastAPI's `detail`, or
/// under `message` or `msg` beside a code of at least 400 or `"object": "error"`.
pub fn reported_error(answer: &Value) -> Option<Reported> {
    let code = |object: &Value| {
        ["code", "status", "statusCode", "status_code"].into_iter().find_map(|name| {
            let value = object.get(name)?;
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
            u16::try_from(number).ok().filter(|code| *code >= 400)
        })
    };
    let words = |value: &Value| match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Object(fields) if fields.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        other => Some(other.to_string()),
    };
    let said = |object: &Value| ["message", "msg"].into_iter().find_map(|name| words(object.get(name)?));
    if let Some(error) = answer.get("error")
        && let Some(whole) = words(error)
    {
        let message = said(error).or_else(|| error.as_bool().and(said(answer))).unwrap_or(whole);
        return Some(Reported { message, code: code(error).or_else(|| code(answer)) });
    }
    if let Some(message) = answer.get("detail").and_then(words) {
        return Some(Reported { message, code: code(answer) });
    }
    let code = code(answer);
    let is_error = code.is_some() || answer.get("object").is_some_and(|kind| kind == "error");
    said(answer).filter(|_| is_error).map(|message| Reported { message, code })
}

/// Whether asking again may help after this status.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writing_that_is_put_right() {
        for (text, expected) in [
            ("\u{feff}{\"a\": 1}", json!({"a": 1})),
            (r#"["x\ud83c", "\udf0d", "\ud83c\ud83c\udf0d"]"#, json!(["x\u{fffd}", "\u{fffd}", "\u{fffd}🌍"])),
            (r#"["\\ud83c", "\\\ud83c"]"#, json!(["\\ud83c", "\\\u{fffd}"])),
            (
                r#"{"NaN": NaN, "-Infinity": [Infinity, -Infinity, -1]}"#,
                json!({"NaN": null, "-Infinity": [null, null, -1]}),
            ),
            ("[\"a\tb\nc\u{1}\", NaN]", json!(["a\tb\nc\u{1}", null])),
            ("[\"\u{85}é\\\"NaN\", NaN]", json!(["\u{85}é\"NaN", null])),
        ] {
            assert_eq!(parse_json::<Value>(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["", "<html>", "{\"a\": \"\\u12\"}", "[\"a", "[\"\\", "[\"\\é\"]", "Nan", "[1 2]", "{\"a\": -}"] {
            let expected = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert_eq!(parse_json::<Value>(text).unwrap_err().to_string(), expected, "{text}");
        }
        // The writing is forgiven, and the value is not the one that is wanted.
        assert!(parse_json::<Vec<u8>>("[NaN]").unwrap_err().is_data());
    }

    #[test]
    fn errors_under_their_usual_names() {
        for (answer, expected) in [
            (json!({"error": "no memory"}), Some(("no memory", None))),
            (json!({"error": {"message": "busy", "code": 503}, "choices": null}), Some(("busy", Some(503)))),
            (json!({"error": {"message": "no such model", "code": "model_not_found"}}), Some(("no such model", None))),
            (json!({"error": {"type": "x"}}), Some((r#"{"type":"x"}"#, None))),
            (json!({"error": true, "message": "bad"}), Some(("bad", None))),
            (json!({"detail": "Not Found"}), Some(("Not Found", None))),
            (json!({"detail": [{"msg": "Field required"}]}), Some((r#"[{"msg":"Field required"}]"#, None))),
            (json!({"code": 500, "msg": "index not loaded"}), Some(("index not loaded", Some(500)))),
            (json!({"message": "Unauthorized.", "statusCode": "403"}), Some(("Unauthorized.", Some(403)))),
            (json!({"object": "error", "message": "too long"}), Some(("too long", None))),
            (json!({"code": 0, "msg": "ok", "data": []}), None),
            (json!({"code": 200, "message": "success", "result": []}), None),
            (json!({"error": null, "detail": "", "choices": []}), None),
            (json!({"error": false, "result": []}), None),
            (json!({"error": {}, "result": []}), None),
            (json!(["error"]), None),
        ] {
            let reported = reported_error(&answer);
            let reported = reported.as_ref().map(|reported| (reported.message.as_str(), reported.code));
            assert_eq!(reported, expected, "{answer}");
        }
    }
}
