//! A retrieval server that answers 500 for as long as some dozens of requests: a minute of a real one, in the time of a test.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use zerosearch_rollout::{Noise, RolloutConfig, RolloutEnd, RolloutPlan, RolloutStats};
use zerosearch_search::{RetrieverServer, RetryPolicy};

const OUTAGE: std::ops::Range<usize> = 3..40;

/// A server in Search-R1's form that fails the requests of the outage, and counts all.
fn server() -> (String, Arc<AtomicUsize>) {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let requests = count.clone();
    std::thread::spawn(move || {
        while let Ok(mut request) = server.recv() {
            let body: Value = serde_json::from_reader(request.as_reader()).unwrap_or_default();
            if OUTAGE.contains(&requests.fetch_add(1, Ordering::SeqCst)) {
                let _ = request.respond(tiny_http::Response::from_string("out of memory").with_status_code(500));
                continue;
            }
            let found =
                |query: &Value| json!([{"document": {"contents": format!("Passage of {query}")}, "score": 1.0}]);
            let result: Vec<Value> = body["queries"].as_array().unwrap().iter().map(found).collect();
            let _ = request.respond(tiny_http::Response::from_string(json!({"result": result}).to_string()));
        }
    });
    (url, count)
}

#[test]
fn an_outage_costs_searches_and_no_rollout() {
    let codec = codec();
    let (url, requests) = server();
    let retry = RetryPolicy {
        timeout: Duration::from_secs(5),
        attempts: 2,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(1),
    };
    let engine = RetrieverServer::search_r1(url).with_retry(retry).with_concurrency(1);
    let turn = "<search> a river </search>";
    let mut generator = Scripted::writing(&codec, &[turn, turn, turn, "<answer> It is Chad. </answer>"]);
    // One rollout and one search at a time: every search is a request of its own.
    let config =
        RolloutConfig { max_turns: 6, top_k: 1, concurrency: 1, search_concurrency: 1, ..RolloutConfig::default() };
    let plan = RolloutPlan { seed: 7, step: 3, ..RolloutPlan::search(&engine, Noise::Off, &codec, config) };
    let rollouts = plan.run(&mut generator, tasks(&codec, 10, 1), &mut |_| {}).unwrap();

    assert!(rollouts.iter().all(|rollout| rollout.end == RolloutEnd::Answered), "an outage ends nothing");
    assert!(generator.live.is_empty());
    let calls: Vec<_> = rollouts.iter().flat_map(|rollout| rollout.calls()).collect();
    assert_eq!(calls.len(), 30);
    // Three answered; two requests for each failed search, the last of which finds the server well again at its second.
    let failed: Vec<_> = calls.iter().filter(|call| call.failure.is_some()).collect();
    assert_eq!((failed.len(), requests.load(Ordering::SeqCst)), (18, 3 + 2 * 18 + 2 + 8));
    assert!(
        calls[3..21].iter().all(|call| call.failure.as_ref().is_some_and(|why| why.contains("500"))),
        "in the record"
    );
    assert!(calls[21..].iter().all(|call| !call.documents.is_empty()), "and over when it is over");
    assert!(rollouts[2].observations().all(|text| !text.contains("127.0.0.1")), "the policy is told no address");
    let failures = RolloutStats::of(&rollouts).metrics().into_iter().find(|(name, _)| *name == "env/search_failures");
    assert_eq!(failures, Some(("env/search_failures", 18.0)));
}
