//! Throughput of rollouts: questions × samples through `rollout`, with several policies and engines.
//!
//!     cargo bench --bench rollout
//!     cargo bench --bench rollout -- --questions 16 --samples 5 --delay-ms 200 --concurrency 4 --json rollout.json
//!     cargo bench --bench rollout -- --policy remote --engine served --repeat 3
//!
//! Policies: `local`, a model of this process, and `remote`, a stub of an SGLang server that writes a search in every turn but the
//! last. Engines: `instant` answers in no time, `slow` sleeps in this process, `served` is a server on 127.0.0.1 that
//! takes `--delay-ms` for a query and answers `--concurrency` at a time, `simulator` is a model of this process. The first
//! three find the same documents, so their rollouts must be the same to the bit, which is checked.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use zerosearch::generate::Generator;
use zerosearch::lm::{LanguageModel, LocalCompleter, LocalGenerator};
use zerosearch::pipeline::world_material;
use zerosearch::remote::SglangGenerator;
use zerosearch::rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, RolloutTimes, Task};
use zerosearch::search::{Document, Query, RetrieverServer, SearchEngine, SearchError};
use zerosearch::simulator::{SimulatedEngine, SimulationConfig, SimulatorPrompt};
use zerosearch::text::{Codec, PromptTemplate};
use zerosearch::{curriculum, search};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Arguments {
    /// Policies to measure; all of them by default.
    #[arg(long)]
    policy: Vec<Policy>,
    /// Engines to measure; all of them by default.
    #[arg(long)]
    engine: Vec<Engine>,
    /// Questions of a run.
    #[arg(long, default_value_t = 16)]
    questions: usize,
    /// Rollouts of each question.
    #[arg(long, default_value_t = 5)]
    samples: u64,
    /// Policy turns of a rollout, at most; the remote policy takes them all.
    #[arg(long, default_value_t = 4)]
    turns: usize,
    /// New tokens of a turn, at most.
    #[arg(long, default_value_t = 64)]
    new_tokens: usize,
    /// Milliseconds that a slow or served engine takes for a query.
    #[arg(long, default_value_t = 200)]
    delay_ms: u64,
    /// Queries that a slow or served engine answers at a time.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Milliseconds that the remote policy takes for a token.
    #[arg(long, default_value_t = 2.0)]
    token_ms: f64,
    /// `rollout.search_batch`.
    #[arg(long, default_value_t = 0)]
    search_batch: usize,
    /// `rollout.search_concurrency`.
    #[arg(long, default_value_t = 0)]
    search_concurrency: usize,
    /// Runs of each combination; the quickest counts, the slowest is shown as well.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// The local policy: any model folder.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base"))]
    model: PathBuf,
    /// The simulator's model; that of the policy by default.
    #[arg(long)]
    simulator: Option<PathBuf>,
    /// Writes every run's figures there.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    Local,
    Remote,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Instant,
    Slow,
    Served,
    Simulator,
}

