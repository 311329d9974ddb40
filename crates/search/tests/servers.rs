//! The engines behind a network, against servers in this process.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerosearch_search::{Cached, Document, Query, RetrieverServer, RetryPolicy, SearchEngine, WebSearch};

fn impatient() -> RetryPolicy {
    RetryPolicy {
        timeout: Duration::from_millis(300),
        attempts: 3,
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(20),
    }
}

fn query(text: &str, top_k: usize) -> Query<'_> {
    Query { text, top_k, context: None }
}

/// A request to the server: path and query string, and the body.
type Log = Arc<Mutex<Vec<(String, Value)>>>;

/// A server with several threads that answers what `answer` says, given the number of the request and its body.
fn server(answer: impl Fn(usize, &Value) -> (u16, Value) + Send + Sync + 'static) -> (String, Log) {
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    for _ in 0..4 {
        let (server, log, answer) = (server.clone(), log.clone(), answer.clone());
        std::thread::spawn(move || {
            while let Ok(mut request) = server.recv() {
                let body: Value = serde_json::from_reader(request.as_reader()).unwrap_or_default();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push((request.url().to_string(), body.clone()));
                    log.len() - 1
                };
                let (status, body) = answer(number, &body);
                let _ = request.respond(tiny_http::Response::from_string(body.to_string()).with_status_code(status));
            }
        });
    }
    (url, log)
}

/// A server that always answers with this text.
fn raw_server(answer: &'static str) -> (String, std::thread::JoinHandle<()>) {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let thread = std::thread::spawn(move || {
        server.incoming_requests().for_each(|request| drop(request.respond(tiny_http::Response::from_string(answer))));
    });
    (url, thread)
}

/// Answers as Search-R1's server does: each query's documents repeat its words.
fn search_r1_answer(body: &Value) -> Value {
    let top_k = body["topk"].as_u64().unwrap();
    let result = |query: &Value| -> Value {
        (0..top_k).map(|n| json!({"document": {"id": n.to_string(), "contents": format!("{} {n}", query.as_str().unwrap())}, "score": 1.0})).collect()
    };
    json!({"result": body["queries"].as_array().unwrap().iter().map(result).collect::<Value>()})
}

fn contents(answers: Vec<Result<Vec<Document>, impl std::fmt::Display>>) -> Vec<Vec<String>> {
    let texts = |documents: Vec<Document>| documents.into_iter().map(|document| document.contents).collect();
    answers.into_iter().map(|answer| answer.map(texts).unwrap_or_else(|error| panic!("{error}"))).collect()
}

#[test]
fn search_r1_batches_in_one_request() {
    let (url, log) = server(|_, body| (200, search_r1_answer(body)));
    let engine = RetrieverServer::search_r1(&url).with_retry(impatient());
    let found = contents(engine.search_batch(&[query("a", 2), query("b", 2)]));
    assert_eq!(found, [["a 0", "a 1"], ["b 0", "b 1"]]);
    let body = json!({"queries": ["a", "b"], "topk": 2, "return_scores": true});
    assert_eq!(*log.lock().unwrap(), [("/retrieve".to_string(), body)]);

    let mixed = contents(engine.search_batch(&[query("a", 1), query("b", 2), query("c", 1)]));
    assert_eq!(mixed, [vec!["a 0"], vec!["b 0", "b 1"], vec!["c 0"]]);
    assert_eq!(log.lock().unwrap().len(), 3);
    assert!(engine.search_batch(&[]).is_empty());
    assert_eq!(engine.search(&query("d", 1)).unwrap()[0].score, Some(1.0));
}

#[test]
fn zerosearch_asks_in_parallel_and_keeps_the_order() {
    let (url, log) = server(|number, body| {
        std::thread::sleep(Duration::from_millis(40 - 10 * (number as u64 % 4)));
        (200, json!({"results": [{"title": "T", "contents": body["query"]}, {"contents": "one too many"}]}))
    });
    let engine = RetrieverServer::zerosearch(&url).with_retry(impatient()).with_concurrency(4);
    let texts: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    let queries: Vec<_> = texts.iter().map(|text| query(text, 1)).collect();
    let found: Vec<String> = contents(engine.search_batch(&queries)).into_iter().flatten().collect();
    assert_eq!(found, texts);
    assert!(log.lock().unwrap().iter().all(|(_, body)| body["top_k"] == 1));
}

#[test]
fn a_server_that_recovers_is_not_noticed() {
    let (url, log) =
        server(|number, body| if number == 0 { (500, json!("busy")) } else { (200, search_r1_answer(body)) });
    let engine = RetrieverServer::search_r1(&url).with_retry(impatient());
    assert_eq!(engine.search(&query("a", 1)).unwrap()[0].contents, "a 0");
    assert_eq!(log.lock().unwrap().len(), 2);
}

