//! Scores a model on a question set with a real engine.
//!
//!     cargo run --release --example evaluate -- --model models/base --questions q.jsonl --corpus c.jsonl --out scores.json
//!
//!     cargo run --release --example evaluate -- --config run.toml --set model=runs/first/policy --out scores.json
//!
//! The file is that of `train`: `model`, `[policy]`, `[validation]` with its questions and its engine (else `[engine]`), and
//! `train.rollout`; flags win over it. Question rows: `id, question, golden_answers`, others optional; corpus rows: `id?, title?, contents`. The
//! predictions lie beside the scores as JSONL (`scores.predictions.jsonl`), each with its whole episode.
//!
//!     cargo run --release --example evaluate -- --compare rag.json search_o1.json
//!
//! Two methods question by question: differences with their intervals and paired tests.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use zerosearch::Failure;
use zerosearch::config::{EngineConfig, Tables, ValidationConfig};
use zerosearch::cost::Prices;
use zerosearch::data::{Fingerprint, read_questions, source_of_path};
use zerosearch::device::DeviceName;
use zerosearch::eval::{
    Comparison, EvalConfig, EvalError, Evaluated, Evaluator, Journal, Latency, Prompts, Report, Setting, Strategy,
    Times, predictions_path, read_predictions, write_predictions,
};
use zerosearch::files::{is_stream, prepare_file, write_atomic};
use zerosearch::generate::{Ledger, Role, Sampling};
use zerosearch::grammar::FormatPreset;
use zerosearch::lm::LanguageModel;
use zerosearch::metrics::{ProgressBar, say};
use zerosearch::search::{Dialect, WebProvider};

#[derive(Parser)]
#[command(group(ArgGroup::new("engine").args(["corpus", "retriever", "serpapi"])))]
struct Arguments {
    /// A TOML file, as `train` reads it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Overrides a key of the file, such as `train.rollout.top_k=5`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
    /// A Llama, Qwen2 or Qwen3 folder.
    #[arg(long, required_unless_present_any = ["config", "assignments", "compare"])]
    model: Option<PathBuf>,
    /// JSONL or Parquet.
    #[arg(long, required_unless_present_any = ["config", "assignments", "compare"])]
    questions: Option<PathBuf>,
    /// JSONL or Parquet: searched with BM25.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// The address of a retrieval server.
    #[arg(long)]
    retriever: Option<String>,
    /// Google through SerpAPI; the key is read from SERPAPI_API_KEY.
    #[arg(long)]
    serpapi: bool,
    /// direct, cot, rag, search, ra_agent, search_o1 or ircot.
    #[arg(long, default_value = "search")]
    strategy: Strategy,
    /// A folder with prompts of your own, by the names in crates/eval/prompts.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// How often each question is answered, for pass@k; more than once needs --temperature.
    #[arg(long, default_value = "1")]
    samples: NonZeroUsize,
    /// 0, the default, is greedy.
    #[arg(long)]
    temperature: Option<f32>,
    /// Goes on with an evaluation that was interrupted.
    #[arg(long)]
    resume: bool,
    /// Questions that are answered at the same time. A kill costs so many answers; 1 measures the latency of a question alone.
    #[arg(long, default_value = "64")]
    chunk: NonZeroUsize,
    /// Compares two files of scores, or of predictions, of the same questions, and ends.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Option<Vec<PathBuf>>,
    /// A price list, such as examples/prices.toml: the cost of a question goes into the file of times.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// The device of the price list that the model runs on.
    #[arg(long, requires = "prices")]
    rented: Option<String>,
    /// The words of an episode: default, zerosearch or search_r1, as the model was trained.
    #[arg(long)]
    format: Option<FormatPreset>,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Only the first so many questions.
    #[arg(long)]
    limit: Option<usize>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Documents for each search; without a file 3.
    #[arg(long)]
    top_k: Option<usize>,
    /// Most tokens in one policy turn; without a file 500.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Most tokens of documents in one observation; without a file 500.
    #[arg(long)]
    max_observation_tokens: Option<usize>,
    /// Where the scores go, as JSON; missing folders are made.
    #[arg(long, required_unless_present_any = ["print_config", "compare"])]
    out: Option<PathBuf>,
}