/// Times and counts of a run.
struct Run {
    times: RolloutTimes,
    rollouts: usize,
    tokens: usize,
    searches: usize,
    turns: usize,
    failures: usize,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let model = LanguageModel::read(&arguments.model)?;
    let policies = chosen(&arguments.policy, &[Policy::Local, Policy::Remote]);
    let engines = chosen(&arguments.engine, &[Engine::Instant, Engine::Slow, Engine::Served, Engine::Simulator]);
    println!(
        "{} questions x {} samples, at most {} turns of {} tokens; engines: {} ms, {} at a time",
        arguments.questions,
        arguments.samples,
        arguments.turns,
        arguments.new_tokens,
        arguments.delay_ms,
        arguments.concurrency
    );
    println!(
        "{:16} {:>8} {:>8} {:>10} {:>9} {:>10} {:>6} {:>9} {:>9}",
        "policy, engine", "s", "slowest", "rollouts/s", "tokens/s", "searches/s", "idle", "x instant", "x search"
    );
    let mut rows: Vec<Value> = Vec::new();
    for policy in policies {
        let tasks = tasks(&arguments, policy, &model)?;
        // Seconds without searching, and the rollouts that came of it.
        let mut instant: Option<(f64, f64, Vec<Rollout>)> = None;
        for engine in &engines {
            let mut runs = Vec::new();
            for _ in 0..arguments.repeat.max(1) {
                let (rollouts, run) = play(&arguments, policy, *engine, &model, tasks.clone())?;
                match &instant {
                    Some((.., expected)) if *engine != Engine::Simulator && *expected != rollouts => {
                        return Err("an engine that takes longer changed a rollout".into());
                    }
                    None if *engine == Engine::Instant => {
                        instant = Some((run.times.total_s, run.times.decoding_s / arguments.turns as f64, rollouts));
                    }
                    _ => {}
                }
                runs.push(run);
            }
            if let (Engine::Instant, Some(best)) = (engine, runs.iter().map(|run| run.times.total_s).reduce(f64::min))
                && let Some((seconds, ..)) = &mut instant
            {
                *seconds = best;
            }
            rows.push(show(&arguments, policy, *engine, &runs, instant.as_ref().map(|(all, turn, _)| (*all, *turn))));
        }
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

fn chosen<T: Copy + PartialEq>(wanted: &[T], all: &[T]) -> Vec<T> {
    all.iter().copied().filter(|one| wanted.is_empty() || wanted.contains(one)).collect()
}

/// Prints the quickest run, and returns it. `instant` has the seconds of a run whose engine takes no time, and of one of its turns.
fn show(arguments: &Arguments, policy: Policy, engine: Engine, runs: &[Run], instant: Option<(f64, f64)>) -> Value {
    let seconds = |run: &&Run| run.times.total_s;
    let Some(best) = runs.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))) else { return Value::Null };
    let slowest = runs.iter().map(|run| run.times.total_s).fold(0.0, f64::max);
    let total = best.times.total_s;
    let waits = matches!(engine, Engine::Slow | Engine::Served);
    let of_instant = instant.map(|(all, _)| total / all);
    // Nobody can be quicker than the engine at its limit, with the decoding of a turn before it has anything to do.
    let searching = best.searches as f64 * arguments.delay_ms as f64 / 1e3 / arguments.concurrency as f64;
    let of_searching = instant.filter(|_| waits).map(|(_, turn)| total / (searching + turn));
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let (policy, engine) = (name(&|| policy.to_possible_value()), name(&|| engine.to_possible_value()));
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    println!(
        "{:16} {total:8.2} {slowest:8.2} {:10.2} {:9.0} {:10.2} {:5.0}% {:>9} {:>9}",
        format!("{policy}, {engine}"),
        best.rollouts as f64 / total,
        best.tokens as f64 / total,
        best.searches as f64 / total,
        100.0 * best.times.idle_share(),
        ratio(of_instant),
        ratio(of_searching),
    );
    json!({
        "policy": policy, "engine": engine, "questions": arguments.questions, "samples": arguments.samples,
        "delay_ms": arguments.delay_ms, "concurrency": arguments.concurrency,
        "search_batch": arguments.search_batch, "search_concurrency": arguments.search_concurrency,
        "rollouts": best.rollouts, "turns": best.turns, "tokens": best.tokens, "searches": best.searches, "search_failures": best.failures,
        "seconds": total, "slowest_seconds": slowest, "runs": runs.len(),
        "rollouts_per_s": best.rollouts as f64 / total, "tokens_per_s": best.tokens as f64 / total,
        "searches_per_s": best.searches as f64 / total, "idle_share": best.times.idle_share(),
        "decoding_s": best.times.decoding_s, "search_wait_s": best.times.waiting_s, "search_s": best.times.searching_s,
        "ratio_to_instant_engine": of_instant, "ratio_to_search_bound": of_searching,
    })
}

fn tasks(arguments: &Arguments, policy: Policy, model: &LanguageModel) -> Outcome<Vec<Task>> {
    let material = world_material()?;
    let template = PromptTemplate::for_model(&model.codec)?;
    let mut tasks = Vec::new();
    for (index, question) in (0..).zip(material.train.iter().cycle().take(arguments.questions)) {
        // The stub counts the observations, and a template has one in its example.
        let prompt = match policy {
            Policy::Local => template.render(&question.question)?,
            Policy::Remote => question.question.clone(),
        };
        let task = Task::new(index, &question.question, &question.golden_answers, model.codec.encode(&prompt));
        tasks.extend((0..arguments.samples).map(|sample| Task { sample, ..task.clone() }));
    }
    Ok(tasks)
}

