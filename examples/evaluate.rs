//! Scores a model on a question set with a real engine.
//!
//!     cargo run --release --example evaluate -- --model models/base --questions q.jsonl --corpus c.jsonl --out scores.json
//!
//! Question rows: `id, question, golden_answers`, others optional; corpus rows: `id?, title?, contents`. The
//! predictions lie beside the scores as JSONL (`scores.predictions.jsonl`), each with its whole episode.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use zerosearch::Failure;
use zerosearch::config::EngineConfig;
use zerosearch::data::read_questions;
use zerosearch::device::DeviceName;
use zerosearch::eval::{EvalConfig, Strategy, evaluate, predictions_path, write_predictions};
use zerosearch::files::{is_stream, prepare_file, write_atomic};
use zerosearch::grammar::FormatPreset;
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::metrics::{ProgressBar, say};
use zerosearch::rollout::RolloutConfig;
use zerosearch::search::{Dialect, WebProvider};

#[derive(Parser)]
#[command(group(ArgGroup::new("engine").args(["corpus", "retriever", "serpapi"])))]
struct Arguments {
    /// A Llama, Qwen2 or Qwen3 folder.
    #[arg(long)]
    model: PathBuf,
    /// JSONL or Parquet.
    #[arg(long)]
    questions: PathBuf,
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
    #[arg(long, default_value = "default")]
    format: FormatPreset,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Only the first so many questions.
    #[arg(long)]
    limit: Option<usize>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Documents for each search.
    #[arg(long, default_value_t = 3)]
    top_k: usize,
    /// Most tokens in one policy turn.
    #[arg(long, default_value_t = 500)]
    max_new_tokens: usize,
    /// Most tokens of documents in one observation.
    #[arg(long, default_value_t = 500)]
    max_observation_tokens: usize,
    /// Where the scores go, as JSON; missing folders are made.
    #[arg(long)]
    out: PathBuf,
}

impl Arguments {
    fn engine(&self) -> Option<EngineConfig> {
        let corpus = self.corpus.clone().map(|corpus| EngineConfig::Bm25 { corpus, index: None });
        let dialect = Dialect::default();
        let retriever = self.retriever.clone().map(|url| EngineConfig::Retriever { url, dialect });
        let web = self.serpapi.then_some(EngineConfig::Web { provider: WebProvider::SerpApi });
        corpus.or(retriever).or(web)
    }
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    // Before the work: what cannot be written is noticed now. A device has nothing beside it.
    let predictions = (!is_stream(&arguments.out)).then(|| predictions_path(&arguments.out));
    let inputs: Vec<&Path> = arguments.corpus.iter().chain([&arguments.questions]).map(PathBuf::as_path).collect();
    predictions.iter().chain([&arguments.out]).try_for_each(|path| prepare_file(path, &inputs))?;
    let device = arguments.device.open()?;
    let model = LanguageModel::read(&arguments.model)?;
    let mut questions = read_questions(&arguments.questions)?;
    questions.truncate(arguments.limit.unwrap_or(questions.len()));
    let engine = arguments.engine().map(|engine| engine.read_on(&device)).transpose()?;

    let default = EvalConfig::default();
    let rollout = RolloutConfig {
        top_k: arguments.top_k,
        max_new_tokens: arguments.max_new_tokens,
        max_observation_tokens: arguments.max_observation_tokens,
        format: arguments.format,
        ..default.rollout
    };
    let config = EvalConfig { strategy: arguments.strategy, seed: arguments.seed, rollout, ..default };
    let prompt = arguments.strategy.prompt(&model.codec, &rollout.format.into())?;
    let mut generator = LocalGenerator::for_model_on(&model, &device)?;
    let bar = ProgressBar::new("evaluate", questions.len() as u64);
    let result = evaluate(&mut generator, engine.as_deref(), &model.codec, &prompt, &questions, &config, &bar)?;
    bar.finish();

    if let Some(predictions) = &predictions {
        write_predictions(predictions, &result.predictions)?;
    }
    write_atomic(&arguments.out, format!("{}\n", serde_json::to_string_pretty(&result.scores)?).as_bytes())?;
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
    say(format!("scores in {}{beside}", arguments.out.display()));
    Ok(())
}
