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
use zerosearch::curriculum::{Constant, Progress};
use zerosearch::device::DeviceName;
use zerosearch::eval::Strategy;
use zerosearch::generate::{Growth, Sampling, Watched};
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::LanguageModel;
use zerosearch::metrics::{Author, Transcript, say};
use zerosearch::rollout::{Noise, RolloutConfig, RolloutPlan, Task};
use zerosearch::text::{Codec, IncrementalDecoder};

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
        tables.engine = self.corpus.clone().map(|corpus| EngineConfig::Bm25 { corpus, index: None }).or(tables.engine);
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
    let strategy = if engine == EngineConfig::None { Strategy::Cot } else { Strategy::Search };
    let device = tables.device.open()?;
    let model = LanguageModel::read(&folder)?;
    let engine = engine.read_on(&device)?;
    let format = EpisodeFormat::from(tables.train.rollout.format);
    let mut generator = tables.policy.generator(&model, &folder, &format, &device)?;

    // A simulator is told the answers and a quality; a real engine ignores both.
    let curriculum = Constant::new(if arguments.noisy { 1.0 } else { 0.0 })?;
    let noise = Noise::Curriculum { curriculum: &curriculum, progress: Progress::at(0, 1) };
    let config = RolloutConfig { sampling: Sampling::greedy(), ..tables.train.rollout };
    let plan = RolloutPlan::search(&*engine, noise, &model.codec, config);
    let prompt = model.codec.encode(&strategy.prompt(&model.codec, &format)?.render(&question)?);
    let task = Task::new(0, &question, &arguments.answers, prompt);
    let mut watched = Watched::new(&mut *generator, printer(&model.codec));
    let rollouts = plan.run(&mut watched, vec![task], &mut |_| {})?;

    let mut transcript = Transcript::stdout();
    for rollout in &rollouts {
        for failure in rollout.calls().filter_map(|call| call.failure.as_deref()) {
            transcript.write(Author::Observation, &format!("\n\na search failed: {failure}\n"));
        }
        match rollout.answer(&format) {
            Some(answer) => transcript.write(Author::Policy, &format!("\n\nanswer: {answer}\n")),
            None => transcript.write(Author::Prompt, &format!("\n\nno answer in {} turns\n", rollout.turns.len())),
        }
    }
    Ok(())
}

/// Prints an episode as it grows.
fn printer(codec: &Codec) -> impl FnMut(Growth<'_>) + Send + use<> {
    let codec = codec.clone();
    let mut turn = IncrementalDecoder::new(&codec);
    let mut transcript = Transcript::stdout();
    move |growth| match growth {
        Growth::Prompt(prompt) => transcript.write(Author::Prompt, &format!("{}\n", codec.decode(prompt))),
        Growth::Sampled(token) => transcript.write(Author::Policy, &turn.push(token)),
        Growth::Observation(observation) => {
            turn = IncrementalDecoder::new(&codec);
            transcript.write(Author::Observation, &codec.decode(observation));
        }
    }
}
