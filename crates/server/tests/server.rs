//! A server asked as its clients ask: Search-R1's, ZeroSearch's, OpenAI's, and our own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerosearch_curriculum::Linear;
use zerosearch_generate::{Completer, Completion, CompletionRequest, GenerateError, Sampling};
use zerosearch_remote::OpenAiServer;
use zerosearch_search::{Document, Query, RetrieverServer, SearchEngine, SearchError};
use zerosearch_server::{Server, ServerConfig, ServerError, Service, StopHandle};

/// Says what it was told, fails on queries that begin with "fail", and holds "wait" up until it is let go.
#[derive(Default)]
struct Echo {
    released: Mutex<bool>,
    changed: Condvar,
    batches: Mutex<Vec<usize>>,
    waiting: AtomicUsize,
}

impl Echo {
    fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Until so many batches are held up.
    fn holds(&self, count: usize) {
        let began = Instant::now();
        while self.waiting.load(Ordering::SeqCst) < count {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing came");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl SearchEngine for Echo {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.search_batch(&[*query]).pop().unwrap()
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        self.batches.lock().unwrap().push(queries.len());
        if queries.iter().any(|query| query.text == "wait") {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            drop(self.changed.wait_while(self.released.lock().unwrap(), |released| !*released).unwrap());
        }
        assert!(queries.iter().all(|query| query.text != "panic"), "as it was asked to");
        let answer = |query: &Query<'_>| {
            if query.text.starts_with("fail") {
                return Err(SearchError::Simulator(format!("{} failed", query.text)));
            }
            let context = query.context.unwrap();
            let told =
                format!("{} {} {:?} {}", query.text, context.question, context.answers, context.quality.keyword());
            let document = |n| Document { contents: format!("{told} {} {n}", context.seed), ..Default::default() };
            Ok((0..query.top_k).map(document).collect())
        };
        queries.iter().map(answer).collect()
    }
}

/// Repeats the prompt, one token a word.
struct Parrot;

impl Completer for Parrot {
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        if requests.iter().any(|request| request.prompt.contains("long")) {
            return Err(GenerateError::PromptTooLong { length: 9, context: 8 });
        }
        let words = |request: &CompletionRequest| {
            let words: Vec<&str> = request.prompt.split(' ').take(request.max_new_tokens).collect();
            Completion { text: words.join(" "), tokens: words.len() }
        };
        Ok(requests.iter().map(words).collect())
    }
}

struct Running {
    url: String,
    stop: StopHandle,
    thread: JoinHandle<Result<(), ServerError>>,
    engine: Arc<Echo>,
}

fn config() -> ServerConfig {
    ServerConfig { port: 0, ..ServerConfig::default() }
}

fn start(config: ServerConfig, prepare: impl FnOnce(Service) -> Service) -> Running {
    let server = Server::bind(config).unwrap();
    let (url, stop) = (format!("http://{}", server.address()), server.handle());
    let engine = Arc::new(Echo::default());
    let service = prepare(Service::new(engine.clone()));
    Running { url, stop, thread: thread::spawn(move || server.run(service)), engine }
}

impl Running {
    fn end(self) {
        self.stop.stop();
        self.thread.join().unwrap().unwrap();
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        post(&self.url, path, &body.to_string())
    }

