//! Several runs on one page: `report.html` with a line for each run in every chart.
//!
//!     cargo run --release --example compare -- runs/grpo runs/ppo --out compare.html

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::metrics::say;
use zerosearch::pipeline::write_comparison;

#[derive(Parser)]
struct Arguments {
    /// The folders of the runs, of `quickstart` or `train`.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The page.
    #[arg(long, default_value = "compare.html")]
    out: PathBuf,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    write_comparison(&arguments.runs, &arguments.out)?;
    say(format!("{} runs in {}", arguments.runs.len(), arguments.out.display()));
    Ok(())
}
