//! One episode, live on the terminal, coloured by who wrote it.
//!
//!     cargo run --release --example ask -- --model models/base --corpus corpus.jsonl "What is the capital of Chad?"
//!     cargo run --release --example ask -- --config run.toml --answer "N'Djamena" "What is the capital of Chad?"
//!
//! The file is that of `train`: `model`, `[engine]`, `[policy]` and the format and bounds of `train.rollout`; flags win over it.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::config::{EngineConfig, Tables};
use zerosearch::device::DeviceName;
use zerosearch::eval::Strategy;
use zerosearch::generate::{Generator, Request, Sampling, Turn};
use zerosearch::grammar::{Action, EpisodeFormat};
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::metrics::{Author, Transcript, say};
use zerosearch::search::{Quality, Query, SearchEngine, SimulationContext};
use zerosearch::text::{IncrementalDecoder, StopScanner, encode_information};

#[derive(Parser)]
struct Arguments {
    /// A TOML file, as `train` reads it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Overrides a key of the file, such as `engine.mode=prompt`; may be given several times.
    #[arg(long = "set")]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
    #[arg(long, required_unless_present_any = ["config", "assignments"])]
    model: Option<PathBuf>,
    /// JSONL or Parquet rows `id?, title?, contents`, searched with BM25.
    #[arg(long, required_unless_present_any = ["config", "assignments"])]
    corpus: Option<PathBuf>,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Without a file 3.
    #[arg(long)]
    top_k: Option<usize>,
    /// Without a file 5.
    #[arg(long)]
    max_turns: Option<usize>,
    /// A golden answer, which an engine that is a simulator is told; may be given several times.
    #[arg(long = "answer")]
    answers: Vec<String>,
    /// Asks an engine that is a simulator for noisy documents.
    #[arg(long)]
    noisy: bool,
    #[arg(required_unless_present = "print_config")]
    question: Option<String>,
}

impl Arguments {
    /// The file with the flags on top of it.
    fn tables(&self) -> Result<Tables, Failure> {
        let mut tables = Tables::read(self.config.as_deref(), &self.assignments)?;
        let rollout = &mut tables.train.rollout;
        if self.config.is_none() && self.assignments.is_empty() {
            (rollout.top_k, rollout.max_turns, rollout.max_new_tokens) = (3, 5, 200);
        }
        rollout.top_k = self.top_k.unwrap_or(rollout.top_k);
        rollout.max_turns = self.max_turns.unwrap_or(rollout.max_turns);
        tables.device = self.device.unwrap_or(tables.device);
        tables.model = self.model.clone().or(tables.model);
        tables.engine = self.corpus.clone().map(|corpus| EngineConfig::Bm25 { corpus }).or(tables.engine);
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
    let question = arguments.question.unwrap_or_default();
    let folder = tables.model.ok_or_else(|| Failure::message("no model: give --model DIR, or `model` in the file"))?;
    let engine =
        tables.engine.ok_or_else(|| Failure::message("no engine: give --corpus FILE, or `engine` in the file"))?;
    let (rollout, has_engine) = (tables.train.rollout, engine != EngineConfig::None);
    let device = tables.device.open()?;
    let model = LanguageModel::read(&folder)?;
    let (codec, format) = (&model.codec, EpisodeFormat::from(rollout.format));
    let engine = engine.read_on(&device)?;
    let strategy = if has_engine { Strategy::Search } else { Strategy::Cot };
    let text = strategy.prompt(codec, &format)?.render(&question)?;
    let mut transcript = Transcript::stdout();
    transcript.write(Author::Prompt, &format!("{text}\n"));

    let mut generator: Box<dyn Generator> = match &tables.policy.0 {
        Some(served) => served.generator_of(&model, &folder, &format)?,
        None => Box::new(LocalGenerator::for_model_on(&model, &device)?),
    };
    let turn = || turn(&model, &format, rollout.max_new_tokens);
    let quality = if arguments.noisy { Quality::Noisy } else { Quality::Useful };
    let told = SimulationContext { question: &question, answers: &arguments.answers, quality, seed: 0 };
    let prompt = codec.encode(&text);
    let id = generator.start(Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn() })?;
    for number in 1..=rollout.max_turns {
        let Some(finished) = generator.poll()?.pop() else { break };
        let ids: Vec<u32> = finished.tokens.iter().map(|token| token.id).collect();
        let observation = match format.parse_action(&codec.decode(&ids)) {
            Action::Answer(answer) => {
                transcript.write(Author::Policy, &format!("\n\nanswer: {answer}\n"));
                return Ok(());
            }
            Action::Call { input: query, .. } => {
                if number == rollout.max_turns {
                    break;
                }
                let found = engine.search(&Query { text: &query, top_k: rollout.top_k, context: Some(told) })?;
                let documents: Vec<_> = found.iter().map(|document| document.text()).collect();
                let documents: Vec<_> = documents.iter().map(|document| ("", document.as_ref())).collect();
                encode_information(codec, &format, &format.documents(&documents))
            }
            Action::Invalid(_) => codec.encode(&format.corrective),
        };
        if number == rollout.max_turns {
            break;
        }
        transcript.write(Author::Observation, &codec.decode(&observation));
        generator.extend(id, &observation, turn())?;
    }
    transcript.write(Author::Prompt, &format!("\n\nno answer within {} turns\n", rollout.max_turns));
    Ok(())
}

/// A turn that prints each token as it is sampled: the stop condition sees them all.
fn turn(model: &LanguageModel, format: &EpisodeFormat, max_new_tokens: usize) -> Turn {
    let mut decoder = IncrementalDecoder::new(&model.codec);
    let mut transcript = Transcript::stdout();
    let mut stop = StopScanner::new(&model.codec, &format.stop_tags()).into_stop();
    Turn {
        max_new_tokens,
        seed: 0,
        stop: Box::new(move |token| {
            transcript.write(Author::Policy, &decoder.push(token));
            stop(token)
        }),
        deadline: None,
    }
}