    fn get(&self, path: &str) -> String {
        ureq::get(format!("{}{path}", self.url)).call().unwrap().body_mut().read_to_string().unwrap()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn post(url: &str, path: &str, body: &str) -> (u16, Value) {
    let mut response =
        agent().post(format!("{url}{path}")).header("Content-Type", "application/json").send(body).unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap())
}

/// The client of Search-R1 (`search_r1/llm_agent/generation.py`), verl and SkyRL: `result`, one list for each query, whatever the
/// status; from each document the first line is the title, the others are the text.
fn search_r1_client(url: &str, queries: &[&str], topk: usize) -> Vec<String> {
    let body = json!({"queries": queries, "topk": topk, "return_scores": true});
    let (_, answer) = post(url, "/retrieve", &body.to_string());
    let shown = |result: &Value| {
        let documents = result.as_array().unwrap().iter().enumerate();
        documents
            .map(|(index, item)| {
                assert!(item["score"].is_number() && item["document"]["id"].is_string(), "{item}");
                let contents = item["document"]["contents"].as_str().unwrap();
                let (title, text) = contents.split_once('\n').unwrap();
                format!("Doc {}(Title: {title}) {text}\n", index + 1)
            })
            .collect::<String>()
    };
    answer["result"].as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn search_r1_s_client_gets_titles_and_texts() {
    let server = start(config(), |service| service);
    let shown = search_r1_client(&server.url, &["a", "fail b", "c"], 2);
    assert_eq!(shown.len(), 3);
    let lines: Vec<&str> = shown[0].lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("Doc 1(Title: \"No title.\") a a [] useful "), "{shown:?}");
    assert!(shown[1].is_empty() && shown[2].contains("c c []"), "{shown:?}");
    // A form without scores, as slime asks: documents as they are.
    let (status, answer) = server.post("/retrieve", &json!({"queries": ["a"], "topk": 1, "return_scores": false}));
    assert_eq!(status, 200);
    assert!(answer["result"][0][0]["contents"].as_str().unwrap().starts_with("\"No title.\"\na "), "{answer}");
    server.end();
}

#[test]
fn an_engine_that_fails_is_noticed_and_survived() {
    let server = start(config(), |service| service);
    let (status, answer) = server.post("/retrieve", &json!({"queries": ["a", "fail b"], "topk": 1}));
    assert_eq!((status, &answer["errors"][0], &answer["result"][1]), (200, &Value::Null, &json!([])));
    assert!(answer["errors"][1].as_str().unwrap().contains("fail b failed"), "{answer}");
    // Nothing but failures: a status at which verl's client tries again, and lists over which Search-R1's can go.
    let (status, answer) = server.post("/retrieve", &json!({"queries": ["fail x", "fail y"]}));
    assert_eq!((status, &answer["result"]), (502, &json!([[], []])));
    assert!(answer["detail"].as_str().unwrap().contains("fail x failed"), "{answer}");
    let (status, answer) = server.post("/retrieve", &json!({"query": "fail x"}));
    assert_eq!((status, &answer["results"]), (502, &json!([])));
    // A panic of the engine ends neither the server nor its worker.
    assert_eq!(server.post("/retrieve", &json!({"queries": ["panic"]})).0, 502);
    assert_eq!(server.post("/retrieve", &json!({"queries": ["a"]})).0, 200);
    let metrics = server.get("/metrics");
    for line in ["zerosearch_search_failures_total 5", "zerosearch_documents_total 4", "zerosearch_queue_length 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    assert!(metrics.contains("zerosearch_requests_total{route=\"/retrieve\",status=\"502\"} 3"), "{metrics}");
    server.end();
}

/// Documents of every make: with and without identifier, title and score, and with a title line of their own.
struct Shelf;

impl SearchEngine for Shelf {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let document = |id: Option<&str>, title: Option<&str>, contents: &str, score| Document {
            id: id.map(Into::into),
            title: title.map(Into::into),
            contents: contents.into(),
            score,
        };
        let all = [
            document(Some("7"), Some("Chad"), "In Africa.", Some(2.5)),
            document(None, None, &format!("{}\nin two lines", query.text), None),
            document(Some("9"), None, "\"Mali\"\nAlso there.", Some(-1.0)),
            document(None, Some("Two\nlines"), "", None),
        ];
        Ok(all.into_iter().take(query.top_k).collect())
    }
}

#[test]
fn our_own_clients_get_the_same_documents_as_without_a_server() {
    let server = Server::bind(config()).unwrap();
    let (url, stop) = (format!("http://{}", server.address()), server.handle());
    let running = thread::spawn(move || server.run(Service::new(Arc::new(Shelf))));
    let queries = ["a", "b", "c"].map(|text| Query { text, top_k: if text == "b" { 2 } else { 9 }, context: None });
    let found = |engine: &dyn SearchEngine| -> Vec<Vec<Document>> {
        engine.search_batch(&queries).into_iter().map(Result::unwrap).collect()
    };
    assert_eq!(found(&RetrieverServer::search_r1(&url)), found(&Shelf));
    assert_eq!(found(&RetrieverServer::zerosearch(&url)), found(&Shelf));
    stop.stop();
    running.join().unwrap().unwrap();
    // A failure is one for our client, not an empty list.
    let server = start(config(), |service| service);
    let client = RetrieverServer::search_r1(&server.url);
    let query = |text| Query { text, top_k: 1, context: None };
    let results = client.search_batch(&[query("a"), query("fail b")]);
    assert!(results[0].is_ok());
    assert!(results[1].as_ref().unwrap_err().to_string().contains("fail b failed"));
    server.end();
}

