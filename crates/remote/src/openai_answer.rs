//! A server's answer in OpenAI's form.

use serde::Deserialize;
use serde_json::{Map, Value};
use zerosearch_http::{HttpError, reported_error};

#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    choices: Vec<Map<String, Value>>,
    #[serde(default)]
    usage: Value,
}

impl Answer {
    /// The number of sampled tokens; 0 where the server does not count them.
    pub(crate) fn tokens(&self) -> usize {
        self.count("completion_tokens")
    }

    /// The number of tokens of the prompt; 0 where the server does not count them.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.count("prompt_tokens")
    }

    fn count(&self, name: &str) -> usize {
        let count = &self.usage[name];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
    }

    /// The text of the first choice or, in the place of one, why the model said nothing.
    ///
    /// # Errors
    /// When there is no choice, or one without a place for a text.
    pub(crate) fn text(self) -> Result<Result<String, String>, String> {
        let choice = Value::Object(self.choices.into_iter().next().ok_or("no choices")?);
        if let Some(error) = reported_error(&choice) {
            return Err(error.message);
        }
        let message = choice.get("message");
        let places = [choice.get("text"), message.map(|message| &message["content"])];
        if let Some(text) = places.into_iter().flatten().find_map(words) {
            return Ok(Ok(text));
        }
        // Null, or a message without the key: a model that said nothing.
        if !places.iter().any(Option::is_some) || !places.iter().flatten().all(|place| place.is_null()) {
            return Err("a choice without text".into());
        }
        let mut why = vec![format!("finish_reason {}", choice.get("finish_reason").unwrap_or(&Value::Null))];
        for name in ["refusal", "reasoning_content", "reasoning", "tool_calls"] {
            if message.is_some_and(|message| {
                message[name].as_str().is_some_and(|text| !text.is_empty()) || message[name].is_array()
            }) {
                why.push(format!("there is a `{name}`"));
            }
        }
        Ok(Err(why.join(", ")))
    }
}

/// A text, or the texts of a list of parts; thoughts and images among them are none.
fn words(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect())
        }
        _ => None,
    }
}

/// Whether a content filter refused the prompt, as Azure's does.
pub(crate) fn is_filtered(error: &HttpError) -> bool {
    let words = ["content_filter", "content management policy"];
    error.status() == Some(400) && words.iter().any(|words| error.message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_of_answers() {
        let silent = |why: &str| Ok(Err(why.to_string()));
        for (choice, expected) in [
            (json!({"text": " four"}), Ok(Ok(" four".to_string()))),
            (json!({"text": null, "message": {"content": "four"}}), Ok(Ok("four".into()))),
            (json!({"message": {"content": ""}, "finish_reason": null}), Ok(Ok(String::new()))),
            (
                json!({"message": {"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "fo"}, "ur"]}}),
                Ok(Ok("four".into())),
            ),
            (json!({"text": "", "error": null, "logprobs": null}), Ok(Ok(String::new()))),
            (json!({"text": null, "finish_reason": "length"}), silent("finish_reason \"length\"")),
            (
                json!({"message": {"role": "assistant", "content": null, "refusal": "I cannot"}, "finish_reason": "stop"}),
                silent("finish_reason \"stop\", there is a `refusal`"),
            ),
            (
                json!({"message": {"reasoning_content": "hm", "refusal": null}, "finish_reason": "length"}),
                silent("finish_reason \"length\", there is a `reasoning_content`"),
            ),
            (
                json!({"message": {"content": null, "tool_calls": [{"id": "1"}]}}),
                silent("finish_reason null, there is a `tool_calls`"),
            ),
            (json!({"message": null, "finish_reason": "content_filter"}), silent("finish_reason \"content_filter\"")),
            (
                json!({"error": {"message": "provider is down", "code": 502}, "message": {"content": ""}}),
                Err("provider is down".into()),
            ),
            (json!({"delta": {"content": "four"}}), Err("a choice without text".into())),
            (json!({"text": 4}), Err("a choice without text".into())),
        ] {
            let answer: Answer = serde_json::from_value(json!({"choices": [choice]})).unwrap();
            assert_eq!(answer.text(), expected, "{choice}");
        }
    }

    #[test]
    fn counts() {
        for (usage, expected) in [
            (json!({"completion_tokens": 3}), 3),
            (json!({"completion_tokens": "3"}), 3),
            (json!({"completion_tokens": null}), 0),
            (json!({}), 0),
            (json!(null), 0),
        ] {
            let answer: Answer = serde_json::from_value(json!({"choices": [], "usage": usage})).unwrap();
            assert_eq!(answer.tokens(), expected, "{usage}");
        }
    }
}
