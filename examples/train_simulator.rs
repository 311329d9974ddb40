//! A simulator of your engine from your data: collect, judge, clean, fine-tune, measure.
//!
//!     cargo run --release --example train_simulator -- --config simulator.toml --out runs/simulator
//!     cargo run --release --example train_simulator -- --config simulator.toml --out runs/published --data SimulationTuning_Dataset.json
//!
//! The file is that of `train`: `model` with `[policy]` searches the real `[engine]` for `questions`, `[judge]` labels the results, `[collect]`
//! and `[tune]` say the rest. With `--data` nothing is searched. A run that was killed goes on with `--resume`. Results:
//! `interactions.jsonl`, `simulator/` and `report.json` in the run's folder; `docs/src/simulator.md` says how to read them.

use std::path::{Path, PathBuf};

use clap::Parser;
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::config::Tables;
use zerosearch::data::read_questions;
use zerosearch::device::DeviceName;
use zerosearch::files::read_text;
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::LanguageModel;
use zerosearch::metrics::say;
use zerosearch::simulator::{SimulatorPrompt, read_tuning_data};
use zerosearch::simulator_training::{Collection, SimulatorReport, SimulatorTraining, Source};
use zerosearch::text::PromptTemplate;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    config: PathBuf,
    /// The run's folder, in place of the file's `out`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Interactions that were collected before, JSONL, JSON or Parquet: our own rows, or prompts with their completions as in the
    /// published SimulationTuning_dataset.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Goes on with the run in the folder.
    #[arg(long)]
    resume: bool,
    /// auto, cpu, cuda:N or webgpu, in place of the file's `device`.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Overrides a key of the file, such as `tune.steps=50`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    zerosearch::kernels::keep_freed_memory();
    let mut tables = Tables::read(Some(&arguments.config), &arguments.assignments)?;
    tables.device = arguments.device.unwrap_or(tables.device);
    if arguments.print_config {
        say(tables.effective()?);
        return Ok(());
    }
    let needed = |key: &str| Failure::message(format!("{}: `{key}` is missing", arguments.config.display()));
    let out = arguments.out.clone().or(tables.out.clone()).ok_or_else(|| needed("out` or `--out DIR"))?;
    // Settings that cannot work are refused before anything is read.
    tables.simulator_training().validate()?;
    if arguments.data.is_none() {
        tables.engine_of_collection()?;
    }
    let device = tables.device.open()?;
    let report = match &arguments.data {
        Some(data) => {
            let folder = tables.tune.model.as_ref().or(tables.model.as_ref());
            let base = LanguageModel::read(folder.ok_or_else(|| needed("tune.model"))?)?;
            train(&tables, &arguments, &out, &base, device, Source::Rows(&read_tuning_data(data)?))?
        }
        None => collect_and_train(&tables, &arguments, &out, device, &needed)?,
    };
    say(format!("\n{report}\n\nresults in {}: interactions.jsonl, simulator/, report.json", out.display()));
    Ok(())
}

fn collect_and_train(
    tables: &Tables,
    arguments: &Arguments,
    out: &Path,
    device: Device,
    needed: &dyn Fn(&str) -> Failure,
) -> Result<SimulatorReport, Failure> {
    let folder = tables.model.as_ref().ok_or_else(|| needed("model"))?;
    let questions = read_questions(tables.questions.as_ref().ok_or_else(|| needed("questions"))?)?;
    let policy = LanguageModel::read(folder)?;
    let base = match &tables.tune.model {
        Some(folder) => LanguageModel::read(folder)?,
        None => policy.clone(),
    };
    let engine = tables.engine_of_collection()?.read_on(&device)?;
    let format = EpisodeFormat::from(tables.train.rollout.format);
    let prompt = PromptTemplate::for_model_or(&policy.codec, &format.prompt)?;
    let mut generator = tables.policy.generator(&policy, folder, &format, &device)?;
    let source = Source::Collect(Collection {
        policy: &mut *generator,
        codec: &policy.codec,
        prompt: &prompt,
        engine: &engine,
        questions: &questions,
    });
    train(tables, arguments, out, &base, device, source)
}

fn train(
    tables: &Tables,
    arguments: &Arguments,
    out: &Path,
    base: &LanguageModel,
    device: Device,
    source: Source<'_>,
) -> Result<SimulatorReport, Failure> {
    let template = match (&tables.tune.template, tables.tune.model.as_ref().or(tables.model.as_ref())) {
        (Some(file), _) => SimulatorPrompt::new(&read_text(file)?)?,
        (None, Some(folder)) => SimulatorPrompt::for_model(folder)?,
        (None, None) => SimulatorPrompt::sft()?,
    };
    let judge = tables.judge.read_on(&device)?;
    let training = SimulatorTraining {
        config: tables.simulator_training(),
        base,
        template,
        judge: &*judge,
        out,
        resume: arguments.resume,
        settings: tables.settings_of_collection()?,
        device,
    };
    Ok(training.run(source)?)
}
