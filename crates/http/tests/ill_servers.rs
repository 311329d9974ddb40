//! A server that is slow, ill or gone: what a client does then, and how long it takes.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerosearch_http::{JsonClient, RetryPolicy};

fn impatient() -> RetryPolicy {
    RetryPolicy {
        timeout: Duration::from_millis(300),
        attempts: 3,
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(40),
    }
}

/// A server that answers its n-th request with `answer(n)`; its address, and how many requests came.
fn server(answer: impl Fn(usize) -> (u16, String) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}/retrieve", server.server_addr().to_ip().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let (status, body) = answer(counter.fetch_add(1, Ordering::SeqCst));
            let _ = request.respond(tiny_http::Response::from_string(body).with_status_code(status));
        }
    });
    (url, count)
}

fn ask(url: &str) -> Result<Value, zerosearch_http::HttpError> {
    JsonClient::new(impatient()).post(url, &json!({"query": "x"}))
}

#[test]
fn an_answer_is_parsed() {
    let (url, count) = server(|_| (200, r#"{"result": [1]}"#.into()));
    assert_eq!(ask(&url).unwrap(), json!({"result": [1]}));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_passing_failure_is_tried_again() {
    for status in [429, 500, 503] {
        let (url, count) = server(move |n| if n == 0 { (status, "busy".into()) } else { (200, "7".into()) });
        assert_eq!(ask(&url).unwrap(), 7);
        assert_eq!(count.load(Ordering::SeqCst), 2, "status {status}");
    }
}

#[test]
fn a_lasting_failure_ends_after_the_attempts_with_growing_pauses() {
    let (url, count) = server(|_| (500, "out of memory".into()));
    let begun = Instant::now();
    let error = ask(&url).unwrap_err();
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(error.endpoint, url);
    assert!(error.message.contains("500") && error.message.contains("out of memory (3 attempts)"), "{error}");
    // Pauses of at least 20 and 40 ms: attempts do not follow each other at once, and they do end.
    assert!(begun.elapsed() >= Duration::from_millis(60) && begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_refusal_is_final() {
    for status in [400, 401, 404, 422] {
        let (url, count) = server(move |_| (status, "no".into()));
        let error = ask(&url).unwrap_err();
        assert!(error.message.contains(&status.to_string()), "{error}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "status {status}");
    }
}

#[test]
fn malformed_json_is_final_and_shown() {
    let (url, count) = server(|_| (200, "<html>not json".into()));
    let error = ask(&url).unwrap_err();
    assert!(error.message.contains("<html>not json"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn address_without_a_listener() {
    // No other test is given this port.
    let error = ask("http://127.0.0.1:1/retrieve").unwrap_err();
    assert!(error.message.ends_with("(3 attempts)"), "{error}");
}

#[test]
fn silence_ends_with_the_time_out() {
    // Connections are accepted by the kernel, and never read or written.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let error = ask(&format!("http://{}/retrieve", listener.local_addr().unwrap())).unwrap_err();
    assert!(error.message.contains("no answer within 300ms"), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(6));
}

#[test]
fn a_server_that_trickles_ends_with_the_time_out() {
    // One byte every 50 ms never trips a time-out per read; only one for the whole attempt ends it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/retrieve", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    let begun = Instant::now();
    assert!(ask(&url).is_err());
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[test]
fn an_answer_cut_short_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/retrieve", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let body = if n == 0 { "[1, 2" } else { "[1, 2, 3]" };
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{body}");
        }
    });
    assert_eq!(ask(&url).unwrap(), json!([1, 2, 3]));
}

#[test]
fn headers_and_parameters_arrive() {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}/search", server.server_addr().to_ip().unwrap());
    let seen = std::thread::spawn(move || {
        let request = server.recv().unwrap();
        let key = request.headers().iter().find(|header| header.field.equiv("X-API-KEY")).unwrap().value.to_string();
        let seen = (request.url().to_string(), key);
        request.respond(tiny_http::Response::from_string("{}")).unwrap();
        seen
    });
    let client = JsonClient::new(impatient()).with_header("X-API-KEY", "secret");
    client.get::<Value>(&url, &[("q", "a b&c=d"), ("num", "5")]).unwrap();
    assert_eq!(seen.join().unwrap(), ("/search?q=a%20b%26c%3Dd&num=5".to_string(), "secret".to_string()));
}