/// Retrying for ever, at once and without a time-out, is how a dead retriever stops a training run.
#[test]
fn a_dead_server_is_an_error_within_bounds_that_names_it() {
    let (failing, log) = server(|_, _| (500, json!("out of memory")));
    // Nothing listens there, and no other test is given that port.
    let gone = "http://127.0.0.1:1".to_string();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = (format!("http://{}", silent.local_addr().unwrap()), silent);
    for url in [&failing, &gone, &silent.0] {
        let begun = Instant::now();
        for engine in [RetrieverServer::search_r1(url), RetrieverServer::zerosearch(url)] {
            let engine = engine.with_retry(impatient());
            for answer in engine.search_batch(&[query("a", 1), query("b", 1)]) {
                let error = answer.unwrap_err().to_string();
                assert!(error.starts_with(url) && error.contains("(3 attempts)"), "{error}");
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "{url} took {:?}", begun.elapsed());
    }
    // One batch in one request, and two single requests, three attempts each.
    assert_eq!(log.lock().unwrap().len(), 9);
}

#[test]
fn an_unexpected_answer_is_an_error_at_once() {
    let (url, log) = server(|_, _| (200, json!({"detail": "nothing"})));
    let error =
        RetrieverServer::search_r1(&url).with_retry(impatient()).search(&query("a", 1)).unwrap_err().to_string();
    assert!(error.starts_with(&url) && error.contains("unexpected answer"), "{error}");
    assert_eq!(log.lock().unwrap().len(), 1);
}

/// One element of a batch that is null, or text that was cut within an emoji, costs no other element.
#[test]
fn a_bad_element_does_not_cost_its_batch() {
    let (url, log) = server(|_, body| {
        let mut answer = search_r1_answer(body);
        answer["result"][1] = json!(null);
        answer["result"][2] = json!([{"document": null}, {"contents": "c"}, {"contents": null}]);
        (200, answer)
    });
    let engine = RetrieverServer::search_r1(&url).with_retry(impatient());
    let mut answers = engine.search_batch(&[query("a", 1), query("b", 1), query("c", 1), query("d", 1)]);
    let error = answers.remove(1).unwrap_err().to_string();
    assert!(error.starts_with(&url) && error.contains("unexpected answer: `null` in place of"), "{error}");
    assert_eq!(contents(answers), [["a 0"], ["c"], ["d 0"]]);
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[test]
fn text_cut_within_an_emoji_is_read() {
    let (url, _) = raw_server(r#"{"result": [[{"document": {"contents": "cut \ud83c"}, "score": NaN}]]}"#);
    let found = RetrieverServer::search_r1(&url).with_retry(impatient()).search(&query("a", 1)).unwrap();
    assert_eq!(found, [Document { contents: "cut \u{fffd}".into(), ..Default::default() }]);
}

#[test]
fn a_retriever_that_reports_an_error_under_200() {
    for (answer, expected) in [
        (json!({"error": "no memory"}), "the server reports an error: no memory"),
        (json!({"result": null, "detail": "index not loaded"}), "the server reports an error: index not loaded"),
        (json!({"result": [[]]}), "1 lists of results for 2 queries"),
    ] {
        let (url, _) = server(move |_, _| (200, answer.clone()));
        let engine = RetrieverServer::search_r1(&url).with_retry(impatient());
        for answer in engine.search_batch(&[query("a", 1), query("b", 1)]) {
            let error = answer.unwrap_err().to_string();
            assert!(error.contains("unexpected answer") && error.contains(expected), "{error}");
        }
    }
}

#[test]
fn pages_with_only_an_answer_box() {
    let box_of = |name: &str| json!({name: {"title": "Chad", "answer": "N'Djamena", "link": "L"}});
    let empty = "Google hasn't returned any results for this query.";
    for (answer, expected) in [
        (box_of("answer_box"), vec!["N'Djamena"]),
        (box_of("answerBox"), vec!["N'Djamena"]),
        (json!({"answer_box": {"answer": "N'Djamena"}, "error": empty}), vec!["N'Djamena"]),
        (json!({"error": empty, "organic_results": null}), vec![]),
        (json!({"organic": null, "searchParameters": {}}), vec![]),
        (json!({"organic": [{"link": "L"}, {"title": "T", "snippet": null}]}), vec![""]),
    ] {
        let (url, _) = server(move |_, _| (200, answer.clone()));
        for engine in [WebSearch::serpapi("secret"), WebSearch::serper("secret")] {
            let found = engine.with_url(&url).with_retry(impatient()).search(&query("capital of Chad", 3)).unwrap();
            assert_eq!(found.iter().map(|document| document.contents.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn web_services_that_refuse_are_not_asked_again_and_keep_the_key_secret() {
    for (status, answer, expected) in [
        (200, json!({"error": "Invalid API key secret."}), "Invalid API key …."),
        (200, json!({"message": "Not enough credits", "statusCode": 400}), "Not enough credits"),
        (200, json!({"hello": "secret"}), r#"no page of results: {"hello":"…"}"#),
        (200, json!(["secret"]), "unexpected answer"),
        (401, json!({"error": "Invalid API key: secret"}), r#"Invalid API key: …"}; is the key right ("#),
        (403, json!({"message": "Unauthorized.", "statusCode": 403}), "is the key right ("),
        (429, json!({"error": "Your account has run out of searches."}), "run out of searches"),
    ] {
        let (url, log) = server(move |_, _| (status, answer.clone()));
        for engine in [WebSearch::serpapi("secret\n"), WebSearch::serper(" secret")] {
            let engine = engine.with_url(&url).with_retry(impatient());
            let error = engine.search(&query("a", 3)).unwrap_err().to_string();
            assert!(error.starts_with(&url) && error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert_eq!(log.lock().unwrap().len(), 2, "{expected}");
    }
}

#[test]
fn serpapi() {
    let (url, log) = server(|number, _| match number {
        0 => (
            200,
            json!({"organic_results": [{"title": "T", "snippet": "S", "link": "L", "position": 1}, {"title": "U"}, {"link": "M"}, {"snippet": "V"}]}),
        ),
        1 => (200, json!({"error": "Google hasn't returned any results for this query."})),
        2 => (200, json!({"error": "Your account has run out of searches."})),
        _ => (401, json!({"error": "Invalid API key."})),
    });
    let engine = WebSearch::serpapi("secret").with_url(format!("{url}/search")).with_retry(impatient());
    let found = engine.search(&query("what? &c", 2)).unwrap();
    let expected = Document { id: Some("L".into()), title: Some("T".into()), contents: "S".into(), score: None };
    assert_eq!(found, [expected, Document { title: Some("U".into()), ..Default::default() }]);
    assert_eq!(log.lock().unwrap()[0].0, "/search?engine=google&q=what%3F%20%26c&num=2&api_key=secret");

    assert!(engine.search(&query("b", 2)).unwrap().is_empty());
    for expected in ["run out of searches", "Invalid API key"] {
        let error = engine.search(&query("c", 2)).unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(expected) && !error.contains("secret"), "{error}");
    }
    assert!(engine.search(&query("  ", 2)).unwrap().is_empty());
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[test]
fn serper() {
    let (url, log) = server(|_, body| (200, json!({"organic": [{"title": "T", "snippet": body["q"], "link": "L"}]})));
    let engine = WebSearch::serper("secret").with_url(format!("{url}/search")).with_retry(impatient());
    let found = contents(engine.search_batch(&[query("a", 5), query("b", 5)]));
    assert_eq!(found, [["a"], ["b"]]);
    let mut asked: Vec<String> = log.lock().unwrap().iter().map(|(path, body)| format!("{path} {body}")).collect();
    asked.sort();
    assert_eq!(asked, [r#"/search {"q":"a","num":5}"#, r#"/search {"q":"b","num":5}"#]);
}

#[test]
fn google_cse() {
    let (url, log) = server(|number, _| match number {
        0 => (
            200,
            json!({"kind": "customsearch#search", "queries": {"request": [{"count": 2}]}, "items": [
                {"kind": "customsearch#result", "title": "T", "htmlTitle": "<b>T</b>", "link": "L", "displayLink": "l", "snippet": "S"},
                {"title": "U"}
            ]}),
        ),
        1 => (200, json!({"kind": "customsearch#search", "queries": {}, "searchInformation": {"totalResults": "0"}})),
        2 => {
            (400, json!({"error": {"code": 400, "message": "API key not valid: secret", "status": "INVALID_ARGUMENT"}}))
        }
        _ => (403, json!({"error": {"code": 403, "message": "Daily limit of secret exceeded"}})),
    });
    let engine = WebSearch::google_cse("secret\n", "cx:1").with_url(&url).with_retry(impatient());
    let found = engine.search(&query("a b", 20)).unwrap();
    let expected = Document { id: Some("L".into()), title: Some("T".into()), contents: "S".into(), score: None };
    assert_eq!(found, [expected, Document { title: Some("U".into()), ..Default::default() }]);
    assert_eq!(log.lock().unwrap()[0].0, "/?q=a%20b&num=10&cx=cx%3A1&key=secret");
    assert!(engine.search(&query("b", 2)).unwrap().is_empty());
    for expected in ["API key not valid", "Daily limit"] {
        let error = engine.search(&query("c", 2)).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("GOOGLE_API_KEY") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_missing_key_names_the_variable() {
    let error = zerosearch_search::key_from_env("ZEROSEARCH_TEST_NO_SUCH_KEY").unwrap_err().to_string();
    assert!(error.contains("ZEROSEARCH_TEST_NO_SUCH_KEY"), "{error}");
}

#[test]
fn a_cache_spares_the_server() {
    let (url, log) = server(|_, body| (200, search_r1_answer(body)));
    let engine = Cached::new(RetrieverServer::search_r1(&url).with_retry(impatient()));
    let once = contents(engine.search_batch(&[query("a", 1), query("b", 1), query("a", 1)]));
    assert_eq!(contents(engine.search_batch(&[query("a", 1), query("b", 1), query("a", 1)])), once);
    assert_eq!(log.lock().unwrap().len(), 1);
}