fn contents(answer: &Value) -> Vec<String> {
    let first = |list: &Value| list[0]["contents"].as_str().unwrap().to_string();
    answer["result"].as_array().unwrap().iter().map(first).collect()
}

#[test]
fn what_a_request_brings_decides_its_answer() {
    let server = start(config(), |service| service);
    let body = json!({"queries": ["a", "b"], "topk": 1, "questions": ["p?", "q?"], "golden_answers": [["x"], ["y", "z"]],
        "noise_probability": [1, 0], "seed": [7, 8]});
    let (_, first) = server.post("/retrieve", &body);
    let expected = ["a p? [\"x\"] noisy 7 0", "b q? [\"y\", \"z\"] useful 8 0"];
    assert_eq!(contents(&first), expected.map(|text| format!("\"No title.\"\n{text}")));
    server.post("/retrieve", &json!({"queries": ["another"]}));
    assert_eq!(server.post("/retrieve", &body).1, first, "a seed makes the answer a function of the request");
    // One seed for many queries: each draws its own quality.
    let texts: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let body = json!({"queries": texts, "topk": 1, "noise_probability": 0.5, "seed": 7});
    let noisy = contents(&server.post("/retrieve", &body).1).iter().filter(|text| text.contains("noisy")).count();
    assert!((70..130).contains(&noisy), "{noisy}");
    server.end();
}

#[test]
fn a_curriculum_runs_by_the_number_of_searches_and_repeats_with_the_server_s_seed() {
    let run = |seed| {
        let noise = || Box::new(Linear::new(0.0, 1.0).unwrap());
        let server = start(ServerConfig { seed, ..config() }, |service| service.with_noise(noise(), 300));
        let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let body = json!({"queries": texts, "topk": 1});
        let answers: Vec<_> = (0..4).map(|_| contents(&server.post("/retrieve", &body).1)).collect();
        let metrics = server.get("/metrics");
        assert!(metrics.contains("zerosearch_noise_probability 1\n"), "{metrics}");
        server.end();
        answers
    };
    let answers = run(0);
    let noisy: Vec<usize> =
        answers.iter().map(|texts| texts.iter().filter(|text| text.contains("noisy")).count()).collect();
    assert!(noisy[0] < 30 && (35..65).contains(&noisy[1]) && noisy[2] > 70 && noisy[3] == 100, "{noisy:?}");
    assert_eq!(run(0), answers);
    assert_ne!(run(1), answers);
}

#[test]
fn an_openai_client_gets_completions() {
    let server = start(config(), |service| service.with_model("simulator", Arc::new(Parrot)));
    let request = |prompt: &str| CompletionRequest {
        prompt: prompt.into(),
        sampling: Sampling::temperature(0.8),
        max_new_tokens: 3,
        seed: 5,
        stop: vec!["END".into()],
    };
    for client in [OpenAiServer::chat(&server.url, "any"), OpenAiServer::completions(&server.url, "any")] {
        let found = client.complete(&[request("one two"), request("a b c d")]).unwrap();
        assert_eq!(found[0], Completion { text: "one two".into(), tokens: 2 });
        assert_eq!(found[1], Completion { text: "a b c".into(), tokens: 3 });
    }
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 2});
    let (status, answer) = server.post("/v1/chat/completions", &chat);
    assert_eq!((status, &answer["object"], &answer["model"]), (200, &json!("chat.completion"), &json!("simulator")));
    let message = json!({"role": "assistant", "content": "a b"});
    assert_eq!(
        (&answer["choices"][0]["message"], &answer["choices"][0]["finish_reason"]),
        (&message, &json!("length"))
    );
    let (_, answer) = server.post("/v1/completions", &json!({"prompt": ["a", "b"]}));
    assert_eq!((&answer["choices"][1]["text"], &answer["usage"]["completion_tokens"]), (&json!("b"), &json!(2)));
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "long"})).0, 502);
    let (status, answer) = server.post("/v1/chat/completions", &json!({"messages": [], "stream": true}));
    assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("stream"), "{answer}");
    let models: Value = serde_json::from_str(&server.get("/v1/models")).unwrap();
    assert_eq!(models["data"][0]["id"], "simulator");
    server.end();

    let server = start(config(), |service| service);
    let (status, answer) = server.post("/v1/chat/completions", &chat);
    assert!(status == 404 && answer["error"]["message"].as_str().unwrap().contains("no language model"), "{answer}");
    server.end();
}

