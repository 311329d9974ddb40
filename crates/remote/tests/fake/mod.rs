//! A server in this process that answers JSON with JSON.

#![allow(dead_code)] // Each test file uses a part of it.

pub(crate) mod strict;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use zerosearch_remote::RetryPolicy;

use strict::Program;

/// Requests to a server, paths and bodies, in the order of arrival.
pub(crate) type Log = Arc<Mutex<Vec<(String, Value)>>>;

pub(crate) fn impatient() -> RetryPolicy {
    RetryPolicy {
        timeout: Duration::from_millis(500),
        attempts: 2,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(5),
    }
}

/// Starts one with a few threads; `answer` is given the number of the request, its path and its body.
pub(crate) fn server(answer: impl Fn(usize, &str, &Value) -> (u16, Value) + Send + Sync + 'static) -> (String, Log) {
    let (server, url) = listen("127.0.0.1:0");
    let log = serve(server, move |number, path, body| answer(number, path.split(' ').next_back().unwrap(), body));
    (url, log)
}

/// One that answers what is not as `program` documents it with a status of 422, which no client survives. Its paths begin with the
/// method.
pub(crate) fn strict_server(
    program: Program,
    answer: impl Fn(usize, &str, &Value) -> (u16, Value) + Send + Sync + 'static,
) -> (String, Log) {
    let (server, url) = listen("127.0.0.1:0");
    let log = serve(server, move |number, path, body| match strict::check_request(program, path, body) {
        Ok(()) => answer(number, path, body),
        Err(why) => (422, json!({"error": {"message": why}})),
    });
    (url, log)
}

pub(crate) fn listen(address: &str) -> (Arc<tiny_http::Server>, String) {
    let server = Arc::new(tiny_http::Server::http(address).unwrap());
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    (server, url)
}

fn serve(
    server: Arc<tiny_http::Server>,
    answer: impl Fn(usize, &str, &Value) -> (u16, Value) + Send + Sync + 'static,
) -> Log {
    let (log, answer) = (Log::default(), Arc::new(answer));
    for _ in 0..4 {
        let (server, log, answer) = (server.clone(), log.clone(), answer.clone());
        std::thread::spawn(move || {
            while let Ok(mut request) = server.recv() {
                let body: Value = serde_json::from_reader(request.as_reader()).unwrap_or_default();
                let path = format!("{} {}", request.method(), request.url());
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push((request.url().to_string(), body.clone()));
                    log.len() - 1
                };
                let (status, body) = answer(number, &path, &body);
                // vLLM answers some requests with a bare text.
                let body = body.as_str().map_or_else(|| body.to_string(), String::from);
                let _ = request.respond(tiny_http::Response::from_string(body).with_status_code(status));
            }
        });
    }
    log
}
