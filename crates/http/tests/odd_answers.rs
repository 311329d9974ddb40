//! Servers that are well and answer oddly: redirects, limits of rate, other writings, errors under a status of success.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy};

fn impatient() -> RetryPolicy {
    RetryPolicy {
        timeout: Duration::from_millis(500),
        attempts: 3,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(10),
    }
}

/// A request as it came: the first line, the headers in lower case, and the body.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: String,
    body: String,
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut headers = String::new();
    while stream.read_line(&mut headers).ok()? > 2 {}
    let headers = headers.to_lowercase();
    let length = headers.lines().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").into();
    Some(Seen { line, headers, body: String::from_utf8(body).unwrap() })
}

/// A server that answers its n-th request with these bytes, and closes the connection without a word where `closing`.
fn raw(
    closing: bool,
    answer: impl Fn(usize, &Seen) -> Vec<u8> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, answer) = (log.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(request) = read(&mut stream) {
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        log.len() - 1
                    };
                    if stream.get_mut().write_all(&answer(number, &request)).is_err() || closing {
                        return;
                    }
                }
            });
        }
    });
    (url, seen)
}

/// An answer with a status, headers and a body.
fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn server(
    respond: impl Fn(usize, &Seen) -> (u16, String, String) + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<Seen>>>) {
    raw(false, move |number, seen| {
        let (status, headers, body) = respond(number, seen);
        answer(status, &headers, body)
    })
}

fn ask(url: &str) -> Result<Value, HttpError> {
    JsonClient::new(impatient()).post(url, &json!({"query": "x"}))
}

fn lines(seen: &Mutex<Vec<Seen>>) -> Vec<String> {
    seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
}

