//! A step of training on any device, at the sizes of real models with random weights: sequences whose last half is learnt, AdamW.
//! The time of a step by its median, the rate in FLOP/s (6 a parameter and token, attention not counted), and its share of a peak.
//!
//!     cargo bench --features cuda --bench gpu_step -- --model 0.5b --peak-tflops 989
//!     cargo bench --bench gpu_step                       # a tiny model on the CPU: shows that it works
//!
//! `benches/peers/trl_step.py` has the peer's figures.

use std::time::Instant;

use clap::{Parser, ValueEnum};
use zerosearch::Failure;
use zerosearch::device::DeviceName;
use zerosearch::lm::{AdamWConfig, HostWeights, LearningRate, ModelConfig, SftConfig, SftExample, SftTrainer};

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    model: Size,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Tokens of a sequence.
    #[arg(long, default_value_t = 512)]
    tokens: usize,
    /// Tokens of a forward pass.
    #[arg(long, default_value_t = 8192)]
    micro_batch_tokens: usize,
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Measured steps, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// The device's peak, of which a share is printed.
    #[arg(long)]
    peak_tflops: Option<f64>,
    /// Given by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
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
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let Arguments { sequences, tokens, micro_batch_tokens, gradient_checkpointing, .. } = arguments;
    let config = arguments.model.config();
    let device = arguments.device.open()?;
    let learning_rate = LearningRate::cosine(1e-5, 0, 1000, 1.0);
    let optimizer = AdamWConfig::default();
    let settings =
        SftConfig { learning_rate, optimizer, gradient_norm: 1.0, micro_batch_tokens, gradient_checkpointing };
    let weights = HostWeights::init(&config, 0);
    let parameters = weights.parameters();
    let mut trainer = SftTrainer::new(&config, &weights, settings, &device)?;
    drop(weights);
    let example = |sequence: usize| {
        let token = |place: usize| ((sequence * 7919 + place * place * 31) % config.vocab_size) as u32;
        let all: Vec<u32> = (0..tokens).map(token).collect();
        SftExample::completion(&all[..tokens / 2], &all[tokens / 2..])
    };
    let batch: Vec<SftExample> = (0..sequences).map(example).collect();
    let mut seconds = Vec::new();
    for step in 0..arguments.steps + 2 {
        let began = Instant::now();
        // Its loss and norm come back to the host: the step is over.
        let report = trainer.step(&batch)?;
        let took = began.elapsed().as_secs_f64();
        println!("step {step}: {took:.4} s, loss {:.4}", report.loss);
        if step >= 2 {
            seconds.push(took);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let Some(median) = seconds.get(seconds.len() / 2) else { return Ok(()) };
    let tflops = 6.0 * parameters as f64 * (sequences * tokens) as f64 / median / 1e12;
    let share =
        arguments.peak_tflops.map(|peak| format!(", {:.1} % of {peak}", 100.0 * tflops / peak)).unwrap_or_default();
    println!(
        "{parameters} parameters, {sequences} × {tokens} tokens on {}: {median:.4} s a step, {tflops:.2} TFLOP/s{share}",
        arguments.device.resolved()
    );
    Ok(())
}
