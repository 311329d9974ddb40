//! The RL stage alone, on any data, model and engine, from a TOML file.
//!
//!     cargo run --release --example train -- --config run.toml --set train.steps=50
//!     cargo run --release --example train -- --config run.toml --dry-run
//!
//! The keys are in `docs/src/configuration.md`, ready files in `examples/recipes`. Ctrl-C leaves a checkpoint; `--resume` goes on
//! from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use zerosearch::Failure;
use zerosearch::config::{EngineConfig, Tables};
use zerosearch::data::read_questions;
use zerosearch::device::DeviceName;
use zerosearch::dry_run::{DryRun, MemoryPlan};
use zerosearch::eval::Strategy;
use zerosearch::files::{prepare_file, prepare_folder, write_atomic};
use zerosearch::generate::Ledger;
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::{LanguageModel, StoredDtype};
use zerosearch::metrics::{ConsoleSink, say};
use zerosearch::train::{Trainer, Validation, latest_step};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    config: PathBuf,
    /// Goes on from the newest checkpoint.
    #[arg(long)]
    resume: bool,
    /// auto, cpu, cuda:N or webgpu, in place of the file's `device`.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Overrides a key of the file, such as `train.steps=50`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
    /// Prints the whole effective configuration, defaults included, and ends.
    #[arg(long)]
    print_config: bool,
    /// Checks the file, prints memory, tokens, searches, time and cost of the run, and ends.
    #[arg(long)]
    dry_run: bool,
    /// Measured rates for the dry run: the folder of a finished run, or a TOML file with the keys of `[rates]`.
    #[arg(long, requires = "dry_run")]
    rates: Option<PathBuf>,
    /// A file for the dry run's figures.
    #[arg(long, requires = "dry_run")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// The folder of the configuration file.
    fn beside(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new(""))
    }
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
    if arguments.dry_run {
        return dry_run(&arguments, tables);
    }
    let failed = |message: String| Failure::message(format!("{}: {message}", arguments.config.display()));
    // Before anything is loaded.
    if let Some(plan) = MemoryPlan::of(&tables, arguments.beside()).map_err(|error| failed(error.to_string()))? {
        say(plan.to_string());
        plan.apply(&mut tables.train);
    }
    let config = tables.into_run().map_err(failed)?;
    let device = config.device.open()?;
    let further = config.further_devices.iter().map(|name| name.open()).collect::<Result<Vec<_>, _>>()?;
    prepare(&config.out)?;
    let checkpoints = config.out.join("checkpoints");
    if !arguments.resume && latest_step(&checkpoints)?.is_some() {
        let out = config.out.display();
        return Err(Failure::message(format!("{out} holds a run: go on with --resume, or set another `out`")));
    }
    let (model, questions) = (LanguageModel::read(&config.model)?, read_questions(&config.questions)?);
    let format = EpisodeFormat::from(config.train.rollout.format);
    let served = match &config.generator {
        Some(generator) => {
            generator.check(&config.train)?;
            let served = generator.generator(&model, &format, &config.out);
            served.check()?;
            Some(served)
        }
        None => None,
    };
    let prompt_without_search = Strategy::Cot.prompt(&model.codec, &format)?;
    let ledger = Ledger::new();
    let mut builder = Trainer::builder(model, questions, config.engine.read_with(&device, &ledger)?)
        .ledger(ledger)
        .reward(config.reward.build()?)
        .config(config.train)
        .device(device.clone())
        .further_devices(&further)
        .checkpoints(checkpoints)
        .logs(&config.out)
        .samples(config.out.join("rollouts"), 10)
        .sink(ConsoleSink::stdout(&[
            ("reward", "critic/score/mean"),
            ("noise", "curriculum/noise_probability"),
            ("searches", "env/number_of_valid_search"),
            ("s", "timing_s/step"),
        ]));
    if config.engine == EngineConfig::None {
        builder = builder.prompt(prompt_without_search);
    }
    if let Some(served) = served {
        builder = builder.generator(served);
    }
    if let Some(validation) = config.validation {
        let (questions, engine) = (read_questions(&validation.questions)?, validation.engine.read_on(&device)?);
        builder = builder.validation(Validation { noise: validation.noise, ..Validation::new(questions, engine) });
    }
    let mut trainer = builder.build()?;
    if trainer.steps_done() > 0 {
        say(format!("resumed after step {}", trainer.steps_done()));
    } else if arguments.resume {
        say(format!("no checkpoint in {}: a new run", config.out.display()));
    }

    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    loop {
        if interrupted.load(Ordering::Relaxed) && !trainer.is_finished() {
            trainer.checkpoint()?;
            say(format!("stopped after step {}; repeat with --resume", trainer.steps_done()));
            return Ok(());
        }
        if trainer.next_step()?.is_none() {
            break;
        }
    }
    let policy = config.out.join("policy");
    trainer.into_model()?.save(&policy, StoredDtype::F32)?;
    say(format!("trained policy in {}", policy.display()));
    Ok(())
}

fn dry_run(arguments: &Arguments, tables: Tables) -> Result<(), Failure> {
    let file = arguments.config.display();
    let failed = |error| Failure::message(format!("{file}: {error}"));
    let dry_run = DryRun::of(tables, arguments.beside(), arguments.rates.as_deref()).map_err(failed)?;
    say(dry_run.to_string());
    if let Some(path) = &arguments.json {
        write_atomic(path, format!("{:#}\n", serde_json::to_value(&dry_run)?).as_bytes())?;
    }
    dry_run.fits().map_err(failed)
}

/// Makes the run's folder; obstacles in it are noticed before any work.
fn prepare(out: &Path) -> Result<(), Failure> {
    prepare_folder(out)?;
    prepare_file(out.join("metrics.jsonl"), &[])?;
    let folders = ["checkpoints", "rollouts", "tensorboard", "policy"].map(|name| out.join(name));
    Ok(folders.iter().filter(|folder| folder.exists()).try_for_each(prepare_folder)?)
}
