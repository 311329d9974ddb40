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
use zerosearch::config::EngineConfig;
use zerosearch::device::DeviceName;
use zerosearch::lm::{LanguageModel, LocalCompleter};
use zerosearch::metrics::say;
use zerosearch::search::{Dialect, WebProvider};
use zerosearch::serve::{ServeConfig, parse_noise};
use zerosearch::server::{Server, Service};
use zerosearch::simulator::{SimulatedEngine, SimulationConfig, SimulatorPrompt};

#[derive(Parser)]
#[command(group(ArgGroup::new("engine").args(["config", "simulator", "corpus", "retriever", "serpapi"]).required(true)))]
struct Arguments {
    /// A TOML file with `[engine]`, and perhaps `[server]`, `[curriculum]`, `calls` and `device`.
    #[arg(long)]
    config: Option<PathBuf>,
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
    let config = arguments.config()?;
    let (noise, device) = (config.noise()?, config.device.open()?);
    // The address is taken before the model is read: one that is not to be had is noticed now, and early clients wait.
    let server = Server::bind(config.server.clone())?.with_signals();
    let mut service = match &arguments.simulator {
        Some(folder) => simulator(folder, &device)?,
        None => Service::new(Arc::from(config.engine.read_on(&device)?)),
    };
    if let Some(noise) = noise {
        service = service.with_noise(noise, config.calls);
    }
    if let Some(folder) = &arguments.chat {
        service = service.with_model(name(folder), completer(folder, &device)?);
    }
    say(format!("serving on http://{}/retrieve", server.address()));
    server.run(service)?;
    say("stopped");
    Ok(())
}

impl Arguments {
    fn config(&self) -> Result<ServeConfig, Failure> {
        let mut config = match (&self.config, &self.simulator, &self.corpus, &self.retriever) {
            (Some(path), ..) => ServeConfig::read(path)?,
            (_, Some(model), ..) => {
                let simulation = SimulationConfig::default();
                ServeConfig::new(EngineConfig::Simulator { model: model.clone(), simulation })
            }
            (_, _, Some(corpus), _) => ServeConfig::new(EngineConfig::Bm25 { corpus: corpus.clone(), index: None }),
            (_, _, _, Some(url)) => {
                ServeConfig::new(EngineConfig::Retriever { url: url.clone(), dialect: Dialect::default() })
            }
            _ => ServeConfig::new(EngineConfig::Web { provider: WebProvider::SerpApi }),
        };
        let is_local_model = matches!(config.engine, EngineConfig::Simulator { .. });
        let processors = available_parallelism().map_or(1, usize::from);
        let concurrency = self.concurrency.or((self.config.is_none() && !is_local_model).then_some(2 * processors));
        let server = &mut config.server;
        server.host = self.host.clone().unwrap_or_else(|| server.host.clone());
        server.port = self.port.unwrap_or(server.port);
        server.top_k = self.top_k.unwrap_or(server.top_k);
        server.seed = self.seed.unwrap_or(server.seed);
        server.concurrency = concurrency.unwrap_or(server.concurrency);
        server.batch = self.batch.unwrap_or(server.batch);
        server.delay_ms = self.delay_ms.unwrap_or(server.delay_ms);
        config.device = self.device.unwrap_or(config.device);
        config.calls = self.calls.unwrap_or(config.calls);
        if let Some(noise) = &self.noise {
            config.curriculum = Some(parse_noise(noise)?);
        }
        Ok(config)
    }
}

/// One copy of the weights plays the engine and answers chats.
fn simulator(folder: &Path, device: &Device) -> Result<Service, Failure> {
    let completer = completer(folder, device)?;
    let prompt = SimulatorPrompt::for_model(folder)?;
    let engine = SimulatedEngine::new(completer.clone(), prompt, SimulationConfig::default());
    Ok(Service::new(Arc::new(engine)).with_model(name(folder), completer))
}

fn completer(folder: &Path, device: &Device) -> Result<Arc<LocalCompleter>, Failure> {
    Ok(Arc::new(LocalCompleter::on(&LanguageModel::read(folder)?, device)?))
}

fn name(folder: &Path) -> String {
    folder.file_name().map_or("simulator".into(), |name| name.to_string_lossy().into_owned())
}
