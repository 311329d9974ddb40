//! The shipped world as files: corpus, training questions and held-out questions, no entity of which occurs in a training question.
//!
//!     cargo run --release --example world -- --out runs/world
//!
//! The recipes of `examples/recipes` for the shipped policy read them.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::data::write_questions;
use zerosearch::files::{prepare_folder, write_atomic};
use zerosearch::metrics::say;
use zerosearch::pipeline::world_material;

#[derive(Parser)]
struct Arguments {
    /// The folder for `corpus.jsonl`, `train.jsonl` and `held_out.jsonl`.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let Arguments { out } = Arguments::parse();
    let material = world_material()?;
    prepare_folder(&out)?;
    let rows = material.corpus.iter().map(|document| Ok(serde_json::to_string(document)? + "\n"));
    let corpus = rows.collect::<Result<String, serde_json::Error>>()?;
    write_atomic(out.join("corpus.jsonl"), corpus.as_bytes())?;
    write_questions(out.join("train.jsonl"), &material.train)?;
    write_questions(out.join("held_out.jsonl"), &material.held_out)?;
    let (passages, train, held_out) = (material.corpus.len(), material.train.len(), material.held_out.len());
    say(format!("{}: {passages} passages, {train} training and {held_out} held-out questions", out.display()));
    Ok(())
}
