//! Ten thousand searches of five thousand rollouts through a retrieval server that fails a fifth of the requests and is restarted
//! twice: no rollout and no search is lost, and memory stays flat. `cargo bench --bench soak`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use zerosearch::generate::{
    Finish, Finished, GenerateError, Generator, Ledger, Request, Role, SampledToken, SequenceId, TokenId, Turn,
    WeightVersion,
};
use zerosearch::rollout::{Noise, RolloutConfig, RolloutEnd, RolloutPlan, Task};
use zerosearch::search::{Metered, RetrieverServer, RetryPolicy};
use zerosearch::text::{Codec, SpecialTokens, train_bpe};

const SEARCHES: usize = 10_000;
const PER_ROLLOUT: usize = 2;
const CHUNK: usize = 250;
/// Rollouts that search at once, with one request for all of them.
const TOGETHER: usize = 5;
/// Requests after which the server is stopped, to come back a second later.
const RESTARTS: [u64; 2] = [800, 1_600];
/// The size to which memory may grow between the first thousand searches and the last, in parts of the first.
const GROWTH: f64 = 1.1;

/// A retrieval server in Search-R1's form on a port that it keeps.
struct Server {
    port: u16,
    requests: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    running: Option<(Arc<tiny_http::Server>, JoinHandle<()>)>,
}

impl Server {
    fn start(port: u16, requests: Arc<AtomicU64>, failed: Arc<AtomicU64>) -> Self {
        let server = (0..100).find_map(|_| {
            let server = tiny_http::Server::http(("127.0.0.1", port)).ok();
            if server.is_none() {
                thread::sleep(Duration::from_millis(50));
            }
            server
        });
        let server = Arc::new(server.expect("the port"));
        let port = server.server_addr().to_ip().expect("an address").port();
        let (listener, asked, refused) = (server.clone(), requests.clone(), failed.clone());
        let thread = thread::spawn(move || {
            for mut request in listener.incoming_requests() {
                if asked.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
                    refused.fetch_add(1, Ordering::Relaxed);
                    let _ = request.respond(tiny_http::Response::empty(500));
                    continue;
                }
                let mut body = String::new();
                let _ = request.as_reader().read_to_string(&mut body);
                let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                let found = |query: &serde_json::Value| {
                    let contents = format!("Passage of {}", query.as_str().unwrap_or_default());
                    serde_json::json!([{"document": {"id": "1", "contents": contents}, "score": 1.0}])
                };
                let found: Vec<_> = body["queries"].as_array().into_iter().flatten().map(found).collect();
                let answer = serde_json::json!({ "result": found }).to_string();
                let _ = request.respond(tiny_http::Response::from_string(answer));
            }
        });
        Self { port, requests, failed, running: Some((server, thread)) }
    }

    fn stop(&mut self) {
        if let Some((server, thread)) = self.running.take() {
            server.unblock();
            let _ = thread.join();
        }
    }
}

/// Searches twice in each rollout, and answers.
struct Searching {
    codec: Codec,
    started: u64,
    live: BTreeMap<SequenceId, (usize, Option<Turn>)>,
}

impl Generator for Searching {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        let id = SequenceId(self.started);
        self.started += 1;
        self.live.insert(id, (0, Some(request.turn)));
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.live.get_mut(&id).ok_or(GenerateError::NotWaiting(id.0))?.1 = Some(turn);
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let mut finished = Vec::new();
        for (id, (turns, waiting)) in &mut self.live {
            let Some(mut turn) = waiting.take() else { continue };
            let text = match *turns {
                PER_ROLLOUT.. => "<answer>lima</answer>".to_owned(),
                turn => format!("<search>city {} {turn}</search>", id.0),
            };
            *turns += 1;
            let (mut tokens, mut finish) = (Vec::new(), Finish::EndOfText);
            for token in self.codec.encode(&text) {
                tokens.push(SampledToken::new(token, 0.0));
                if (turn.stop)(token) {
                    finish = Finish::Stop;
                    break;
                }
            }
            finished.push(Finished { id: *id, tokens, finish });
        }
        Ok(finished)
    }

    fn release(&mut self, id: SequenceId) {
        self.live.remove(&id);
    }

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(0)
    }
}

