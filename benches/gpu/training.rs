//! A step of supervised training: sequences whose last half is learnt, AdamW.

use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::lm::{
    AdamWConfig, Decoder, GpuProducts, HostWeights, LearningRate, ModelConfig, SftConfig, SftExample, SftTrainer,
};

/// Steps that are not measured.
const WARM_UP: usize = 2;

#[derive(Args)]
pub(crate) struct Settings {
    /// Sequences of a training step.
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Tokens of each.
    #[arg(long, default_value_t = 512)]
    tokens: usize,
    /// Tokens of a forward pass.
    #[arg(long, default_value_t = 8192)]
    micro_batch_tokens: usize,
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Activations in bf16, where the device has it.
    #[arg(long)]
    fast: bool,
    /// Measured steps, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// The device's peak, of which a share is printed.
    #[arg(long)]
    peak_tflops: Option<f64>,
}

/// The median of some steps, its rate in FLOP/s (6 a parameter and token, attention not counted), and its share of a peak.
pub(crate) fn measure(device: &Device, config: &ModelConfig, settings: &Settings) -> Result<Value, Failure> {
    let Settings { sequences, tokens, micro_batch_tokens, gradient_checkpointing, fast, steps, peak_tflops } =
        *settings;
    let learning_rate = LearningRate::cosine(1e-5, 0, 1000, 1.0);
    let optimizer = AdamWConfig::default();
    let settings =
        SftConfig { learning_rate, optimizer, gradient_norm: 1.0, micro_batch_tokens, gradient_checkpointing };
    let weights = HostWeights::init(config, 0);
    let parameters = weights.parameters();
    let products = if fast { GpuProducts::Fast } else { GpuProducts::Exact };
    let decoder = Decoder::trainable(config, &weights, device)?.with_products(products);
    let mut trainer = SftTrainer::of(decoder, settings);
    drop(weights);
    let example = |sequence: usize| {
        let token = |place: usize| ((sequence * 7919 + place * place * 31) % config.vocab_size) as u32;
        let all: Vec<u32> = (0..tokens).map(token).collect();
        SftExample::completion(&all[..tokens / 2], &all[tokens / 2..])
    };
    let batch: Vec<SftExample> = (0..sequences).map(example).collect();
    let mut seconds = Vec::new();
    for _ in 0..steps.max(1) + WARM_UP {
        let began = Instant::now();
        // Its loss and norm come back to the host: the step is over.
        trainer.step(&batch)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let first = seconds[0];
    let mut measured = seconds.split_off(WARM_UP);
    measured.sort_by(f64::total_cmp);
    let median = measured[measured.len() / 2];
    let tflops = 6.0 * parameters as f64 * (sequences * tokens) as f64 / median / 1e12;
    Ok(json!({
        "products": products,
        "parameters": parameters,
        "tokens": sequences * tokens,
        "seconds": median,
        "seconds_of_the_first_step": first,
        "tflops": tflops,
        "share_of_the_peak": peak_tflops.map(|peak| tflops / peak),
    }))
}
