//! The forward pass on the host, a few tokens of many sequences at a time.
//!
//! Every sequence owns its cache and every row is computed in an order that does not depend on the
//! rows beside it (see [`zerosearch_kernels::host`]), so a sequence gets the same bits whichever
//! others are in the batch and however its tokens are cut into calls.

use rayon::prelude::*;
use zerosearch_generate::TokenId;
use zerosearch_kernels::host;

use crate::{HostTensor, HostWeights, ModelConfig};

/// Weights laid out for decoding.
pub(crate) struct Engine {
    config: ModelConfig,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Option<Vec<f32>>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

struct Layer {
    input_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    o: Linear,
    post_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Linear {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inner: usize,
}

impl Linear {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inner * (self.weight.len() / self.inner)];
        host::linear(x, &self.weight, self.bias.as_deref(), self.inner, &mut out);
        out
    }
}

/// Keys and values of one sequence, per layer `[length, kv_heads · head_dim]`.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    length: usize,
}

impl Cache {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The first `length` positions.
    pub(crate) fn truncated(&self, length: usize) -> Self {
        let cut = |values: &Vec<f32>| values[..values.len() / self.length.max(1) * length].to_vec();
        Self { layers: self.layers.iter().map(|(keys, values)| (cut(keys), cut(values))).collect(), length }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layers.iter().map(|(keys, values)| (keys.len() + values.len()) * size_of::<f32>()).sum()
    }
}

/// The next tokens of one sequence, and after the call the log-probabilities behind the last of them.
pub(crate) struct Work<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) tokens: &'a [TokenId],
    /// `[vocab]`, natural log-probabilities at temperature 1.
    pub(crate) logprobs: Vec<f32>,
}

/// Rows that one thread takes through the network at once: enough to reuse a weight from the
/// cache, few enough that the activations stay there.
const ROWS: usize = 96;

impl Engine {
    pub(crate) fn new(config: &ModelConfig, weights: &HostWeights) -> Self {
        // A tensor that `HostWeights::read` has checked is there; `default` only keeps this total.
        let take = |name: &str| weights.get(name).map(|tensor| tensor.values.clone()).unwrap_or_default();
        let optional = |name: &str| weights.get(name).map(|tensor: &HostTensor| tensor.values.clone());
        let layer = |i: usize| {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let linear = |part: &str, inner: usize| Linear {
                weight: take(&name(&format!("{part}.weight"))),
                bias: optional(&name(&format!("{part}.bias"))),
                inner,
            };
            Layer {
                input_norm: take(&name("input_layernorm.weight")),
                q: linear("self_attn.q_proj", config.hidden_size),
                k: linear("self_attn.k_proj", config.hidden_size),
                v: linear("self_attn.v_proj", config.hidden_size),
                q_norm: optional(&name("self_attn.q_norm.weight")),
                k_norm: optional(&name("self_attn.k_norm.weight")),
                o: linear("self_attn.o_proj", config.heads * config.head_dim),
                post_norm: take(&name("post_attention_layernorm.weight")),
                gate: linear("mlp.gate_proj", config.hidden_size),
                up: linear("mlp.up_proj", config.hidden_size),
                down: linear("mlp.down_proj", config.intermediate_size),
            }
        };
        let (cos, sin) = config.rotary_tables(config.max_positions);
        Self {
            embedding: take("model.embed_tokens.weight"),
            layers: (0..config.layers).map(layer).collect(),
            norm: take("model.norm.weight"),
            head: optional("lm_head.weight"),
            cos,
            sin,
            config: config.clone(),
        }
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Takes every sequence's tokens through the network.
    pub(crate) fn forward(&self, mut work: Vec<Work<'_>>) -> Vec<Vec<f32>> {
        // Whole sequences are dealt to threads in chunks of about `ROWS` rows.
        let mut chunks: Vec<Vec<&mut Work<'_>>> = Vec::new();
        let mut rows = ROWS;
        let target =
            ROWS.min(work.iter().map(|w| w.tokens.len()).sum::<usize>().div_ceil(rayon::current_num_threads()).max(1));
        for item in &mut work {
            if rows >= target {
                chunks.push(Vec::new());
                rows = 0;
            }
            rows += item.tokens.len();
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(item);
            }
        }
        chunks.into_par_iter().for_each(|mut chunk| self.forward_chunk(&mut chunk));
        work.into_iter().map(|item| item.logprobs).collect()
    }