/// Resident memory in MB, where the system tells it.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1e3)
}

fn main() {
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    let texts = ["which city is the capital of Peru".to_owned()].into_iter();
    let codec = train_bpe(texts, 320, &["</search>", "</answer>"], &special).expect("a tokenizer");
    let mut server = Server::start(0, Arc::default(), Arc::default());
    let (requests, failed, port) = (server.requests.clone(), server.failed.clone(), server.port);
    let is_over = Arc::new(AtomicBool::new(false));

    let over = is_over.clone();
    let keeper = thread::spawn(move || {
        let mut restarts = RESTARTS.into_iter().peekable();
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            if restarts.next_if(|at| server.requests.load(Ordering::Relaxed) >= *at).is_some() {
                server.stop();
                thread::sleep(Duration::from_secs(1));
                server = Server::start(server.port, server.requests.clone(), server.failed.clone());
                println!("the server was away for a second after {} requests", server.requests.load(Ordering::Relaxed));
            }
        }
        server.stop();
        assert!(restarts.peek().is_none(), "the server was not restarted");
    });

    let ledger = Ledger::new();
    let pause = Duration::from_millis(20);
    let retry =
        RetryPolicy { attempts: 14, first_pause: pause, longest_pause: 20 * pause, timeout: Duration::from_secs(5) };
    let engine = RetrieverServer::search_r1(format!("http://127.0.0.1:{port}")).with_retry(retry);
    let engine = Metered::new(engine, ledger.account(Role::Engine));
    let config = RolloutConfig { max_turns: PER_ROLLOUT + 1, max_new_tokens: 64, top_k: 1, ..RolloutConfig::default() };
    let mut generator = Searching { codec: codec.clone(), started: 0, live: BTreeMap::new() };
    let (mut rollouts, mut searches, mut failures, mut first) = (0, 0, 0, None);
    let began = Instant::now();
    for chunk in 0..SEARCHES / PER_ROLLOUT / CHUNK {
        for part in 0..CHUNK / TOGETHER {
            let index = |n: usize| (chunk * CHUNK + part * TOGETHER + n) as u64;
            let prompt = codec.encode("which city?");
            let tasks =
                (0..TOGETHER).map(|n| Task::new(index(n), "which city?", &["lima".into()], prompt.clone())).collect();
            let plan = RolloutPlan::search(&engine, Noise::Off, &codec, config);
            let done = plan.run(&mut generator, tasks, &mut |_| {}).expect("rollouts");
            rollouts += done.len();
            for rollout in &done {
                assert_eq!((&rollout.end, rollout.searches()), (&RolloutEnd::Answered, PER_ROLLOUT));
                searches += rollout.searches();
                failures += rollout.search_failures();
                let right = |documents: &[String]| documents.iter().all(|text| text.starts_with("Passage of city "));
                assert!(rollout.calls().all(|call| call.failure.is_some() || right(&call.documents)));
            }
        }
        if let (Some(resident), true) = (resident(), searches == 1_000 || searches == SEARCHES) {
            println!("{searches:>6} searches: {resident:.1} MB resident");
            let first = *first.get_or_insert(resident);
            assert!(resident <= GROWTH * first, "memory grew from {first:.1} to {resident:.1} MB");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    keeper.join().expect("the server");
    let used = ledger.usage(Role::Engine);
    println!(
        "{rollouts} rollouts, {searches} searches in {seconds:.1} s ({:.0}/s); {} requests, {} of them failed by the server; \
         {failures} searches failed in the end",
        searches as f64 / seconds,
        requests.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed)
    );
    assert_eq!((rollouts, searches), (SEARCHES / PER_ROLLOUT, SEARCHES));
    assert_eq!((used.calls, used.failures), (SEARCHES as u64, failures as u64));
    assert_eq!(failures, 0, "a search was not tried again long enough");
}
