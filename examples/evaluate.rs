//! Scores a model on a question set with a real engine.
//!
//!     cargo run --release --example evaluate -- --model models/base --questions q.jsonl --corpus c.jsonl --out scores.json
//!
//!     cargo run --release --example evaluate -- --config run.toml --set model=runs/first/policy --out scores.json
//!
//! The file is that of `train`: `model`, `[policy]`, `[validation]` with its questions and its engine (else `[engine]`), and
//! `train.rollout`; flags win over it. Question rows: `id, question, golden_answers`, others optional; corpus rows: `id?, title?, contents`. The
//! predictions lie beside the scores as JSONL (`scores.predictions.jsonl`), each with its whole episode.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use zerosearch::Failure;
use zerosearch::config::{EngineConfig, Tables, ValidationConfig};
use zerosearch::data::read_questions;
use zerosearch::device::DeviceName;
use zerosearch::eval::{EvalConfig, Strategy, evaluate, predictions_path, write_predictions};
use zerosearch::files::{is_stream, prepare_file, write_atomic};
use zerosearch::generate::Generator;
use zerosearch::grammar::FormatPreset;
use zerosearch::lm::{LanguageModel, LocalGenerator};
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
    #[arg(long, required_unless_present_any = ["config", "assignments"])]
    model: Option<PathBuf>,
    /// JSONL or Parquet.
    #[arg(long, required_unless_present_any = ["config", "assignments"])]
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
    /// direct, cot, rag or search.
    #[arg(long, default_value = "search")]
    strategy: Strategy,
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
    #[arg(long, required_unless_present = "print_config")]
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
        rollout.sampling = EvalConfig::default().rollout.sampling;
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
    let tables = arguments.tables()?;
    if arguments.print_config {
        say(tables.effective()?);
        return Ok(());
    }
    let folder = tables.model.ok_or_else(|| Failure::message("no model: give --model DIR, or `model` in the file"))?;
    let (Some(validation), Some(out)) = (tables.validation, arguments.out) else { return Ok(()) };
    // Before the work: what cannot be written is noticed now. A device has nothing beside it.
    let predictions = (!is_stream(&out)).then(|| predictions_path(&out));
    let inputs: Vec<&Path> = arguments.corpus.iter().chain([&validation.questions]).map(PathBuf::as_path).collect();
    predictions.iter().chain([&out]).try_for_each(|path| prepare_file(path, &inputs))?;
    let device = tables.device.open()?;
    let model = LanguageModel::read(&folder)?;
    let mut questions = read_questions(&validation.questions)?;
    questions.truncate(arguments.limit.unwrap_or(questions.len()));
    let engine = match validation.engine {
        EngineConfig::None => None,
        engine => Some(engine.read_on(&device)?),
    };

    let (rollout, default) = (tables.train.rollout, EvalConfig::default());
    let config = EvalConfig { strategy: arguments.strategy, seed: arguments.seed, rollout, ..default };
    let format = rollout.format.into();
    let prompt = arguments.strategy.prompt(&model.codec, &format)?;
    let mut generator: Box<dyn Generator> = match &tables.policy.0 {
        Some(served) => served.generator_of(&model, &folder, &format)?,
        None => Box::new(LocalGenerator::for_model_on(&model, &device)?),
    };
    let bar = ProgressBar::new("evaluate", questions.len() as u64);
    let result = evaluate(&mut *generator, engine.as_deref(), &model.codec, &prompt, &questions, &config, &bar)?;
    bar.finish();

    if let Some(predictions) = &predictions {
        write_predictions(predictions, &result.predictions)?;
    }
    write_atomic(&out, format!("{}\n", serde_json::to_string_pretty(&result.scores)?).as_bytes())?;
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
