//! Scores token sequences with a model folder, in a form that other programs compare with: log-probabilities,
//! logits and greedy continuations.
//!
//!     cargo run --release --example score -- --model DIR --tokens FILE.json --out FILE.safetensors --generate 32
//!
//! FILE.json is a list of lists of token ids. For list number i the result holds `p{i}.logprobs` [T−1], `p{i}.logits`
//! ([1, V] of the last position; [T, V] with `--full`) and `p{i}.generated` [N].

use std::path::{Path, PathBuf};

use clap::Parser;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use zerosearch::Failure;
use zerosearch::burn::tensor::Tensor;
use zerosearch::device::DeviceName;
use zerosearch::files::{decode_text, prepare_file, write_atomic};
use zerosearch::generate::{Generator, Request, Sampling, Turn, never};
use zerosearch::lm::{Decoder, HostWeights, LocalGenerator, ModelConfig, ScoredSequence, WeightDtype};
use zerosearch::metrics::say;

#[derive(Parser)]
struct Arguments {
    /// A Llama, Qwen2 or Qwen3 folder; it needs no tokenizer.
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    tokens: PathBuf,
    #[arg(long)]
    out: PathBuf,
    /// Greedy tokens after each list: exactly so many, since end-of-text tokens are passed over.
    #[arg(long, default_value_t = 0)]
    generate: usize,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu; everything is computed in f32.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Logits of every position instead of the last.
    #[arg(long)]
    full: bool,
}

const EOS: &str = "eos_token_id";

/// One tensor of the result: name, shape, little-endian bytes.
type Row = (String, Dtype, Vec<usize>, Vec<u8>);

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    prepare_file(&arguments.out, &[&arguments.tokens])?;
    let (config, json) = ModelConfig::read(arguments.model.join("config.json"))?;
    let weights = HostWeights::read(&arguments.model, &config)?;
    let lists = read_tokens(&arguments.tokens, &config)?;
    let device = arguments.device.open()?;
    let decoder = Decoder::frozen(&config, &weights, &device)?.with_bf16_weights(false);
    let eos = end_of_text(&arguments.model, json.get(EOS))?;
    let mut generator = LocalGenerator::on(&device, WeightDtype::F32, &config, &weights, &eos)?;
    let sampling = Sampling { min_new_tokens: arguments.generate, ..Sampling::greedy() };
    let mut rows: Vec<Row> = Vec::new();
    for (i, tokens) in lists.iter().enumerate() {
        let length = tokens.len();
        let scored: Vec<usize> = (1..length).collect();
        let logprobs = match scored.as_slice() {
            [] => Vec::new(),
            positions => values(decoder.score(&[ScoredSequence { tokens, positions }]).0)?,
        };
        rows.push(floats(format!("p{i}.logprobs"), vec![length - 1], &logprobs));
        // The features of position T predict the token after the last.
        let positions: Vec<usize> = if arguments.full { (1..=length).collect() } else { vec![length] };
        let features = decoder.features(&[ScoredSequence { tokens, positions: &positions }]);
        let logits = values(features.matmul(decoder.head().transpose()))?;
        rows.push(floats(format!("p{i}.logits"), vec![positions.len(), config.vocab_size], &logits));
        if arguments.generate > 0 {
            let turn = Turn { max_new_tokens: arguments.generate, seed: 0, stop: never(), deadline: None };
            let id = generator.start(Request { prompt: tokens, sampling, turn })?;
            let finished = generator.poll()?.pop().ok_or_else(|| Failure::message("the generator returned no turn"))?;
            generator.release(id);
            let bytes: Vec<u8> = finished.tokens.iter().flat_map(|token| i64::from(token.id).to_le_bytes()).collect();
            rows.push((format!("p{i}.generated"), Dtype::I64, vec![finished.tokens.len()], bytes));
        }
    }
    let views =
        rows.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    write_atomic(&arguments.out, &safetensors::serialize(views, None)?)?;
    say(format!("{} sequences scored: {}", lists.len(), arguments.out.display()));
    Ok(())
}

/// The end-of-text tokens of `generation_config.json` or, where it has none, of `config.json`.
fn end_of_text(folder: &Path, configured: Option<&Value>) -> Result<Vec<u32>, Failure> {
    let path = folder.join("generation_config.json");
    let generation: Value = match std::fs::read(&path).and_then(decode_text) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|error| Failure::message(format!("{}: {error}", path.display())))?
        }
        Err(_) => Value::Null,
    };
    let ids = match generation.get(EOS).or(configured) {
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
        None => &[],
    };
    Ok(ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect())
}

fn read_tokens(path: &Path, config: &ModelConfig) -> Result<Vec<Vec<u32>>, Failure> {
    let wrong = |message: String| Failure::message(format!("{}: {message}", path.display()));
    let text = std::fs::read(path).and_then(decode_text).map_err(|error| wrong(error.to_string()))?;
    let lists: Vec<Vec<u32>> = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("{error}; expected a list of lists of token ids, such as [[1, 2], [3]]")))?;
    for (i, tokens) in lists.iter().enumerate() {
        if tokens.is_empty() {
            return Err(wrong(format!("list {i} is empty; a sequence has at least one token")));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= config.vocab_size) {
            return Err(wrong(format!("list {i} has token {id}, the model has ids below {}", config.vocab_size)));
        }
        if tokens.len() > config.max_positions {
            let (length, most) = (tokens.len(), config.max_positions);
            return Err(wrong(format!("list {i} has {length} tokens, the model's context has {most}")));
        }
    }
    Ok(lists)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Failure> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| Failure::message(format!("{error:?}")))
}

fn floats(name: String, shape: Vec<usize>, values: &[f32]) -> Row {
    (name, Dtype::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}
