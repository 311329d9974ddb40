//! The RL stage alone, on any data, model and engine, from a TOML file.
//!
//!     cargo run --release --example train -- --config run.toml --set train.steps=50
//!
//! See `zerosearch::config::RunConfig` for the keys. Ctrl-C leaves a checkpoint; `--resume` goes on from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::config::RunConfig;
use zerosearch::data::read_questions;
use zerosearch::lm::{LanguageModel, StoredDtype};
use zerosearch::metrics::{ConsoleSink, JsonlSink, Sinks, TensorBoardSink, unix_seconds};
use zerosearch::text::PromptTemplate;
use zerosearch::train::{Parts, RunEnd, Trainer, Validation, latest_step, write_samples};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    config: PathBuf,
    /// Goes on from the newest checkpoint.
    #[arg(long)]
    resume: bool,
    /// Overrides a key of the file, such as `train.steps=50`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    zerosearch::kernels::keep_freed_memory();
    let config = RunConfig::read(&arguments.config, &arguments.assignments)?;
    let model = LanguageModel::read(&config.model)?;
    let prompt = PromptTemplate::for_model(&model.codec)?;
    let questions = read_questions(&config.questions)?;
    let engine = config.engine.read()?;
    let validation = match &config.validation {
        Some(validation) => Some((read_questions(&validation.questions)?, validation.engine.read()?, validation.noise)),
        None => None,
    };
    let (reward, device) = (config.reward.build()?, Device::default());
    let parts = Parts {
        model,
        prompt: &prompt,
        questions: &questions,
        engine: engine.as_ref(),
        reward: reward.as_ref(),
        device: &device,
    };
    let mut trainer = Trainer::new(config.train, parts)?;
    if let Some((questions, engine, noise)) = &validation {
        trainer = trainer.with_validation(Validation { questions, engine: engine.as_ref(), noise: *noise });
    }
    let checkpoints = config.out.join("checkpoints");
    std::fs::create_dir_all(&checkpoints)?;
    if !arguments.resume && latest_step(&checkpoints)?.is_some() {
        let out = config.out.display();
        return Err(Failure::message(format!("{out} holds a run: go on with --resume, or set another `out`")));
    }
    if arguments.resume && trainer.resume(&checkpoints)? {
        println!("resumed after step {}", trainer.steps_done());
    }

    let next = trainer.steps_done() + 1;
    let mut sinks = Sinks::new();
    sinks.push(JsonlSink::resume(config.out.join("metrics.jsonl"), next)?);
    sinks.push(TensorBoardSink::resume(config.out.join("tensorboard"), next, unix_seconds)?);
    sinks.push(ConsoleSink::stdout(&[
        ("reward", "critic/score/mean"),
        ("noise", "curriculum/noise_probability"),
        ("searches", "env/number_of_valid_search"),
        ("s", "timing_s/step"),
    ]));
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    let (samples, mut written) = (config.out.join("rollouts"), Ok(()));
    let end = trainer.run(&checkpoints, &mut sinks, &interrupted, &mut |report| {
        if written.is_ok() {
            written = write_samples(&samples, report, 10);
        }
    })?;
    written?;
    match end {
        RunEnd::Finished => {
            trainer.model().save(&config.out.join("policy"), StoredDtype::F32)?;
            println!("trained policy in {}", config.out.join("policy").display());
        }
        RunEnd::Interrupted => println!("stopped after step {}; repeat with --resume", trainer.steps_done()),
    }
    Ok(())
}