impl Arguments {
    fn engine(&self) -> Option<EngineConfig> {
        let corpus = self.corpus.clone().map(|corpus| EngineConfig::Bm25 { corpus, index: None });
        let dialect = Dialect::default();
        let retriever = self.retriever.clone().map(|url| EngineConfig::Retriever { urls: vec![url], dialect });
        let web = self.serpapi.then_some(EngineConfig::Web { provider: WebProvider::SerpApi });
        corpus.or(retriever).or(web)
    }

    /// The file with the flags on top of it. The questions and the engine stand under `validation` then.
    fn tables(&self) -> Result<Tables, Failure> {
        let mut tables = Tables::read(self.config.as_deref(), &self.assignments)?;
        if self.config.is_none()
            && !self.assignments.iter().any(|set| set.trim_start().starts_with("train.rollout.top_k"))
        {
            tables.train.rollout.top_k = 3;
        }
        tables.device = self.device.unwrap_or(tables.device);
        tables.model = self.model.clone().or(tables.model);
        let rollout = &mut tables.train.rollout;
        rollout.format = self.format.unwrap_or(rollout.format);
        rollout.top_k = self.top_k.unwrap_or(rollout.top_k);
        rollout.max_new_tokens = self.max_new_tokens.unwrap_or(rollout.max_new_tokens);
        rollout.max_observation_tokens = self.max_observation_tokens.unwrap_or(rollout.max_observation_tokens);
        // Greedy, whatever the run was trained with.
        rollout.sampling = self.temperature.map_or(EvalConfig::default().rollout.sampling, Sampling::temperature);
        let questions = self.questions.clone().or(tables.validation.as_ref().map(|it| it.questions.clone()));
        let questions = questions.ok_or_else(|| {
            Failure::message("no questions: give --questions FILE, or `validation.questions` in the file")
        })?;
        let engine = match self.engine() {
            Some(engine) => engine,
            None => tables.engine_of_evaluation()?.cloned().unwrap_or(EngineConfig::None),
        };
        tables.validation = Some(ValidationConfig { questions, engine, noise: None });
        Ok(tables)
    }
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    if let Some([a, b]) = arguments.compare.as_deref() {
        let comparison = Comparison::of(&read_predictions(a)?, &read_predictions(b)?)?;
        say(comparison.to_string().trim_end());
        return match &arguments.out {
            Some(out) => write(out, &serde_json::to_string_pretty(&comparison)?),
            None => Ok(()),
        };
    }
    let tables = arguments.tables()?;
    if arguments.print_config {
        say(tables.effective()?);
        return Ok(());
    }
    let folder = tables.model.ok_or_else(|| Failure::message("no model: give --model DIR, or `model` in the file"))?;
    let (Some(validation), Some(out)) = (tables.validation, arguments.out) else { return Ok(()) };
    // Before the work: what cannot be written or read is noticed now. A device has nothing beside it.
    let predictions = (!is_stream(&out)).then(|| predictions_path(&out));
    let inputs: Vec<&Path> = arguments.corpus.iter().chain([&validation.questions]).map(PathBuf::as_path).collect();
    predictions.iter().chain([&out]).try_for_each(|path| prepare_file(path, &inputs))?;
    let path = Journal::path_of(&out);
    match (path.exists(), arguments.resume) {
        (true, false) => return Err(EvalError::Interrupted { path }.into()),
        (false, true) if predictions.is_some() && out.exists() => {
            say(format!("{} is complete", out.display()));
            return Ok(());
        }
        _ => {}
    }
    let prices = arguments.prices.as_ref().map(Prices::read).transpose()?;
    let rented = arguments.rented.as_deref();
    cost(prices.as_ref(), rented, 0.0, 0.0)?;
    let prompts = arguments.prompts.as_ref().map(Prompts::read).transpose()?.unwrap_or_default();
    let device = tables.device.open()?;
    let model = LanguageModel::read(&folder)?;
    let mut questions = read_questions(&validation.questions)?;
    questions.truncate(arguments.limit.unwrap_or(questions.len()));
    let source = source_of_path(&validation.questions).map(str::to_owned);
    questions
        .iter_mut()
        .for_each(|question| question.data_source = question.data_source.take().or_else(|| source.clone()));
    // Named by a fingerprint, since an address may hold a password.
    let mut named = Fingerprint::default();
    named.text(&format!("{:?}", validation.engine));
    let engine = match validation.engine {
        EngineConfig::None => None,
        engine => Some(engine.read_on(&device)?),
    };

