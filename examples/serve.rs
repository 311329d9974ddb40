//! Puts an engine behind HTTP, where Search-R1, verl, SkyRL, slime and ZeroSearch find it.
//!
//!     cargo run --release --example serve -- --simulator runs/first/simulator --port 8000
//!     curl 127.0.0.1:8000/retrieve -d '{"queries": ["capital of Chad"], "topk": 3, "return_scores": true}'
//!
//! The forms of requests are in `docs/src/serving.md`. Ctrl-C and SIGTERM stop it once what is under way is finished.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use clap::{ArgGroup, Parser};
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::config::{EngineConfig, Tables};
use zerosearch::device::DeviceName;
use zerosearch::lm::{LanguageModel, LocalCompleter};
use zerosearch::metrics::say;
use zerosearch::search::{Dialect, WebProvider};
use zerosearch::server::{Server, Service, parse_noise};
use zerosearch::simulator::{SimulatedEngine, SimulationConfig, SimulatorPrompt};

#[derive(Parser)]
#[command(group(ArgGroup::new("engine").args(["config", "simulator", "corpus", "retriever", "serpapi"]).required(true)))]
struct Arguments {
    /// A TOML file, as `train` reads it: its `[engine]`, `[server]` and `device`.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Overrides a key of the file, such as `engine.mode=prompt`; may be given several times.
    #[arg(long = "set")]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
    /// The folder of a model that plays the engine. It also answers /v1/chat/completions.
    #[arg(long)]
    simulator: Option<PathBuf>,
    /// JSONL or Parquet: searched with BM25.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// The address of another retrieval server.
    #[arg(long)]
    retriever: Option<String>,
    /// Google through SerpAPI; the key is read from SERPAPI_API_KEY.
    #[arg(long)]
    serpapi: bool,
    /// The folder of a model that answers /v1/chat/completions beside an engine of another flag.
    #[arg(long, conflicts_with = "simulator")]
    chat: Option<PathBuf>,
    /// The address to listen on; 127.0.0.1. There is no authentication: think before you open it to others.
    #[arg(long)]
    host: Option<String>,
    /// 8000; 0 takes a free one.
    #[arg(long)]
    port: Option<u16>,
    /// Documents where a request does not say how many; 3.
    #[arg(long)]
    top_k: Option<usize>,
    /// The probability that a search gets noisy documents, or two for the first and the last of --calls: 0.25, 0:0.5.
    #[arg(long)]
    noise: Option<String>,
    /// The number of searches over which the noise changes.
    #[arg(long)]
    calls: Option<u64>,
    /// For requests that bring no seed; 0.
    #[arg(long)]
    seed: Option<u64>,
    /// Batches under way at once; 1 for a simulator of this process, else twice the processors.
    #[arg(long)]
    concurrency: Option<usize>,
    /// The most searches in one batch; 64.
    #[arg(long)]
    batch: Option<usize>,
    /// For load tests: every search takes so many milliseconds longer, and batches have one search.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long)]
    device: Option<DeviceName>,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let tables = arguments.tables()?;
    if arguments.print_config {
        say(tables.effective()?);
        return Ok(());
    }
    let engine = tables.engine.ok_or_else(|| Failure::message("no engine: `engine` is missing in the file"))?;
    let (noise, device) = (tables.server.noise()?, tables.device.open()?);
    // The address is taken before the model is read: one that is not to be had is noticed now, and early clients wait.
    let server = Server::bind(tables.server.clone())?.with_signals();
    let mut service = match &engine {
        EngineConfig::Simulator { model, simulation } => simulator(model, *simulation, &device)?,
        engine => Service::new(Arc::from(engine.read_on(&device)?)),
    };
    if let Some(noise) = noise {
        service = service.with_noise(noise, tables.server.calls);
    }
    if let Some(folder) = &arguments.chat {
        service = service.with_model(name(folder), Arc::new(completer(folder, &device)?));
    }
    say(format!("serving on http://{}/retrieve", server.address()));
    server.run(service)?;
    say("stopped");
    Ok(())
}

impl Arguments {
    fn engine(&self) -> Option<EngineConfig> {
        let simulation = SimulationConfig::default();
        let simulator = self.simulator.clone().map(|model| EngineConfig::Simulator { model, simulation });
        let corpus = self.corpus.clone().map(|corpus| EngineConfig::Bm25 { corpus, index: None });
        let dialect = Dialect::default();
        let retriever = self.retriever.clone().map(|url| EngineConfig::Retriever { urls: vec![url], dialect });
        let web = self.serpapi.then_some(EngineConfig::Web { provider: WebProvider::SerpApi });
        simulator.or(corpus).or(retriever).or(web)
    }

    /// The file with the flags on top of it.
    fn tables(&self) -> Result<Tables, Failure> {
        let mut tables = Tables::read(self.config.as_deref(), &self.assignments)?;
        let of_flags = self.engine();
        let is_behind_a_network = of_flags.as_ref().is_some_and(|engine| !engine.is_simulated());
        let concurrency = is_behind_a_network.then(|| 2 * available_parallelism().map_or(1, usize::from));
        tables.engine = of_flags.or(tables.engine);
        tables.device = self.device.unwrap_or(tables.device);
        let server = &mut tables.server;
        server.host = self.host.clone().unwrap_or_else(|| server.host.clone());
        server.port = self.port.unwrap_or(server.port);
        server.top_k = self.top_k.unwrap_or(server.top_k);
        server.seed = self.seed.unwrap_or(server.seed);
        server.concurrency = self.concurrency.or(concurrency).unwrap_or(server.concurrency);
        server.batch = self.batch.unwrap_or(server.batch);
        server.delay_ms = self.delay_ms.unwrap_or(server.delay_ms);
        server.calls = self.calls.unwrap_or(server.calls);
        if let Some(noise) = &self.noise {
            server.curriculum = Some(parse_noise(noise)?);
        }
        Ok(tables)
    }
}

/// One copy of the weights plays the engine and answers chats.
fn simulator(folder: &Path, simulation: SimulationConfig, device: &Device) -> Result<Service, Failure> {
    let completer = Arc::new(completer(folder, device)?);
    let engine = SimulatedEngine::new(completer.clone(), SimulatorPrompt::for_model(folder)?, simulation);
    Ok(Service::new(Arc::new(engine)).with_model(name(folder), completer))
}

fn completer(folder: &Path, device: &Device) -> Result<LocalCompleter, Failure> {
    Ok(LocalCompleter::on(&LanguageModel::read(folder)?, device)?)
}

fn name(folder: &Path) -> String {
    folder.file_name().map_or("simulator".into(), |name| name.to_string_lossy().into_owned())
}