    fn forward_chunk(&self, work: &mut [&mut Work<'_>]) {
        let c = &self.config;
        let hidden = c.hidden_size;
        let mut x: Vec<f32> = Vec::new();
        for item in work.iter_mut() {
            if item.cache.layers.is_empty() {
                item.cache.layers = vec![Default::default(); c.layers];
            }
            for token in item.tokens {
                x.extend_from_slice(&self.embedding[*token as usize * hidden..][..hidden]);
            }
        }
        let mut normed = vec![0.0; x.len()];
        for (index, layer) in self.layers.iter().enumerate() {
            host::rms_norm_rows(&x, &layer.input_norm, c.rms_norm_eps, &mut normed);
            let attended = self.attention(index, layer, &normed, work);
            let projected = layer.o.forward(&attended);
            x.iter_mut().zip(&projected).for_each(|(x, y)| *x += y);
            host::rms_norm_rows(&x, &layer.post_norm, c.rms_norm_eps, &mut normed);
            let mut gate = layer.gate.forward(&normed);
            host::swiglu_rows(&mut gate, &layer.up.forward(&normed));
            let projected = layer.down.forward(&gate);
            x.iter_mut().zip(&projected).for_each(|(x, y)| *x += y);
        }
        let mut last = Vec::with_capacity(work.len() * hidden);
        let mut row = 0;
        for item in work.iter_mut() {
            row += item.tokens.len();
            item.cache.length += item.tokens.len();
            last.extend_from_slice(&x[(row - 1) * hidden..row * hidden]);
        }
        let mut normed = vec![0.0; last.len()];
        host::rms_norm_rows(&last, &self.norm, c.rms_norm_eps, &mut normed);
        let mut logits = vec![0.0; work.len() * c.vocab_size];
        host::linear(&normed, self.head.as_ref().unwrap_or(&self.embedding), None, hidden, &mut logits);
        for (item, row) in work.iter_mut().zip(logits.chunks_exact_mut(c.vocab_size)) {
            host::log_softmax_row(row);
            item.logprobs = row.to_vec();
        }
    }

    fn attention(&self, index: usize, layer: &Layer, normed: &[f32], work: &mut [&mut Work<'_>]) -> Vec<f32> {
        let c = &self.config;
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut q = layer.q.forward(normed);
        let mut k = layer.k.forward(normed);
        let v = layer.v.forward(normed);
        for (values, norm) in [(&mut q, &layer.q_norm), (&mut k, &layer.k_norm)] {
            if let Some(norm) = norm {
                let raw = values.clone();
                host::rms_norm_rows(&raw, norm, c.rms_norm_eps, values);
            }
        }
        let mut attended = vec![0.0; q.len()];
        let mut scores = Vec::new();
        let mut row = 0;
        for item in work.iter_mut() {
            let start = item.cache.length;
            let (keys, values) = &mut item.cache.layers[index];
            for t in 0..item.tokens.len() {
                self.rotate(&mut q[(row + t) * q_width..][..q_width], start + t);
                self.rotate(&mut k[(row + t) * kv_width..][..kv_width], start + t);
            }
            keys.extend_from_slice(&k[row * kv_width..][..item.tokens.len() * kv_width]);
            values.extend_from_slice(&v[row * kv_width..][..item.tokens.len() * kv_width]);
            for t in 0..item.tokens.len() {
                let seen = (start + t + 1) * kv_width;
                let at = (row + t) * q_width..(row + t + 1) * q_width;
                host::attend_row(
                    &q[at.clone()],
                    &keys[..seen],
                    &values[..seen],
                    c.head_dim,
                    c.kv_heads,
                    &mut scores,
                    &mut attended[at],
                );
            }
            row += item.tokens.len();
        }
        attended
    }

    /// Rotates halves, as Hugging Face checkpoints expect.
    fn rotate(&self, heads: &mut [f32], position: usize) {
        let half = self.config.head_dim / 2;
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        for head in heads.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                let (x, y) = (a[i], b[i]);
                a[i] = x * cos[i] - y * sin[i];
                b[i] = y * cos[i] + x * sin[i];
            }
        }
    }
}
