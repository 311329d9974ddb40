//! Several servers asked as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerosearch_http::{EndpointCounts, Fleet, JsonClient, RetryPolicy, in_parallel};

fn impatient() -> RetryPolicy {
    RetryPolicy {
        timeout: Duration::from_secs(5),
        attempts: 2,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(5),
    }
}

/// A server with the status that it answers with now, and how many requests it had at once at most.
struct Stub {
    url: String,
    status: AtomicU16,
    asked: AtomicUsize,
    most: AtomicUsize,
    is_slow: AtomicBool,
    /// While it is set, requests wait for their answers.
    holds: AtomicBool,
}

impl Stub {
    /// `status` 0 means that the program of this address is not running.
    fn start() -> Arc<Self> {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let url = format!("http://{}/retrieve", server.server_addr().to_ip().unwrap());
        let (asked, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (status, is_slow, holds) = (AtomicU16::new(200), AtomicBool::new(false), AtomicBool::new(false));
        let stub = Arc::new(Self { url, status, asked, most, is_slow, holds });
        let running = Arc::new(AtomicUsize::new(0));
        for _ in 0..16 {
            let (server, stub, running) = (server.clone(), stub.clone(), running.clone());
            std::thread::spawn(move || {
                while let Ok(mut request) = server.recv() {
                    let status = stub.status.load(Ordering::SeqCst);
                    if request.url() == "/health" {
                        let status = if status == 500 { 200 } else { status };
                        let _ = request.respond(tiny_http::Response::empty(status));
                        continue;
                    }
                    stub.most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    stub.asked.fetch_add(1, Ordering::SeqCst);
                    let body: Value = serde_json::from_reader(request.as_reader()).unwrap();
                    if stub.is_slow.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    while stub.holds.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    let answer = tiny_http::Response::from_string(json!({"echo": body}).to_string());
                    let _ = request.respond(answer.with_status_code(status));
                }
            });
        }
        stub
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

fn fleet(stubs: &[Arc<Stub>]) -> Fleet {
    Fleet::new(stubs.iter().map(|stub| stub.url.clone()), JsonClient::new(impatient()))
}

fn ask(fleet: &Fleet, count: usize) {
    let bodies: Vec<usize> = (0..count).collect();
    let answers = in_parallel(&bodies, 16, |body| fleet.post::<Value>(body).unwrap());
    assert!(answers.iter().zip(&bodies).all(|(answer, body)| answer["echo"] == *body));
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_least_busy_is_asked() {
    let stubs = [Stub::start(), Stub::start(), Stub::start()];
    let fleet = fleet(&stubs);
    ask(&fleet, 1);
    for _ in 0..5 {
        fleet.post::<Value>(&0).unwrap();
    }
    assert_eq!(stubs.each_ref().map(|stub| stub.asked()), [2, 2, 2], "equally busy ones take turns");
    // One that answers nothing until the others have answered nearly all gets its share of the 16 at once and no more.
    stubs[0].holds.store(true, Ordering::SeqCst);
    let others = || stubs[1..].iter().map(|stub| stub.asked.load(Ordering::SeqCst)).sum::<usize>();
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&fleet, 200));
        wait_until("the others go on", || others() >= 180);
        assert!(stubs[0].asked.load(Ordering::SeqCst) <= 6);
        stubs[0].holds.store(false, Ordering::SeqCst);
    });
    assert_eq!(stubs.iter().map(|stub| stub.asked()).sum::<usize>(), 200);
    let counts = fleet.counts();
    assert!(
        counts.iter().all(|counts| counts.busy == 0 && counts.failures == 0 && counts.is_up && counts.seconds > 0.0)
    );
    assert_eq!(counts.iter().map(|counts| counts.requests).sum::<u64>(), 206);
}

