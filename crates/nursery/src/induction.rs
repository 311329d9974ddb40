//! Initial weights that can already copy.
//!
//! The slow part of training a small decoder from nothing is that two layers must find each other: one head that
//! tells every position which token stood before it, and one that looks for the place where the present token
//! stood before and repeats what came after it there (an *induction head*; Olsson et al., "In-context Learning
//! and Induction Heads", 2022). Starting close to such a pair ("Mimetic Initialization of Self-Attention
//! Layers", Trockman and Kolter, 2023) costs nothing, leaves the architecture as it is, and every weight is trained
//! from there on.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerosearch_lm::{HostTensor, HostWeights, LmError, ModelConfig};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The first component of every token's embedding: a head that attends by position alone needs something
/// that all tokens have in common.
const COMMON: f32 = 4.0;
/// Rotary pairs that the previous-token head compares, with their weights: fast ones, which tell neighbours apart.
const FAST: [f32; 6] = [2.0, 2.0, 1.0, 1.0, 0.5, 0.5];
/// Attention logit of the previous-token head at its peak, per unit of weight.
const PREVIOUS: f32 = 3.0;
/// Standard deviation of the induction heads' query weights, relative to one that keeps the variance.
const MATCH: f32 = 2.2;
/// A pair that turns by more than this over [`SPAN`] positions does not compare contents.
const TURN: f64 = 1.2;
/// Positions over which an induction head finds its match.
const SPAN: f64 = 400.0;

/// Draws initial weights in which the first layer has a previous-token head and the second and third an
/// induction head each; all else is normal with variance `1 / fan_in`.
///
/// The residual stream of width `d` begins as: component 0 the same for all tokens, the first half a random
/// code of the token, then `head_dim` components for the token before, and at the end `head_dim` components for
/// the token to be written, which the head reads.
///
/// # Errors
/// When the configuration is too small for that: fewer than 3 layers, a width below four heads' sizes, a tied
/// head, or normalised queries.
pub fn init_induction(config: &ModelConfig, seed: u64) -> Result<HostWeights, LmError> {
    let (width, size) = (config.hidden_size, config.head_dim);
    let turns = config.inverse_frequencies();
    let slow: Vec<usize> = (0..size / 2).filter(|pair| turns[*pair] * SPAN <= TURN).collect();
    let fits = config.layers >= 3 && width >= 4 * size && size / 2 > FAST.len() && slow.len() >= size / 8;
    if !fits || config.tie_word_embeddings || config.qk_norm {
        return Err(LmError::Config {
            path: "config.json".into(),
            key: "hidden_size".into(),
            value: width.to_string(),
            expected: "for an induction start 3 layers, a width of 4 heads' sizes, slow rotary pairs, an untied \
                       head and no norm on queries"
                .into(),
        });
    }
    let mut weights = HostWeights::init(config, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x1d);
    let residual = 1.0 / (2.0 * config.layers as f64).sqrt();
    for (name, shape) in config.tensor_shapes() {
        let &[rows, columns] = shape.as_slice() else { continue };
        let small = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let fan_in = if name == EMBEDDING { 1 } else { columns };
        let deviation = if small { residual } else { 1.0 } / (fan_in as f64).sqrt();
        let values = normal(&mut rng, rows * columns, deviation);
        weights.insert(name, HostTensor { shape, values });
    }
    let mut edit = Editor { weights: &mut weights, width };
    let (code, previous, written) = (1..width / 2, width / 2, width - size);
    let scale = (1.0 / code.len() as f32).sqrt();
    let mut gaussian = |count: usize, deviation: f32| normal(&mut rng, count, f64::from(deviation));

    // The code of a token, as the components that are written spell it.
    let projection = gaussian(size * width, scale);
    let vocabulary = config.vocab_size;
    let embedding = edit.change(EMBEDDING, |embedding| {
        for row in embedding.chunks_exact_mut(width) {
            row[0] = COMMON;
            row[width / 2..].iter_mut().for_each(|value| *value *= 0.05);
        }
        embedding.to_vec()
    })?;
    edit.change(HEAD, |head| {
        for token in 0..vocabulary {
            let code_of = &embedding[token * width..][..width];
            let row = &mut head[token * width..][..width];
            row.iter_mut().for_each(|value| *value *= 0.3);
            for (at, value) in row[written..].iter_mut().enumerate() {
                *value = 0.12 * code.clone().map(|c| projection[at * width + c] * code_of[c]).sum::<f32>();
            }
        }
    })?;

    // Layer 0, head 0: the same query and key everywhere, turned so that distance 1 fits best.
    let (mut query, mut key, mut value) = (vec![0.0; size * width], vec![0.0; size * width], vec![0.0; size * width]);
    for (pair, weight) in FAST.iter().enumerate() {
        let amplitude = (PREVIOUS * weight * (size as f32).sqrt() / 2.0).sqrt() / COMMON * 1.4;
        let angle = turns[pair] as f32;
        key[pair * width] = amplitude;
        query[pair * width] = amplitude * angle.cos();
        query[(pair + size / 2) * width] = -amplitude * angle.sin();
    }
    let code_reader = gaussian(size * width, scale);
    for row in 0..size {
        for c in code.clone() {
            value[row * width + c] = code_reader[row * width + c];
        }
    }
    edit.first_head(0, [&query, &key, &value])?;
    edit.output(0, size, previous, 2.0)?;

    // Layers 1 and 2, head 0: the key is the token before, the query the present one, both in slow pairs only.
    for layer in 1..3 {
        let (mut query, mut key) = (vec![0.0; size * width], vec![0.0; size * width]);
        for row in slow.iter().flat_map(|pair| [*pair, pair + size / 2]) {
            for c in code.clone() {
                query[row * width + c] = MATCH * code_reader[row * width + c];
            }
            key[row * width + previous + row] = 1.0;
        }
        let mut value = vec![0.0; size * width];
        for row in 0..size {
            for c in code.clone() {
                value[row * width + c] = projection[row * width + c];
            }
        }
        edit.first_head(layer, [&query, &key, &value])?;
        edit.output(layer, size, written, 1.0)?;
    }
    Ok(weights)
}
/// Overwrites parts of matrices.
struct Editor<'a> {
    weights: &'a mut HostWeights,
    width: usize,
}