    let rollout = tables.train.rollout;
    let config =
        EvalConfig { strategy: arguments.strategy, chunk: arguments.chunk.get(), seed: arguments.seed, rollout };
    let format = rollout.format.into();
    let ledger = Ledger::new();
    let evaluator = Evaluator::new(&model.codec, config).engine(engine.as_deref()).prompts(prompts);
    let evaluator = evaluator.samples(arguments.samples.get()).ledger(ledger.clone());
    let (name, engine_name) = (folder.display().to_string(), named.to_string());
    let setting = Setting { model: name, engine: engine_name, ..evaluator.setting(&questions)? };
    let journal = predictions.as_ref().map(|_| Journal::open(&out, &setting, arguments.resume));
    let mut journal = journal.transpose()?;
    let mut generator = tables.policy.generator(&model, &folder, &format, &device)?;
    let bar = ProgressBar::new("evaluate", (questions.len() * arguments.samples.get()) as u64);
    let Evaluated { evaluation: result, seconds } =
        evaluator.run(&mut *generator, &questions, journal.as_mut(), &bar)?;
    bar.finish();

    let report = Report::new(&result, setting);
    if let Some(predictions) = &predictions {
        write_predictions(predictions, &result.predictions)?;
        let latency = Latency::of(&seconds);
        let searches = report.figures.overall.searches;
        let made = result.predictions.len() - journal.as_ref().map_or(0, Journal::resumed);
        let busy = ledger.usage(Role::Policy).device_seconds / made.max(1) as f64;
        let cost_per_question = cost(prices.as_ref(), rented, searches, busy)?;
        let times = Times { latency, ledger: ledger.usages(), cost_per_question };
        write(&Times::path_of(&out), &serde_json::to_string_pretty(&times)?)?;
    }
    write(&out, &serde_json::to_string_pretty(&report)?)?;
    // Only now, when everything is where it belongs.
    journal.map(Journal::finish).transpose()?;
    let s = &result.scores.overall;
    say(format!(
        "{} questions: EM {:.1} % ({:.1}–{:.1}), F1 {:.1} %, contains {:.1} %, {:.2} searches a question, {} failed",
        s.n,
        100.0 * s.em,
        100.0 * s.em_ci95[0],
        100.0 * s.em_ci95[1],
        100.0 * s.f1,
        100.0 * s.contains,
        s.searches_per_question,
        s.search_failures
    ));
    let beside = predictions.map(|path| format!(", predictions in {}", path.display())).unwrap_or_default();
    say(format!("scores in {}{beside}", out.display()));
    Ok(())
}

fn write(path: &Path, json: &str) -> Result<(), Failure> {
    Ok(write_atomic(path, format!("{json}\n").as_bytes())?)
}

/// The searches of a question at each web API, and its time on a rented device.
fn cost(
    prices: Option<&Prices>,
    rented: Option<&str>,
    searches: f64,
    seconds: f64,
) -> Result<BTreeMap<String, f64>, Failure> {
    let Some(prices) = prices else { return Ok(BTreeMap::new()) };
    let mut costs: BTreeMap<String, f64> =
        prices.search.iter().map(|(name, price)| (format!("search.{name}"), price.of(searches))).collect();
    if let Some(name) = rented {
        let device = prices.device.get(name).ok_or_else(|| {
            let known: Vec<&str> = prices.device.keys().map(String::as_str).collect();
            Failure::message(format!("--rented {name}: the price list has no such device, but {}", known.join(", ")))
        })?;
        costs.insert(format!("device.{name}"), device.per_hour * seconds / 3600.0);
    }
    Ok(costs)
}