#[test]
fn one_that_fails_is_left_alone_until_it_is_well_and_then_trusted_step_by_step() {
    let stubs = [Stub::start(), Stub::start()];
    let fleet = fleet(&stubs);
    let is_up = || fleet.counts()[1].is_up;
    stubs[1].set(503);
    ask(&fleet, 100);
    assert!(!is_up() && stubs[1].asked() < 30, "nothing is lost, and it is not asked any more");
    ask(&fleet, 50);
    assert_eq!(stubs[1].asked(), 0);
    stubs.iter().for_each(|stub| stub.is_slow.store(true, Ordering::SeqCst));
    stubs[1].set(200);
    wait_until("it is found to be well", is_up);
    stubs[1].most.store(0, Ordering::SeqCst);
    ask(&fleet, 4);
    assert_eq!(stubs[1].most.load(Ordering::SeqCst), 1, "one request at a time at first");
    while stubs[1].asked.load(Ordering::SeqCst) < 20 {
        ask(&fleet, 16);
    }
    stubs.iter().for_each(|stub| stub.holds.store(true, Ordering::SeqCst));
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&fleet, 16));
        wait_until("it gets half of 16", || stubs[1].most.load(Ordering::SeqCst) >= 8);
        stubs.iter().for_each(|stub| stub.holds.store(false, Ordering::SeqCst));
    });
}

#[test]
fn one_that_fails_at_once_does_not_draw_all_requests() {
    let stubs = [Stub::start(), Stub::start()];
    stubs[0].is_slow.store(true, Ordering::SeqCst);
    stubs[1].set(500);
    let fleet = fleet(&stubs);
    ask(&fleet, 300);
    assert!(stubs[1].asked() < 60, "its health is good and its answers are not");
    assert_eq!(fleet.counts()[0].failures, 0);
}

#[test]
fn a_refusal_is_final_and_names_its_server() {
    let stubs = [Stub::start(), Stub::start()];
    for status in [400, 401, 404, 413, 422] {
        stubs.iter().for_each(|stub| stub.set(status));
        let fleet = fleet(&stubs);
        let error = fleet.post::<Value>(&0).unwrap_err();
        assert_eq!(stubs.iter().map(|stub| stub.asked()).sum::<usize>(), 1, "{error}");
        assert_eq!((error.status(), error.endpoint.as_str()), (Some(status), stubs[0].url.as_str()));
        assert!(fleet.counts().iter().all(|counts| counts.is_up && counts.failures == 0));
    }
    // Too many requests, and its kin, are a matter of the server.
    for status in [408, 429] {
        stubs[0].set(status);
        stubs[1].set(200);
        fleet(&stubs).post::<Value>(&0).unwrap();
    }
}

#[test]
fn all_dead_names_all_with_what_each_said() {
    let stubs = [Stub::start(), Stub::start()];
    stubs[0].set(500);
    stubs[1].set(502);
    let error = fleet(&stubs).post::<Value>(&0).unwrap_err().to_string();
    for stub in &stubs {
        let status = stub.status.load(Ordering::SeqCst);
        assert!(error.contains(&format!("{}: status {status}", stub.url)), "{error}");
        assert_eq!(stub.asked(), 2);
    }
    assert!(error.contains("all 2 servers failed (4 attempts)"), "{error}");
    let none = Fleet::new([], JsonClient::new(impatient()));
    assert!(none.post::<Value>(&0).unwrap_err().to_string().contains("at least one server"));
}

#[test]
fn one_address_is_asked_as_a_client_asks_it() {
    let stub = Stub::start();
    for status in [500, 400] {
        stub.set(status);
        let alone = JsonClient::new(impatient()).post::<Value>(&stub.url, &0).unwrap_err();
        let asked = stub.asked();
        assert_eq!(fleet(std::slice::from_ref(&stub)).post::<Value>(&0).unwrap_err(), alone);
        assert_eq!(stub.asked(), asked);
    }
}

#[test]
fn counters_show_neither_keys_nor_paths() {
    let url = "http://me:secret@h:1/v1/completions?key=secret".to_string();
    let counts = Fleet::new([url], JsonClient::new(impatient())).counts();
    assert_eq!(counts[0].endpoint, "http://h:1/v1/completions");
    let names: Vec<String> = EndpointCounts::counters(&counts).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["h:1/requests", "h:1/failures", "h:1/seconds"]);
}