impl Editor<'_> {
    /// Changes a tensor's values.
    fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut [f32]) -> T) -> Result<T, LmError> {
        let missing = || LmError::Tensor {
            path: "weights".into(),
            name: name.into(),
            message: "is missing; an induction start writes to it".into(),
        };
        let mut tensor = self.weights.get(name).cloned().ok_or_else(missing)?;
        let result = change(&mut tensor.values);
        self.weights.insert(name, tensor);
        Ok(result)
    }

    /// Query, key and value of a layer's head 0.
    fn first_head(&mut self, layer: usize, parts: [&[f32]; 3]) -> Result<(), LmError> {
        for (name, rows) in ["q", "k", "v"].iter().zip(parts) {
            self.change(&format!("model.layers.{layer}.self_attn.{name}_proj.weight"), |matrix| {
                matrix[..rows.len()].copy_from_slice(rows);
            })?;
        }
        Ok(())
    }

    /// Head 0's output goes to the components from `first` on, one to one.
    fn output(&mut self, layer: usize, size: usize, first: usize, gain: f32) -> Result<(), LmError> {
        let width = self.width;
        self.change(&format!("model.layers.{layer}.self_attn.o_proj.weight"), |matrix| {
            let columns = matrix.len() / width;
            for row in 0..width {
                matrix[row * columns..][..size].fill(0.0);
            }
            for at in 0..size {
                matrix[(first + at) * columns + at] = gain;
            }
        })
    }
}

/// Box-Muller, so that the draw is the same on every platform and version.
fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    (0..count)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos() * deviation) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use zerosearch_lm::{Decoder, ScoredSequence};

    use super::*;

    fn config() -> ModelConfig {
        let mut config = ModelConfig::tiny_llama(1000, 256, 3, 4, 2, 256);
        config.tie_word_embeddings = false;
        config.rope_theta = 1e6;
        config
    }

    /// Mean `−log p` of the second half of a sequence of random tokens that says everything twice.
    fn surprise_at_repetition(weights: &HostWeights, length: usize) -> f32 {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let half: Vec<u32> = (0..length).map(|_| (rng.next_u64() % 1000) as u32).collect();
        let tokens = [half.clone(), half].concat();
        let positions: Vec<usize> = (length + 1..2 * length).collect();
        let decoder = Decoder::frozen(&config(), weights, &Device::flex()).unwrap();
        let (logprobs, _) = decoder.score(&[ScoredSequence { tokens: &tokens, positions: &positions }]);
        let logprobs = logprobs.into_data().try_into_vec::<f32>().unwrap();
        -logprobs.iter().sum::<f32>() / logprobs.len() as f32
    }

    #[test]
    fn an_untrained_model_repeats_what_it_read() {
        let uniform = 1000f32.ln();
        let started = init_induction(&config(), 3).unwrap();
        for length in [10, 60, 150] {
            let surprise = surprise_at_repetition(&started, length);
            assert!(surprise < 0.6 * uniform, "length {length}: {surprise} nats, uniform {uniform}");
        }
        // The plain start does not, so the measurement can fail.
        let plain = surprise_at_repetition(&HostWeights::init(&config(), 3), 60);
        assert!(plain > 0.95 * uniform, "{plain}");
    }

    #[test]
    fn shapes_without_room_are_refused() {
        let refused = |change: fn(&mut ModelConfig)| {
            let mut config = config();
            change(&mut config);
            init_induction(&config, 0).unwrap_err().to_string()
        };
        for change in [
            (|c| c.layers = 2) as fn(&mut ModelConfig),
            |c| c.tie_word_embeddings = true,
            |c| c.hidden_size = 128,
            |c| c.rope_theta = 10.0,
        ] {
            assert!(refused(change).contains("induction start"));
        }
    }
}