fn play(
    arguments: &Arguments,
    policy: Policy,
    engine: Engine,
    model: &LanguageModel,
    tasks: Vec<Task>,
) -> Outcome<(Vec<Rollout>, Run)> {
    let delay = Duration::from_millis(arguments.delay_ms);
    let engine: Box<dyn SearchEngine> = match engine {
        Engine::Instant => Box::new(Sleeping(Duration::ZERO, 1)),
        Engine::Slow => Box::new(Sleeping(delay, arguments.concurrency)),
        Engine::Served => Box::new(RetrieverServer::zerosearch(&serve_documents(delay, arguments.concurrency)?)),
        Engine::Simulator => {
            let folder: &Path = arguments.simulator.as_ref().unwrap_or(&arguments.model);
            let config = SimulationConfig { max_new_tokens: 120, ..SimulationConfig::default() };
            let completer = LocalCompleter::new(&LanguageModel::read(folder)?)?;
            Box::new(SimulatedEngine::new(completer, SimulatorPrompt::for_model(folder)?, config))
        }
    };
    let mut generator: Box<dyn Generator> = match policy {
        Policy::Local => Box::new(LocalGenerator::for_model(model)?),
        Policy::Remote => {
            let url = serve_policy(&model.codec, arguments.turns, Duration::from_secs_f64(arguments.token_ms / 1e3))?;
            Box::new(SglangGenerator::new(&url, 1 << 16).with_concurrency(256))
        }
    };
    let config = RolloutConfig {
        max_turns: arguments.turns,
        max_new_tokens: arguments.new_tokens,
        search_batch: arguments.search_batch,
        search_concurrency: arguments.search_concurrency,
        ..RolloutConfig::default()
    };
    let curriculum = curriculum::Constant::new(0.5)?;
    let noise = Noise::Curriculum { curriculum: &curriculum, progress: curriculum::Progress::at(0, 1) };
    let plan = RolloutPlan::search(engine.as_ref(), noise, &model.codec, config);
    let (rollouts, times) = plan.run_timed(&mut *generator, tasks, &mut |_| {})?;
    let sum = |count: &dyn Fn(&Rollout) -> usize| rollouts.iter().map(count).sum();
    let run = Run {
        times,
        rollouts: rollouts.len(),
        tokens: sum(&|rollout| rollout.trajectory.mask().trained()),
        searches: sum(&Rollout::searches),
        turns: sum(&|rollout| rollout.turns.len()),
        failures: sum(&Rollout::search_failures),
    };
    Ok((rollouts, run))
}

/// The documents of every engine but the simulator.
fn found(query: &str, top_k: usize) -> impl Iterator<Item = String> {
    (0..top_k.min(5)).map(move |n| format!("Document {n} about {query}, which says what such documents say."))
}

/// Finds documents after some time, for so many callers at once.
struct Sleeping(Duration, usize);

impl SearchEngine for Sleeping {
    fn search(&self, query: &Query<'_>) -> Result<Vec<search::Document>, SearchError> {
        std::thread::sleep(self.0);
        let document = |contents| Document { contents, ..Document::default() };
        Ok(found(query.text, query.top_k).map(document).collect())
    }

    fn concurrency(&self) -> usize {
        self.1
    }
}

/// A retriever in ZeroSearch's form that takes some time for a query and answers so many at a time.
fn serve_documents(delay: Duration, concurrency: usize) -> Outcome<String> {
    serve(concurrency, move |body| {
        std::thread::sleep(delay);
        let query = body["query"].as_str().unwrap_or_default();
        let top_k = body["top_k"].as_u64().unwrap_or_default();
        let results: Vec<Value> =
            found(query, top_k as usize).map(|contents| json!({"document": {"contents": contents}})).collect();
        json!({"result": [results]})
    })
}

/// An SGLang server whose model searches in every turn but the last, at this pace whatever the batch.
fn serve_policy(codec: &Codec, turns: usize, token: Duration) -> Outcome<String> {
    let codec = codec.clone();
    serve(256, move |body| {
        let ids: Vec<u32> = serde_json::from_value(body["input_ids"].clone()).unwrap_or_default();
        let turn = codec.decode(&ids).matches("</information>").count() + 1;
        let text = match turn < turns {
            true => format!("<think>I look it up.</think><search>fact {turn} of {}</search>", ids.len() % 97),
            false => "<think>That is all.</think><answer>nothing</answer>".to_owned(),
        };
        let tokens = codec.encode(&text);
        std::thread::sleep(token * tokens.len() as u32);
        let rows: Vec<Value> = tokens.iter().map(|id| json!([-0.5, id, null])).collect();
        let finish = json!({"type": "length", "length": rows.len()});
        json!({"meta_info": {"completion_tokens": rows.len(), "finish_reason": finish, "output_token_logprobs": rows}})
    })
}

/// A server on 127.0.0.1, for as long as the process lives; its address.
fn serve(threads: usize, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Outcome<String> {
    let server = tiny_http::Server::http("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = server.server_addr().to_ip().ok_or("an address of 127.0.0.1")?;
    let (server, answer) = (Arc::new(server), Arc::new(answer));
    for _ in 0..threads {
        let (server, answer) = (Arc::clone(&server), Arc::clone(&answer));
        std::thread::spawn(move || {
            while let Ok(mut request) = server.recv() {
                let body: Value = serde_json::from_reader(request.as_reader()).unwrap_or_default();
                let _ = request.respond(tiny_http::Response::from_string(answer(&body).to_string()));
            }
        });
    }
    Ok(format!("http://{address}"))
}
