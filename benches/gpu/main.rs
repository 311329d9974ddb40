//! A device at the sizes of real models with random weights: its ceilings, decoding beside the CPU's, decoding at several batches,
//! group rollouts, a training step. Prints a line for each figure, and writes all of them as JSON.
//!
//!     cargo bench --features cuda --bench gpu -- --models 135m,0.5b,1.5b --peak-tflops 989 --out gpu.json
//!     cargo bench --bench gpu                       # tiny models on the CPU: shows that it works
//!
//! `benches/gpu/run.sh` runs it with its peers and the quickstart, `benches/gpu/peer.py` has the peers' figures.

mod ceilings;
mod decoding;
mod refit;
mod training;
#[path = "../turns.rs"]
mod turns;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use zerosearch::Failure;
use zerosearch::device::DeviceName;
use zerosearch::lm::{ModelConfig, WeightDtype};

#[derive(Parser)]
struct Arguments {
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::Tiny])]
    models: Vec<Size>,
    /// All of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Sequences that are decoded at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    batches: Vec<usize>,
    /// Tokens before those that are decoded.
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// Weights of the generator in f32; in bf16 otherwise.
    #[arg(long)]
    f32: bool,
    #[command(flatten)]
    training: training::Settings,
    /// The file of the figures.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Given by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Ceilings,
    Parity,
    Decode,
    Rollouts,
    Refit,
    Training,
}

/// Shapes of published models.
#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Tiny,
    /// SmolLM2-135M.
    #[value(name = "135m")]
    Small,
    /// Qwen2.5-0.5B.
    #[value(name = "0.5b")]
    Half,
    /// Qwen2.5-1.5B.
    #[value(name = "1.5b")]
    Large,
}

impl Size {
    fn config(self) -> ModelConfig {
        match self {
            Self::Tiny => ModelConfig::tiny_llama(2048, 128, 2, 4, 2, 256),
            Self::Small => ModelConfig::tiny_llama(49_152, 576, 30, 9, 3, 1536),
            Self::Half => ModelConfig::tiny_llama(151_936, 896, 24, 14, 2, 4864),
            Self::Large => ModelConfig::tiny_llama(151_936, 1536, 28, 12, 2, 8960),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let device = arguments.device.open()?;
    let mut found = Map::new();
    let mut note = |name: String, figures: Value| {
        println!("{name}: {figures}");
        found.insert(name, figures);
    };
    note("device".into(), json!({ "name": arguments.device.resolved().to_string(), "is": format!("{device:?}") }));
    if wanted(Part::Parity) {
        note("parity".into(), decoding::parity(&device)?);
    }
    let mut bandwidth = None;
    if wanted(Part::Ceilings) {
        let ceilings = ceilings::measure(&device)?;
        bandwidth = ceilings["gigabytes_per_second"].as_f64();
        note("ceilings".into(), ceilings);
    }
    let dtype = if arguments.f32 { WeightDtype::F32 } else { WeightDtype::Bf16 };
    for size in &arguments.models {
        let (config, name) = (size.config(), size.name());
        if wanted(Part::Decode) || wanted(Part::Rollouts) {
            let model = decoding::Model::new(&device, dtype, config.clone());
            if wanted(Part::Decode) {
                for batch in &arguments.batches {
                    note(format!("decode {name} batch {batch}"), model.decode(*batch, arguments.context, bandwidth)?);
                }
            }
            if wanted(Part::Rollouts) {
                note(format!("rollouts {name}"), model.rollouts()?);
            }
        }
        if wanted(Part::Refit) {
            note(format!("refit {name}"), refit::measure(&device, &config)?);
        }
        if wanted(Part::Training) {
            note(format!("training {name}"), training::measure(&device, &config, &arguments.training)?);
        }
    }
    if let Some(out) = arguments.out {
        std::fs::write(&out, serde_json::to_string_pretty(&found)?)?;
    }
    Ok(())
}
