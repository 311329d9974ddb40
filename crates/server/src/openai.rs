//! The requests and answers of OpenAI's `/v1/chat/completions` and `/v1/completions`.

use serde_json::{Value, json};
use zerosearch_generate::{Completion, CompletionRequest, Sampling, Stream, stream_seed};

use crate::refusal::Refusal;

/// Temperature and tokens of a request that gives none: those of a simulator.
const TEMPERATURE: f32 = 0.8;
const MAX_NEW_TOKENS: usize = 600;

/// Which of the two endpoints.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Api {
    Chat,
    Completions,
}

/// The texts to complete. `call` is the request's number, for those that bring no seed.
///
/// # Errors
/// Names the key, and what was expected of it.
pub(crate) fn read(body: &Value, api: Api, seed: u64, call: u64) -> Result<Vec<CompletionRequest>, Refusal> {
    if !body.is_object() {
        return Err(refused("the body is no object"));
    }
    let value = |key: &str| body.get(key).filter(|value| !value.is_null());
    if value("stream").is_some_and(|stream| *stream != json!(false)) {
        return Err(refused("`stream` is not supported: documents are answered as a whole, leave it out"));
    }
    if value("n").is_some_and(|n| *n != json!(1)) {
        return Err(refused("`n` is not supported beyond 1: send as many requests"));
    }
    let number = |key: &str, default: f32| match value(key) {
        None => Ok(default),
        Some(value) => {
            value.as_f64().map(|it| it as f32).ok_or_else(|| refused(format!("`{key}` is {value}, expected a number")))
        }
    };
    let count = |key: &str| {
        value(key)
            .map(|value| {
                let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                count.ok_or_else(|| refused(format!("`{key}` is {value}, expected a whole number")))
            })
            .transpose()
    };
    let sampling = Sampling {
        temperature: number("temperature", TEMPERATURE)?,
        top_p: number("top_p", 1.0)?,
        min_p: number("min_p", 0.0)?,
        top_k: count("top_k")?.unwrap_or(0),
        min_new_tokens: count("min_tokens")?.unwrap_or(0),
    };
    sampling.validate().map_err(|error| refused(error.to_string()))?;
    let max_new_tokens = match count("max_completion_tokens")? {
        Some(count) => Some(count),
        None => count("max_tokens")?,
    };
    let max_new_tokens = max_new_tokens.unwrap_or(MAX_NEW_TOKENS);
    if max_new_tokens == 0 {
        return Err(refused("`max_tokens` is 0, expected at least 1"));
    }
    let stop = match value("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(stops) => strings(stops).ok_or_else(|| refused("`stop` is neither a string nor a list of strings"))?,
    };
    let own_seed = match value("seed") {
        None => None,
        Some(seed) => {
            let number = seed.as_u64().or_else(|| seed.as_i64().map(i64::cast_unsigned));
            Some(number.ok_or_else(|| refused(format!("`seed` is {seed}, expected a whole number")))?)
        }
    };
    let prompts = match api {
        Api::Chat => vec![chat(value("messages").unwrap_or(&Value::Null))?],
        Api::Completions => match value("prompt") {
            Some(Value::String(prompt)) => vec![prompt.clone()],
            prompts => prompts
                .and_then(strings)
                .filter(|prompts| !prompts.is_empty())
                .ok_or_else(|| refused("`prompt` is expected: a string or a list of strings"))?,
        },
    };
    if prompts.iter().any(String::is_empty) {
        return Err(refused("an empty prompt cannot be completed"));
    }
    let requests = prompts.into_iter().enumerate().map(|(index, prompt)| {
        let seed = match own_seed {
            Some(seed) if index == 0 => seed,
            Some(seed) => stream_seed(&[seed, index as u64]),
            None => {
                Stream { seed, purpose: "completion", step: call, sample: index as u64, ..Stream::default() }.value()
            }
        };
        CompletionRequest { prompt, sampling, max_new_tokens, seed, stop: stop.clone() }
    });
    Ok(requests.collect())
}

