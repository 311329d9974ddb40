//! A completer over OpenAI's protocol, against a server in this process.

mod fake;

use std::time::Duration;

use fake::{impatient, server};
use serde_json::json;
use zerosearch_generate::{Completer, Completion, CompletionRequest, GenerateError, Sampling};
use zerosearch_remote::OpenAiServer;

fn request(prompt: &str) -> CompletionRequest {
    CompletionRequest {
        prompt: prompt.into(),
        sampling: Sampling::default(),
        max_new_tokens: 8,
        seed: 5,
        stop: Vec::new(),
    }
}

#[test]
fn completions_send_what_was_asked() {
    let (url, log) =
        server(|_, _, _| (200, json!({"choices": [{"text": " four\nQ: more"}], "usage": {"completion_tokens": 3}})));
    let mut asked = request("2 + 2 =");
    asked.stop = vec!["\n".into()];
    asked.sampling = Sampling { temperature: 0.5, top_k: 7, top_p: 0.75, min_p: 0.25, min_new_tokens: 3 };
    asked.seed = u64::MAX;
    let answers = OpenAiServer::completions(&url, "qwen").with_retry(impatient()).complete(&[asked]).unwrap();
    assert_eq!(answers, [Completion { text: " four".into(), tokens: 3 }]);
    let body = json!({"model": "qwen", "prompt": "2 + 2 =", "max_tokens": 8, "temperature": 0.5, "top_p": 0.75, "seed": 0, "top_k": 7, "min_p": 0.25, "min_tokens": 3, "stop": ["\n"]});
    assert_eq!(*log.lock().unwrap(), [("/v1/completions".to_string(), body)]);
}

#[test]
fn chat_wraps_the_prompt_and_plain_requests_stay_within_the_protocol() {
    let (url, log) =
        server(|_, _, _| (200, json!({"choices": [{"message": {"role": "assistant", "content": "hello"}}]})));
    let answers = OpenAiServer::chat(&url, "qwen").with_retry(impatient()).complete(&[request("hi")]).unwrap();
    assert_eq!(answers, [Completion { text: "hello".into(), tokens: 0 }]);
    let body = json!({"model": "qwen", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 1.0, "top_p": 1.0, "seed": 5});
    assert_eq!(*log.lock().unwrap(), [("/v1/chat/completions".to_string(), body)]);
}

#[test]
fn a_system_message_is_sent_also_where_it_is_empty() {
    let (url, log) = server(|_, _, _| (200, json!({"choices": [{"message": {"content": "hello"}}]})));
    let server = OpenAiServer::chat(&url, "qwen").with_system("").with_retry(impatient());
    server.complete(&[request("hi")]).unwrap();
    let messages = &log.lock().unwrap()[0].1["messages"];
    assert_eq!(*messages, json!([{"role": "system", "content": ""}, {"role": "user", "content": "hi"}]));
}

#[test]
fn answers_stand_in_the_order_of_the_requests() {
    let (url, _) = server(|number, _, body| {
        std::thread::sleep(Duration::from_millis(30 - 10 * (number as u64 % 4).min(3)));
        (200, json!({"choices": [{"text": body["prompt"]}], "usage": {"completion_tokens": 1}}))
    });
    let requests: Vec<_> = (0..12).map(|number| request(&number.to_string())).collect();
    let answers =
        OpenAiServer::completions(&url, "m").with_retry(impatient()).with_concurrency(4).complete(&requests).unwrap();
    assert!(answers.iter().zip(&requests).all(|(answer, request)| answer.text == request.prompt));
    assert_eq!(answers.len(), 12);
}

