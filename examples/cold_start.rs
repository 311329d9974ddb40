//! A cold start: the policy learns the form of an episode from scripted ones, before reinforcement learning.
//!
//!     cargo run --release --example cold_start -- --config policy.toml --demonstrations demonstrations.jsonl --out runs/policy
//!
//! The file is that of `train`: `model` is the base, the real `[engine]` answers the searches of the demonstrations, `[train.rollout]` bounds them,
//! `[cold_start]` says how to learn. A row is `{"question", "golden_answers", "turns"}`, a turn what the policy writes until its action ends:
//! `<think>…</think><search>…</search>`, and an answer at last. Documents are read and not learnt. `--out` is a model's folder.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::cold_start::{Stage, cold_start, read_demonstrations};
use zerosearch::config::Tables;
use zerosearch::device::DeviceName;
use zerosearch::files::prepare_folder;
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::{LanguageModel, StoredDtype};
use zerosearch::metrics::say;
use zerosearch::text::PromptTemplate;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    config: PathBuf,
    /// Scripted episodes, JSONL, JSON or Parquet.
    #[arg(long)]
    demonstrations: PathBuf,
    /// The folder of the fine-tuned policy.
    #[arg(long)]
    out: PathBuf,
    /// auto, cpu, cuda:N or webgpu, in place of the file's `device`.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Overrides a key of the file, such as `cold_start.epochs=3`.
    #[arg(long = "set", num_args = 1..)]
    assignments: Vec<String>,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    zerosearch::kernels::keep_freed_memory();
    let mut tables = Tables::read(Some(&arguments.config), &arguments.assignments)?;
    tables.device = arguments.device.unwrap_or(tables.device);
    tables.cold_start.validate()?;
    prepare_folder(&arguments.out)?;
    let missing = || Failure::message(format!("{}: `model` is missing", arguments.config.display()));
    let base = LanguageModel::read(tables.model.as_ref().ok_or_else(missing)?)?;
    let demonstrations = read_demonstrations(&arguments.demonstrations)?;
    let device = tables.device.open()?;
    let engine = tables.engine_of_collection()?.read_on(&device)?;

    let rollout = tables.train.rollout;
    let prompt = PromptTemplate::for_model_or(&base.codec, &EpisodeFormat::from(rollout.format).prompt)?;
    let rollouts = Stage { engine: &engine, codec: &base.codec, prompt: &prompt, rollout }.play(&demonstrations)?;
    let searches: usize = rollouts.iter().map(|rollout| rollout.calls().count()).sum();
    let tokens: usize = rollouts.iter().map(|rollout| rollout.trajectory.len()).sum();
    say(format!("{} demonstrations: {searches} searches, {tokens} tokens", rollouts.len()));

    let (policy, losses) = cold_start(&tables.cold_start, tables.train.seed, &base, &rollouts, &device)?;
    policy.save(&arguments.out, StoredDtype::F32)?;
    let (first, last) = (losses.first().unwrap_or(&0.0), losses.last().unwrap_or(&0.0));
    say(format!("loss {first:.3} → {last:.3} in {} steps; the policy is in {}", losses.len(), arguments.out.display()));
    Ok(())
}
