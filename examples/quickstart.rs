//! The whole method on real input, on a CPU: a small policy learns to search against a simulated
//! engine, never calls the real one while it learns, and is examined on the real one in the end.
//!
//!     cargo run --release --example quickstart
//!     cargo run --release --example quickstart -- --algorithm ppo --seed 1 --out runs/ppo
//!
//! Stop it with Ctrl-C and go on with `--resume`. Results: `summary.json` and `report.html` in the run's folder.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::algorithms::AlgorithmConfig;
use zerosearch::config::Tables;
use zerosearch::device::DeviceName;
use zerosearch::dry_run::MemoryPlan;
use zerosearch::metrics::say;
use zerosearch::pipeline::{Pipeline, PipelineConfig, PipelineEnd, SummaryScores, world_material};

mod interrupt;

#[derive(Parser)]
struct Arguments {
    /// The run's folder.
    #[arg(long, default_value = "runs/quickstart")]
    out: PathBuf,
    /// Names every random draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of reinforcement learning.
    #[arg(long)]
    steps: Option<u64>,
    /// reinforce, grpo, ppo, or another that `zerosearch::algorithms` knows.
    #[arg(long, default_value = "grpo")]
    algorithm: AlgorithmConfig,
    /// The base policy: any Llama, Qwen2 or Qwen3 folder.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base"))]
    model: PathBuf,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Little of everything: shows that a device works, and says nothing about the method.
    #[arg(long)]
    small: bool,
    /// A TOML file whose table `[judge]` says who labels the simulator's data; the exact rule without one.
    #[arg(long)]
    judge: Option<PathBuf>,
    /// Goes on with the run in the folder.
    #[arg(long)]
    resume: bool,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    zerosearch::kernels::keep_freed_memory();
    let mut config = PipelineConfig::default();
    config.train.seed = arguments.seed;
    config.train.steps = arguments.steps.unwrap_or(config.train.steps);
    config.train.algorithm = arguments.algorithm;
    let mut material = world_material()?;
    if arguments.small {
        config = config.shortened();
        material = material.shortened();
    }

    if let Some(plan) = MemoryPlan::of_pipeline(&config, &arguments.model, &material.train, arguments.device)? {
        say(plan.to_string());
        plan.apply(&mut config.train);
    }

    let interrupted = interrupt::on_ctrl_c()?;

    let mut pipeline = Pipeline::new(config, &arguments.model, &material, &arguments.out);
    pipeline.resume = arguments.resume;
    pipeline.device = arguments.device.open()?;
    let judge = Tables::read(arguments.judge.as_deref(), &[])?.judge.read_with(&pipeline.device, &pipeline.ledger)?;
    pipeline.judge = &*judge;
    match pipeline.run(&interrupted)? {
        PipelineEnd::Finished(outcome) => {
            let s = &outcome.summary;
            say("\nheld-out questions, real engine      one hop  several hops   EM % (95 % interval)   searches");
            show("base policy, answering directly", &s.base_direct);
            show("base policy, searching", &s.base_search);
            show("trained policy, searching", &s.trained_search);
            say(format!("\nresults in {}: summary.json, report.html, policy/", arguments.out.display()));
        }
        PipelineEnd::Interrupted => {
            say(format!("stopped; to go on, repeat the command with --resume --out {}", arguments.out.display()));
        }
    }
    Ok(())
}

fn show(name: &str, scores: &SummaryScores) {
    let percent = |s: &zerosearch::eval::Scores| {
        format!("{:5.1} ({:.1}–{:.1})", 100.0 * s.em, 100.0 * s.em_ci95[0], 100.0 * s.em_ci95[1])
    };
    let (one, several) = (&scores.single_hop, &scores.multi_hop);
    say(format!("{name:34} {:>20} {:>20} {:>10.2}", percent(one), percent(several), several.searches_per_question));
}