#[test]
fn failures_name_the_endpoint() {
    let (url, log) =
        server(
            |_, path, _| {
                if path.contains("chat") { (200, json!({"choices": []})) } else { (500, json!("out of memory")) }
            },
        );
    let error = OpenAiServer::completions(&url, "m").with_retry(impatient()).complete(&[request("x")]).unwrap_err();
    let GenerateError::Remote { endpoint, message } = &error else { panic!("{error}") };
    assert_eq!(*endpoint, format!("{url}/v1/completions"));
    assert!(message.contains("out of memory") && message.contains("(2 attempts)"), "{message}");

    let error = OpenAiServer::chat(&url, "m").with_retry(impatient()).complete(&[request("x")]).unwrap_err();
    assert!(error.to_string().contains("no choices"), "{error}");
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[test]
fn a_path_in_the_address_is_taken_as_it_is() {
    let (url, log) = server(|_, _, _| (200, json!({"choices": [{"message": {"content": "yes"}}]})));
    for base in ["", "/v1/", "/api/paas/v4", "/v1beta/openai", "/v1/chat/completions"] {
        OpenAiServer::chat(&format!("{url}{base}"), "m").with_retry(impatient()).complete(&[request("x")]).unwrap();
    }
    let asked: Vec<String> = log.lock().unwrap().iter().map(|(path, _)| path.clone()).collect();
    let bases = ["/v1", "/v1", "/api/paas/v4", "/v1beta/openai", "/v1"];
    assert_eq!(asked, bases.map(|base| format!("{base}/chat/completions")));
}

#[test]
fn a_model_that_says_nothing_does_not_cost_its_batch() {
    let (url, _) = server(|_, _, body| match body["messages"][0]["content"].as_str().unwrap() {
        "null" => (
            200,
            json!({"choices": [{"message": {"content": null, "reasoning_content": "hm"}, "finish_reason": "length"}], "usage": {"completion_tokens": 8}}),
        ),
        "missing" => (200, json!({"choices": [{"message": {"role": "assistant", "refusal": "no"}}], "usage": null})),
        "filtered" => (400, json!({"error": {"code": "content_filter", "message": "The prompt was filtered"}})),
        _ => (200, json!({"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": null}})),
    });
    let requests = ["a", "null", "missing", "filtered", "b"].map(request);
    let answers = OpenAiServer::chat(&url, "m").with_retry(impatient()).complete(&requests).unwrap();
    let answers: Vec<_> = answers.iter().map(|answer| (answer.text.as_str(), answer.tokens)).collect();
    assert_eq!(answers, [("yes", 0), ("", 8), ("", 0), ("", 0), ("yes", 0)]);
}

#[test]
fn answers_that_are_errors() {
    for (status, answer, expected, requests) in [
        (200, json!({"error": {"message": "provider is down", "code": 502}}), "provider is down (2 attempts)", 2),
        (
            200,
            json!({"error": {"message": "no credits", "code": "402"}, "choices": null}),
            "an error 402: no credits",
            1,
        ),
        (200, json!({"choices": [{"error": {"message": "cut off"}, "message": {"content": "ye"}}]}), "cut off", 1),
        (200, json!({"choices": [{"delta": {"content": "yes"}}]}), "a choice without text", 1),
        (200, json!({"choices": null}), "unexpected answer", 1),
        (404, json!({"detail": "Not Found"}), "does it serve the model `m`?", 1),
        (
            401,
            json!({"error": {"message": "Incorrect API key provided: secret"}}),
            r#"provided: …"}}; is the key right?"#,
            1,
        ),
        (400, json!({"error": {"message": "maximum context length is 8"}}), "maximum context length is 8", 1),
    ] {
        let (url, log) = server(move |_, _, _| (status, answer.clone()));
        let server = OpenAiServer::chat(&url, "m").with_key("secret\n").with_retry(impatient());
        let error = server.complete(&[request("x")]).unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(expected) && !error.contains("secret"), "{error}");
        assert_eq!(log.lock().unwrap().len(), requests, "{expected}");
    }
}

#[test]
fn bad_requests_are_not_sent() {
    let (url, log) = server(|_, _, _| (200, json!({})));
    let completer = OpenAiServer::completions(&url, "m");
    assert!(matches!(completer.complete(&[request("x"), request("")]), Err(GenerateError::EmptyPrompt)));
    let mut odd = request("x");
    odd.sampling.top_p = 0.0;
    assert!(matches!(completer.complete(&[odd]), Err(GenerateError::Parameter { name: "top_p", .. })));
    assert!(completer.complete(&[]).unwrap().is_empty());
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn the_key_survives_other_settings() {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let seen = std::thread::spawn(move || {
        let request = server.recv().unwrap();
        let key = request
            .headers()
            .iter()
            .find(|header| header.field.equiv("Authorization"))
            .map(|header| header.value.to_string());
        request.respond(tiny_http::Response::from_string(r#"{"choices": [{"text": ""}]}"#)).unwrap();
        key
    });
    OpenAiServer::completions(&url, "m").with_key("secret").with_retry(impatient()).complete(&[request("x")]).unwrap();
    assert_eq!(seen.join().unwrap().as_deref(), Some("Bearer secret"));
}
