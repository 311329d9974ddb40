//! A server in this process that answers JSON with JSON.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use zerosearch_remote::RetryPolicy;

/// What a server was asked: paths and bodies, in the order of arrival.
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
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    for _ in 0..4 {
        let (server, log, answer) = (server.clone(), log.clone(), answer.clone());
        std::thread::spawn(move || {
            while let Ok(mut request) = server.recv() {
                let body: Value = serde_json::from_reader(request.as_reader()).unwrap();
                let path = request.url().to_string();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push((path.clone(), body.clone()));
                    log.len() - 1
                };
                let (status, body) = answer(number, &path, &body);
                let _ = request.respond(tiny_http::Response::from_string(body.to_string()).with_status_code(status));
            }
        });
    }
    (url, log)
}