#[test]
fn wrong_requests_are_told_what_was_expected() {
    let server = start(ServerConfig { max_body_bytes: 2000, ..config() }, |service| service);
    for (path, body, expected_status, expected) in [
        ("/retrieve", "{\"queries\": [", 422, "no JSON"),
        ("/retrieve", "{\"question\": \"a\"}", 422, "neither `queries` nor `query`"),
        ("/retrieve", "{\"queries\": [1]}", 422, "a list of strings"),
        ("/search", "{}", 404, "there are /retrieve"),
        ("/health", "{}", 405, "does not take POST"),
        ("/retrieve", &format!("{{\"query\": \"{}\"}}", "x".repeat(2000)), 413, "more than 2000 bytes"),
    ] {
        let (status, answer) = post(&server.url, path, body);
        assert_eq!(status, expected_status, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(expected), "{answer}");
    }
    assert_eq!(server.get("/health"), "{\"status\":\"ok\"}");
    let metrics = server.get("/metrics");
    assert!(metrics.contains("requests_total{route=\"other\",status=\"404\"} 1"), "{metrics}");
    server.end();
}

#[test]
fn requests_that_wait_are_bounded_and_answered_in_one_batch() {
    let server = start(ServerConfig { queue: 4, ..config() }, |service| service);
    let (url, engine) = (server.url.clone(), server.engine.clone());
    let ask = |query: &'static str| {
        let url = url.clone();
        thread::spawn(move || post(&url, "/retrieve", &json!({"queries": [query], "topk": 1}).to_string()))
    };
    let first = ask("wait");
    engine.holds(1);
    let others = ["a", "b", "c"].map(ask);
    let began = Instant::now();
    while !server.get("/metrics").contains("queue_length 3\n") {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    // The queue has room for one more, not for two.
    let body = json!({"queries": ["d", "e"]}).to_string();
    let mut refused = agent().post(format!("{url}/retrieve")).send(&body).unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["Retry-After"].to_str().unwrap()), (503, "1"));
    let answer: Value = serde_json::from_str(&refused.body_mut().read_to_string().unwrap()).unwrap();
    assert!(answer["detail"].as_str().unwrap().contains("busy") && answer["result"] == json!([[], []]), "{answer}");
    engine.release();
    assert!([first].into_iter().chain(others).all(|thread| thread.join().unwrap().0 == 200));
    assert_eq!(*engine.batches.lock().unwrap(), [1, 3]);
    server.end();
}

#[test]
fn a_request_that_takes_too_long_is_given_up() {
    let server = start(ServerConfig { timeout_s: 1, ..config() }, |service| service);
    let (status, answer) = server.post("/retrieve", &json!({"queries": ["wait"]}));
    assert_eq!((status, &answer["result"]), (504, &json!([[]])));
    assert!(answer["detail"].as_str().unwrap().contains("within 1 s"), "{answer}");
    server.engine.release();
    server.end();
}

#[test]
fn a_server_that_is_stopped_finishes_what_is_under_way() {
    let server = start(config(), |service| service);
    let url = server.url.clone();
    let asked = url.clone();
    let under_way = thread::spawn(move || post(&asked, "/retrieve", &json!({"queries": ["wait"]}).to_string()));
    server.engine.holds(1);
    server.stop.stop();
    // `/health` needs no engine: a late search that is still let in would wait for the one that is held up, and hold the test up.
    let began = Instant::now();
    while agent().get(format!("{url}/health")).call().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "it still takes requests");
    }
    server.engine.release();
    assert_eq!(under_way.join().unwrap().0, 200);
    server.thread.join().unwrap().unwrap();
}

#[test]
fn an_engine_that_hangs_does_not_hold_the_server_up() {
    let server = start(ServerConfig { drain_s: 0, ..config() }, |service| service);
    let asked = server.url.clone();
    let lost =
        thread::spawn(move || agent().post(format!("{asked}/retrieve")).send("{\"queries\": [\"wait\"]}").is_err());
    server.engine.holds(1);
    server.stop.stop();
    server.thread.join().unwrap().unwrap();
    assert!(lost.join().unwrap());
    server.engine.release();
}

#[test]
fn an_address_that_is_taken_is_named() {
    let first = Server::bind(config()).unwrap();
    let port = first.address().port();
    let message = Server::bind(ServerConfig { port, ..config() }).err().unwrap().to_string();
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("another server"), "{message}");
    let none = ServerConfig { concurrency: 0, ..config() };
    assert!(Server::bind(none).err().unwrap().to_string().contains("concurrency: expected at least 1"));
}