#[test]
fn a_post_stays_a_post_after_a_redirect() {
    for (status, location, second) in [
        (307, "/retrieve", "POST /retrieve"),
        (308, "http://{host}/retrieve?a=b", "POST /retrieve?a=b"),
        (301, "../v2/retrieve/", "POST /v2/retrieve/"),
        (302, "//{host}/x", "POST /x"),
        (303, "/result?id=7", "GET /result?id=7"),
    ] {
        let (url, seen) = server(move |number, seen| {
            let host = seen.headers.lines().find_map(|header| header.strip_prefix("host: ")).unwrap();
            match number {
                0 => (status, format!("Location: {}\r\n", location.replace("{host}", host)), "moved".into()),
                _ => (200, String::new(), "7".into()),
            }
        });
        let client = JsonClient::new(impatient()).with_header("Authorization", "Bearer secret\n");
        assert_eq!(client.post::<Value>(&format!("{url}/retrieve/"), &json!({"query": "x"})).unwrap(), 7);
        assert_eq!(lines(&seen), ["POST /retrieve/", second], "{status}");
        let second = seen.lock().unwrap()[1].clone();
        assert_eq!(second.body, if status == 303 { "" } else { r#"{"query":"x"}"# });
        assert_eq!(second.headers.contains("content-type: application/json"), status != 303);
        assert!(second.headers.contains("authorization: bearer secret\r\n"));
    }
}

#[test]
fn another_server_is_sent_no_key() {
    let (other, seen) = server(|_, seen| match seen.line.contains("ok") {
        true => (200, String::new(), "7".into()),
        false => (401, String::new(), "who are you?".into()),
    });
    let target = other.clone();
    let (url, _) = server(move |_, seen| {
        let path = seen.line.split('/').nth(1).unwrap().to_string();
        (307, format!("Location: {target}/{path}\r\n"), String::new())
    });
    let url = url.replace("http://", "http://me:pass%20word@");
    let client = JsonClient::new(impatient()).with_header("X-API-KEY", "secret");
    assert_eq!(client.post::<Value>(&format!("{url}/ok"), &1).unwrap(), 7);
    let error = client.post::<Value>(&format!("{url}/ill?key=secret"), &1).unwrap_err();
    assert!(error.message.starts_with("status 401") && error.message.contains("who are you?"), "{error}");
    assert!(
        error.message.contains(&format!("(redirected to {other}/ill, another server, which is sent no key)")),
        "{error}"
    );
    assert!(!error.to_string().contains("secret") && !error.to_string().contains("word"), "{error}");
    assert_eq!(error.status(), Some(401));
    for seen in seen.lock().unwrap().iter() {
        assert!(!seen.headers.contains("secret") && !seen.headers.contains("authorization"), "{}", seen.headers);
    }
}

#[test]
fn redirects_that_lead_nowhere_are_named_at_once() {
    for (headers, expected, requests) in [
        ("Location: /retrieve\r\n", "more than 10 redirects", 11),
        ("", "no `Location`", 1),
        ("Location: file:///etc/passwd\r\n", "scheme `file`", 1),
    ] {
        let (url, seen) = server(|_, _| (307, headers.into(), String::new()));
        let error = ask(&url).unwrap_err();
        assert!(error.message.contains(expected) && error.endpoint == url, "{error}");
        assert_eq!(seen.lock().unwrap().len(), requests, "{headers}");
    }
}

#[test]
fn a_user_in_the_address_is_authorised() {
    let (url, seen) = server(|_, _| (200, String::new(), "7".into()));
    assert_eq!(ask(&url.replace("http://", "http://me:pass%20word@")).unwrap(), 7);
    // base64 of `me:pass word`, in lower case as all headers here.
    let expected = format!("authorization: basic {}", "bWU6cGFzcyB3b3Jk".to_lowercase());
    assert!(seen.lock().unwrap()[0].headers.contains(&expected));
    assert!(!seen.lock().unwrap()[0].headers.contains("me:pass"));
}

#[test]
fn the_time_that_a_server_names_is_waited_for() {
    // More often than there are attempts, and longer than all pauses of our own.
    for headers in [
        "Retry-After: 0.12\r\n",
        "retry-after-ms: 120\r\n",
        "X-RateLimit-Remaining-Requests: 0\r\nX-RateLimit-Reset-Requests: 120ms\r\n",
    ] {
        let begun = Instant::now();
        let (url, seen) = server(move |_, _| match begun.elapsed() < Duration::from_millis(480) {
            true => (if headers.len() % 2 == 0 { 429 } else { 503 }, headers.into(), "slow down".into()),
            false => (200, String::new(), "7".into()),
        });
        assert_eq!(ask(&url).unwrap(), 7, "{headers}");
        let requests = seen.lock().unwrap().len();
        assert!((4..=6).contains(&requests), "{requests} requests: {headers}");
    }
}

#[test]
fn a_time_that_is_too_long_is_named_and_an_unreadable_one_is_no_time() {
    let policy = RetryPolicy { attempts: 1, ..impatient() };
    for (headers, policy, expected, requests) in [
        (
            "Retry-After: 3600\r\n",
            impatient(),
            "429 Too Many Requests: slow; the server asks to come back after 3600s, and a call takes 15s at most",
            1,
        ),
        ("Retry-After: -1\r\n", impatient(), "slow (3 attempts)", 3),
        ("Retry-After: soon\r\n", impatient(), "slow (3 attempts)", 3),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", impatient(), "slow (3 attempts)", 3),
        ("Retry-After: 1\r\n", policy, "slow", 1),
    ] {
        let begun = Instant::now();
        let (url, seen) = server(|_, _| (429, headers.into(), "slow".into()));
        let error = JsonClient::new(policy).post::<Value>(&url, &1).unwrap_err();
        assert!(error.message.ends_with(expected), "{error}");
        assert_eq!(seen.lock().unwrap().len(), requests, "{headers}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{headers}");
    }
}

#[test]
fn statuses() {
    for (status, body, expected, requests) in [
        (408, "late", "status 408 Request Timeout: late (3 attempts)", 3),
        (425, "", "status 425 Too Early (3 attempts)", 3),
        (504, "gateway", "status 504 Gateway Timeout: gateway (3 attempts)", 3),
        (520, "origin", "status 520 <unknown status code>: origin (3 attempts)", 3),
        (529, "overloaded", "status 529 <unknown status code>: overloaded (3 attempts)", 3),
        (403, "no", "status 403 Forbidden: no", 1),
        (413, "big", "status 413 Payload Too Large: big", 1),
        (
            422,
            r#"{"detail":[{"loc":["body","queries"],"msg":"Field required"}]}"#,
            r#"status 422 Unprocessable Entity: {"detail":[{"loc":["body","queries"],"msg":"Field required"}]}"#,
            1,
        ),
        (
            429,
            r#"{"error":{"code":"insufficient_quota"}}"#,
            r#"status 429 Too Many Requests: {"error":{"code":"insufficient_quota"}}"#,
            1,
        ),
        (204, "", "an empty answer (status 204 No Content)", 1),
        (200, "", "an empty answer (status 200 OK) (3 attempts)", 3),
        (400, "\x1b[2Jred\u{202e}", r"status 400 Bad Request: \u{1b}[2Jred\u{202e}", 1),
    ] {
        let (url, seen) = server(move |_, _| (status, String::new(), body.into()));
        let error = ask(&url).unwrap_err();
        assert_eq!(error.message, expected);
        assert_eq!(seen.lock().unwrap().len(), requests, "{expected}");
        assert_eq!(error.status(), (status >= 400).then_some(status), "{expected}");
    }
}

#[test]
fn errors_under_a_status_of_success() {
    for (body, expected, requests) in [
        (
            r#"{"error": {"message": "no such model", "code": 404}}"#,
            "the server reports an error 404: no such model",
            1,
        ),
        (r#"{"error": {"message": "overloaded", "code": 529}}"#, "an error 529: overloaded (3 attempts)", 3),
        (r#"{"detail": "index not loaded"}"#, "an error: index not loaded", 1),
        (r#"{"code": 500, "msg": "no memory"}"#, "an error 500: no memory (3 attempts)", 3),
        ("<html>gateway</html>", "the answer begins with `<html>gateway</html>`", 1),
        (
            r#"{"other": 1}"#,
            r#"unexpected answer: invalid type: map, expected a sequence at line 1 column 0; the answer begins with `{"other": 1}`"#,
            1,
        ),
        (
            "[1, 2",
            "the answer breaks off: EOF while parsing a list at line 1 column 5; it begins with `[1, 2` (3 attempts)",
            3,
        ),
    ] {
        let (url, seen) = server(|_, _| (200, "Content-Type: text/html\r\n".into(), body.into()));
        let error = JsonClient::new(impatient()).post::<Vec<u8>>(&url, &1).unwrap_err();
        assert!(error.message.ends_with(expected), "{error}");
        assert_eq!(seen.lock().unwrap().len(), requests, "{body}");
    }
}

#[test]
fn other_writings_and_transports_are_read() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"[7]").unwrap();
    for (bytes, expected) in [
        (answer(200, "Content-Encoding: gzip\r\n", gzip.finish().unwrap()), json!([7])),
        (answer(200, "", "\u{feff}[7]"), json!([7])),
        (
            answer(200, "", r#"["cut \ud83c", NaN, -Infinity, "\ud83c\udf0d"]"#),
            json!(["cut \u{fffd}", null, null, "🌍"]),
        ),
        (answer(200, "", b"[\"\xff\"]"), json!(["\u{fffd}"])),
        (answer(202, "", "[7]"), json!([7])),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[7\r\n1\r\n]\r\n0\r\n\r\n".to_vec(), json!([7])),
        (b"HTTP/1.0 200 OK\r\n\r\n[7]".to_vec(), json!([7])),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let (url, seen) = raw(true, move |_, _| bytes.clone());
        assert_eq!(ask(&url).unwrap_or_else(|error| panic!("{error}: {shown}")), expected, "{shown}");
        assert_eq!(seen.lock().unwrap().len(), 1, "{shown}");
    }
    let (url, _) = raw(true, |_, _| answer(200, "Content-Encoding: br\r\n", b"\x0b\x01\x80[7]\x03"));
    let error = ask(&url).unwrap_err();
    assert_eq!(error.message, "the answer is encoded with `br`, which was not asked for");
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_again() {
    // The server says nothing about closing, so the client keeps the connection for the next request.
    let (url, seen) = raw(true, |_, _| answer(200, "", "7"));
    let client = JsonClient::new(impatient());
    for _ in 0..3 {
        assert_eq!(client.post::<Value>(&url, &1).unwrap(), 7);
    }
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[test]
fn keys_are_in_no_message() {
    let (url, _) = server(|_, seen| (400, String::new(), format!("bad key in {} {}", seen.line, seen.headers)));
    let client = JsonClient::new(impatient()).with_header("Authorization", "Bearer s3cret-key\n");
    let error = client.get::<Value>(&url, &[("q", "x"), ("api_key", "0ther-key")]).unwrap_err().to_string();
    assert!(error.contains("bad key in GET /?q=x&api_key=…"), "{error}");
    assert!(!error.contains("s3cret") && !error.contains("0ther"), "{error}");
}