/// The prompt in a chat. A simulator reads it as it stands, and has no conversations.
fn chat(messages: &Value) -> Result<String, Refusal> {
    let expected = || refused(r#"`messages` is expected: [{"role": "user", "content": "the simulator's prompt"}]"#);
    let messages = messages.as_array().filter(|messages| !messages.is_empty()).ok_or_else(expected)?;
    let mut texts = Vec::new();
    for message in messages {
        match message["role"].as_str() {
            Some("system" | "developer" | "user") => {}
            Some(role) => {
                return Err(refused(format!(
                    "a message of {role:?}: this model completes one prompt, it has no turns"
                )));
            }
            None => return Err(expected()),
        }
        let text = match &message["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let text = |part: &Value| part["text"].as_str().map(String::from);
                parts.iter().map(text).collect::<Option<String>>().ok_or_else(|| refused("a part that is no text"))?
            }
            _ => return Err(expected()),
        };
        if !text.is_empty() {
            texts.push(text);
        }
    }
    Ok(texts.join("\n\n"))
}

/// The answer in OpenAI's form. Tokens of prompts are not counted.
pub(crate) fn answer(
    api: Api,
    model: &str,
    call: u64,
    requests: &[CompletionRequest],
    completions: &[Completion],
    created: u64,
) -> Value {
    let choices = requests.iter().zip(completions).enumerate().map(|(index, (request, completion))| {
        let reason = if completion.tokens >= request.max_new_tokens { "length" } else { "stop" };
        match api {
            Api::Chat => json!({"index": index, "message": {"role": "assistant", "content": completion.text},
                "logprobs": null, "finish_reason": reason}),
            Api::Completions => {
                json!({"index": index, "text": completion.text, "logprobs": null, "finish_reason": reason})
            }
        }
    });
    let (object, prefix) = match api {
        Api::Chat => ("chat.completion", "chatcmpl"),
        Api::Completions => ("text_completion", "cmpl"),
    };
    let tokens: usize = completions.iter().map(|completion| completion.tokens).sum();
    json!({"id": format!("{prefix}-{call}"), "object": object, "created": created, "model": model,
        "choices": choices.collect::<Vec<_>>(),
        "usage": {"prompt_tokens": null, "completion_tokens": tokens, "total_tokens": null}})
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect()
}

fn refused(message: impl Into<String>) -> Refusal {
    Refusal { status: axum::http::StatusCode::BAD_REQUEST, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fields: Value) -> Result<CompletionRequest, String> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Query: x"}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(&body, Api::Chat, 0, 5).map(|mut requests| requests.remove(0)).map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_chat_is_one_prompt() {
        let request = chat(json!({})).unwrap();
        assert_eq!(
            (request.prompt.as_str(), request.max_new_tokens, request.sampling.temperature),
            ("Query: x", 600, 0.8)
        );
        let messages = json!([{"role": "system", "content": ""}, {"role": "system", "content": "You."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        assert_eq!(chat(json!({"messages": messages})).unwrap().prompt, "You.\n\nab");
        let given = chat(json!({"max_tokens": 7, "temperature": 0, "top_p": 0.9, "stop": "\n", "seed": 3, "n": 1,
            "stream": false, "frequency_penalty": 0}));
        let given = given.unwrap();
        assert_eq!((given.max_new_tokens, given.sampling.temperature, given.seed), (7, 0.0, 3));
        assert_eq!((given.sampling.top_p, given.stop), (0.9, vec!["\n".to_string()]));
        assert_eq!(chat(json!({})).unwrap().seed, request.seed, "by its number");
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        for (fields, expected) in [
            (json!({"stream": true}), "`stream` is not supported"),
            (json!({"n": 2}), "`n` is not supported beyond 1"),
            (json!({"messages": []}), "`messages` is expected"),
            (json!({"messages": [{"role": "assistant", "content": "x"}]}), "it has no turns"),
            (json!({"messages": [{"role": "user", "content": ""}]}), "an empty prompt"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "no text"),
            (json!({"temperature": -1}), "temperature is -1"),
            (json!({"temperature": "hot"}), "`temperature` is \"hot\""),
            (json!({"max_tokens": 0}), "at least 1"),
            (json!({"stop": 1}), "`stop`"),
            (json!({"seed": 1.5}), "`seed` is 1.5"),
        ] {
            let message = chat(fields).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
