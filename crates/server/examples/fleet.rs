//! Searches per second of 1, 2 and 4 servers, each with a delay of 200 ms and one search at a time; and the fate of the searches when
//! one of two is killed under way and started again. Prints JSON.
//!
//!     cargo run --example fleet

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerosearch_search::{Bm25Index, Dialect, Document, Query, RetrieverServer, RetryPolicy, SearchEngine};
use zerosearch_server::{Server, ServerConfig, Service};

const DELAY: Duration = Duration::from_millis(200);
const SEARCHES: usize = 80;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(port) = std::env::args().nth(1) {
        return serve(&port);
    }
    let texts: Vec<String> = (0..SEARCHES).map(|number| format!("query {number}")).collect();
    let mut alone = None;
    for count in [1, 2, 4] {
        let servers = start(count)?;
        let rate = SEARCHES as f64 / ask(&servers, &texts).1.as_secs_f64();
        let times = rate / *alone.get_or_insert(rate);
        println!("{{\"servers\": {count}, \"searches_per_s\": {rate:.2}, \"times_one\": {times:.2}}}");
    }

    let mut servers = start(2)?;
    let expected = ask(&servers, &texts).0;
    let (killed, port) = servers.remove(0);
    let engine = engine([port, servers[0].1]);
    let (answers, restarted) = std::thread::scope(|scope| {
        let killer = scope.spawn(move || -> std::io::Result<Child> {
            let mut killed = killed;
            std::thread::sleep(DELAY * 10);
            killed.0.kill()?;
            killed.0.wait()?;
            std::thread::sleep(DELAY * 5);
            spawn(port)
        });
        (answer(&engine, &texts), killer.join())
    });
    let counts = engine.endpoints();
    let is_equal = answers == expected;
    let lost = answers.iter().filter(|answer| answer.is_none()).count();
    println!(
        "{{\"killed_and_restarted\": true, \"bit_equal\": {is_equal}, \"lost\": {lost}, \"requests\": [{}, {}], \"failures\": [{}, {}]}}",
        counts[0].requests, counts[1].requests, counts[0].failures, counts[1].failures
    );
    if let Ok(Ok(child)) = restarted {
        drop(Running(child));
    }
    Ok(())
}

/// A server's process, which ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start(count: usize) -> std::io::Result<Vec<(Running, u16)>> {
    (0..count)
        .map(|_| {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            Ok((Running(spawn(port)?), port))
        })
        .collect()
}

fn spawn(port: u16) -> std::io::Result<Child> {
    let child = Command::new(std::env::current_exe()?).arg(port.to_string()).stdin(Stdio::null()).spawn()?;
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

fn engine(ports: impl IntoIterator<Item = u16>) -> RetrieverServer {
    let urls: Vec<String> = ports.into_iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    RetrieverServer::at(&urls, Dialect::SearchR1).with_concurrency(16).with_retry(RetryPolicy::default())
}

fn ask(servers: &[(Running, u16)], texts: &[String]) -> (Vec<Option<String>>, Duration) {
    let engine = engine(servers.iter().map(|(_, port)| *port));
    let begun = Instant::now();
    (answer(&engine, texts), begun.elapsed())
}

fn answer(engine: &RetrieverServer, texts: &[String]) -> Vec<Option<String>> {
    let queries: Vec<Query<'_>> = texts.iter().map(|text| Query { text, top_k: 3, context: None }).collect();
    let answers = engine.search_batch(&queries);
    answers.into_iter().map(|answer| answer.ok().map(|documents| format!("{documents:?}"))).collect()
}

/// The server that `examples/serve.rs` runs, in a process of its own.
fn serve(port: &str) -> Result<(), Box<dyn std::error::Error>> {
    let places = ["Chad", "Niger", "Mali", "Peru", "Chile"];
    let document =
        |place| Document { contents: format!("{place} borders query {}", str::len(place)), ..Document::default() };
    let index = Bm25Index::new(places.map(document))?;
    let delay_ms = u64::try_from(DELAY.as_millis())?;
    let config = ServerConfig { port: port.parse()?, delay_ms, concurrency: 1, ..ServerConfig::default() };
    Ok(Server::bind(config)?.run(Service::new(Arc::new(index)))?)
}
