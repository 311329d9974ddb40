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
