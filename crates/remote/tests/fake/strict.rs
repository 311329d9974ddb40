//! The requests that SGLang, vLLM and OpenAI document, field by field: an unknown field, a missing one, or one of another type is
//! refused, where the programs themselves may be silent about it.
//!
//! Fields of SGLang are those of `GenerateReqInput`, `SamplingParams`, `PauseGenerationReqInput`, `ContinueGenerationReqInput` and
//! `UpdateWeightFromDiskReqInput`; of vLLM those of `CompletionRequest`, `LoadLoRAAdapterRequest` and `UnloadLoRAAdapterRequest`; of OpenAI
//! those of the API reference.

use serde_json::Value;

/// Whose documents count.
#[allow(dead_code)] // Each test file uses some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Sglang,
    Vllm,
    OpenAi,
}

type Field = (&'static str, fn(&Value) -> bool);

const fn text(name: &'static str) -> Field {
    (name, Value::is_string)
}

const fn flag(name: &'static str) -> Field {
    (name, Value::is_boolean)
}

const fn number(name: &'static str) -> Field {
    (name, Value::is_number)
}

const fn whole(name: &'static str) -> Field {
    (name, Value::is_i64)
}

const fn count(name: &'static str) -> Field {
    (name, Value::is_u64)
}

const fn object(name: &'static str) -> Field {
    (name, Value::is_object)
}

fn are_ids(value: &Value) -> bool {
    value.as_array().is_some_and(|ids| !ids.is_empty() && ids.iter().all(Value::is_u64))
}

fn are_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|texts| !texts.is_empty() && texts.iter().all(Value::is_string))
}

/// A positive number.
fn is_some(value: &Value) -> bool {
    value.as_u64().is_some_and(|count| count > 0)
}

/// OpenAI takes four at most.
fn are_few_texts(value: &Value) -> bool {
    are_texts(value) && value.as_array().is_some_and(|texts| texts.len() <= 4)
}

fn are_messages(value: &Value) -> bool {
    value.as_array().is_some_and(|messages| {
        !messages.is_empty()
            && messages.iter().all(|message| {
                check(message, &[text("role"), text("content")], &[]).is_ok()
                    && ["system", "user", "assistant"].iter().any(|role| message["role"] == *role)
            })
    })
}

/// The documented request of a path: what must stand in its body, and what may.
fn documented(program: Program, path: &str) -> Option<(Vec<Field>, Vec<Field>)> {
    Some(match (program, path) {
        (Program::Sglang, "POST /generate") => (
            vec![("input_ids", are_ids), object("sampling_params"), flag("return_logprob")],
            vec![
                whole("logprob_start_len"),
                count("top_logprobs_num"),
                flag("return_text_in_logprobs"),
                flag("stream"),
                text("rid"),
            ],
        ),
        (Program::Sglang, "sampling_params") => (
            vec![("max_new_tokens", is_some), number("temperature"), number("top_p"), whole("top_k"), number("min_p")],
            vec![
                ("stop", are_texts),
                flag("no_stop_trim"),
                count("min_new_tokens"),
                whole("sampling_seed"),
                ("stop_token_ids", are_ids),
                flag("skip_special_tokens"),
                flag("ignore_eos"),
                number("repetition_penalty"),
                number("frequency_penalty"),
                number("presence_penalty"),
            ],
        ),
        (Program::Sglang, "POST /pause_generation") => (vec![], vec![text("mode")]),
        (Program::Sglang, "POST /continue_generation") => (vec![], vec![flag("torch_empty_cache")]),
        (Program::Sglang, "POST /update_weights_from_disk") => (
            vec![text("model_path")],
            vec![
                text("load_format"),
                flag("abort_all_requests"),
                text("weight_version"),
                flag("is_async"),
                flag("torch_empty_cache"),
                flag("keep_pause"),
                flag("recapture_cuda_graph"),
                count("token_step"),
                flag("flush_cache"),
            ],
        ),
        (Program::Sglang, "GET /get_model_info" | "GET /health") => (vec![], vec![]),
        (Program::Vllm, "POST /v1/completions") => (
            vec![
                ("prompt", are_ids),
                ("max_tokens", is_some),
                number("temperature"),
                flag("return_token_ids"),
                count("logprobs"),
            ],
            vec![
                text("model"),
                number("top_p"),
                count("top_k"),
                number("min_p"),
                number("repetition_penalty"),
                number("presence_penalty"),
                number("frequency_penalty"),
                ("stop", are_texts),
                flag("include_stop_str_in_output"),
                flag("skip_special_tokens"),
                count("min_tokens"),
                whole("seed"),
                flag("stream"),
                flag("return_tokens_as_token_ids"),
            ],
        ),
        (Program::Vllm, "POST /v1/load_lora_adapter") => {
            (vec![text("lora_name"), text("lora_path")], vec![flag("load_inplace"), flag("is_3d_lora_weight")])
        }
        (Program::Vllm, "POST /v1/unload_lora_adapter") => (vec![text("lora_name")], vec![count("lora_int_id")]),
        (Program::Vllm, "GET /health" | "GET /v1/models") => (vec![], vec![]),
        (Program::OpenAi, "POST /v1/completions") => (
            vec![text("model"), text("prompt")],
            vec![
                ("max_tokens", is_some),
                number("temperature"),
                number("top_p"),
                whole("seed"),
                ("stop", are_few_texts),
                count("logprobs"),
                count("n"),
                flag("echo"),
                number("presence_penalty"),
                number("frequency_penalty"),
                text("user"),
            ],
        ),
        (Program::OpenAi, "POST /v1/chat/completions") => (
            vec![text("model"), ("messages", are_messages)],
            vec![
                ("max_tokens", is_some),
                number("temperature"),
                number("top_p"),
                whole("seed"),
                ("stop", are_few_texts),
                count("n"),
                number("presence_penalty"),
                number("frequency_penalty"),
                text("user"),
            ],
        ),
        _ => return None,
    })
}

/// Refuses a request that is not as documented. `path` begins with the method: `POST /generate`.
pub(crate) fn check_request(program: Program, path: &str, body: &Value) -> Result<(), String> {
    let (required, optional) = documented(program, path).ok_or(format!("{program:?} has no `{path}`"))?;
    if path.starts_with("GET") {
        return if body.is_null() { Ok(()) } else { Err(format!("`{path}` has a body")) };
    }
    check(body, &required, &optional).map_err(|why| format!("`{path}`: {why} in {body}"))?;
    if (program, path) == (Program::Sglang, "POST /generate") {
        return check_request(program, "sampling_params", &body["sampling_params"]);
    }
    Ok(())
}

fn check(body: &Value, required: &[Field], optional: &[Field]) -> Result<(), String> {
    let fields = body.as_object().ok_or("no object")?;
    if let Some((missing, _)) = required.iter().find(|(name, _)| !fields.contains_key(*name)) {
        return Err(format!("`{missing}` is missing"));
    }
    for (name, value) in fields {
        let known = required.iter().chain(optional).find(|(known, _)| known == name);
        let (_, is_right) = known.ok_or(format!("`{name}` is unknown"))?;
        if !is_right(value) {
            return Err(format!("`{name}` is {value}"));
        }
    }
    Ok(())
}
