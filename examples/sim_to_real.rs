//! The gap between a simulator and the engine that it plays, as a policy meets it.
//!
//!     cargo run --release --example sim_to_real -- --config run.toml --set model=runs/first/policy --out runs/gap
//!
//! The file is that of `train`: `model` with `[policy]` searches, `[engine]` is the simulator, `[validation]` has the questions and the real
//! engine (which may be a tape: `wrap = { replay = "answers.jsonl" }`). The policy answers the same questions with the real engine and with
//! the simulator at several noise levels; every query that it put to the real engine is then put to the simulator with both keywords. Results:
//! `gap.json` and `report.html` in the folder; `docs/src/sim-to-real.md` says how to read them.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::config::Tables;
use zerosearch::data::read_questions;
use zerosearch::device::DeviceName;
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::LanguageModel;
use zerosearch::metrics::say;
use zerosearch::sim_to_real::SimToReal;
use zerosearch::text::PromptTemplate;

#[derive(Parser)]
struct Arguments {
    /// A TOML file, as `train` reads it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Overrides a key of the file, such as `model=runs/first/policy`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
    /// The folder of the results.
    #[arg(long)]
    out: PathBuf,
    /// Shares of noisy documents.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.25, 0.5, 0.75, 1.0])]
    noise: Vec<f64>,
    /// Only the first so many questions.
    #[arg(long)]
    limit: Option<usize>,
    /// auto, cpu, cuda:N or webgpu, in place of the file's `device`.
    #[arg(long)]
    device: Option<DeviceName>,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    zerosearch::kernels::keep_freed_memory();
    let mut tables = Tables::read(arguments.config.as_deref(), &arguments.assignments)?;
    tables.device = arguments.device.unwrap_or(tables.device);
    if arguments.print_config {
        say(tables.effective()?);
        return Ok(());
    }
    // Missing keys are reported before anything is read.
    let (simulator, real) = tables.engines_of_comparison()?;
    let missing = |key: &str| Failure::message(format!("`{key}` is missing, in the file or by --set"));
    let folder = tables.model.as_ref().ok_or_else(|| missing("model"))?;
    let validation = tables.validation.as_ref().ok_or_else(|| missing("validation.questions"))?;
    let device = tables.device.open()?;
    let mut questions = read_questions(&validation.questions)?;
    questions.truncate(arguments.limit.unwrap_or(questions.len()));
    let real = real.read_on(&device)?;
    let simulator = simulator.read_on(&device)?;
    let reward = tables.reward.build()?;

    let policy = LanguageModel::read(folder)?;
    let format = EpisodeFormat::from(tables.train.rollout.format);
    let prompt = PromptTemplate::for_model_or(&policy.codec, &format.prompt)?;
    let mut generator = tables.policy.generator(&policy, folder, &format, &device)?;
    let comparison = SimToReal {
        policy: &mut *generator,
        codec: &policy.codec,
        prompt: &prompt,
        simulator: &*simulator,
        real: &*real,
        questions: &questions,
        reward: &*reward,
        rollout: tables.train.rollout,
        noise: &arguments.noise,
        seed: tables.train.seed,
    };
    let report = comparison.run(&arguments.out)?;
    say(format!("\n{report}\n\nresults in {}: gap.json, report.html", arguments.out.display()));
    Ok(())
}
