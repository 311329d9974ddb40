//! Searches per second of 1, 2 and 4 retrieval servers, each with a delay of 200 ms and one request at a time; and what becomes of
//! the searches when one of two is killed under way and started again. Prints JSON.
//!
//!     cargo run -p zerosearch-search --example fleet

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zerosearch_search::{Dialect, Query, RetrieverServer, RetryPolicy, SearchEngine};

const DELAY: Duration = Duration::from_millis(200);
const SEARCHES: usize = 80;

fn main() -> std::io::Result<()> {
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
        drop(Server(child));
    }
    Ok(())
}

/// A process that ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start(count: usize) -> std::io::Result<Vec<(Server, u16)>> {
    (0..count)
        .map(|_| {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            Ok((Server(spawn(port)?), port))
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
    RetrieverServer::at(&urls, Dialect::ZeroSearch).with_concurrency(16).with_retry(RetryPolicy::default())
}

fn ask(servers: &[(Server, u16)], texts: &[String]) -> (Vec<Option<String>>, Duration) {
    let engine = engine(servers.iter().map(|(_, port)| *port));
    let begun = Instant::now();
    (answer(&engine, texts), begun.elapsed())
}

fn answer(engine: &RetrieverServer, texts: &[String]) -> Vec<Option<String>> {
    let queries: Vec<Query<'_>> = texts.iter().map(|text| Query { text, top_k: 3, context: None }).collect();
    let answers = engine.search_batch(&queries);
    answers.into_iter().map(|answer| answer.ok().map(|documents| format!("{documents:?}"))).collect()
}

/// Answers every query with itself, one at a time, after the delay.
fn serve(port: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    let turn = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            let turn = &turn;
            scope.spawn(move || converse(stream, turn));
        }
    });
    Ok(())
}

fn converse(stream: TcpStream, turn: &std::sync::Mutex<()>) -> std::io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let answer = if head.starts_with("GET") {
            "{}".to_string()
        } else {
            let asked: serde_json::Value = serde_json::from_slice(&body)?;
            let one_at_a_time = turn.lock();
            std::thread::sleep(DELAY);
            drop(one_at_a_time);
            serde_json::json!([{"contents": asked["query"]}]).to_string()
        };
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    }
}
