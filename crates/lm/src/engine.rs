//! The forward pass on the host, some tokens of many sequences at a time.
//!
//! All rows go through a layer together, so a weight is read once for all of them, and every row is
//! computed in an order that does not depend on the rows beside it (see [`zerosearch_kernels::host`]):
//! a sequence gets the same bits whichever others are in the batch and however its tokens are cut into calls.

use std::borrow::Cow;

use rayon::prelude::*;
use zerosearch_generate::TokenId;
use zerosearch_kernels::host::{self, Attention, Packed};

use crate::cache::{Cache, Layout, view};
use crate::decoder::Parameter;
use crate::network::{Attention as AttentionWeights, Layer, Linear, Mlp, Network};
use crate::{Decoder, HostTensor, HostWeights, LmError, ModelConfig};

/// Rows of one sequence whose attention is one task.
const TILE: usize = 16;
/// Scores that a task holds at most, where a tile of one row allows it (512 KiB).
const SCORES: usize = 1 << 17;

/// Where an engine takes a parameter from.
pub(crate) enum Source<'a> {
    /// Weights on the host.
    Host(&'a HostTensor),
    /// A decoder, its adapter to be merged at this scale.
    Decoder(&'a Parameter, f32),
}

impl<'a> Source<'a> {
    /// The values, row-major; copied to the host only when they are asked for.
    fn values(&self) -> Cow<'a, [f32]> {
        match self {
            Self::Host(tensor) => Cow::Borrowed(&tensor.values),
            Self::Decoder(parameter, scale) => Cow::Owned(parameter.merged(*scale).values),
        }
    }
}

impl HostWeights {
    /// Every parameter of an architecture.
    pub(crate) fn sources(&self, config: &ModelConfig) -> Result<Network<Source<'_>>, LmError> {
        Network::build(config, |spec| {
            let tensor = spec.found(self.get(&spec.name))?;
            spec.check_shape(&tensor.shape)?;
            Ok(Source::Host(tensor))
        })
    }
}

impl Decoder {
    /// Every parameter of an architecture, its adapter to be merged into it.
    pub(crate) fn sources(&self, config: &ModelConfig) -> Result<Network<Source<'_>>, LmError> {
        let mut parameters = self.network.iter();
        Network::build(config, |spec| {
            let parameter = parameters.next().filter(|parameter| *parameter.base.name == *spec.name);
            let parameter = spec.found(parameter)?;
            spec.check_shape(&parameter.base.weight.shape())?;
            Ok(Source::Decoder(parameter, self.scale()))
        })
    }
}

/// The forward pass on the host.
pub(crate) struct Engine {
    config: ModelConfig,
    layout: Layout,
    /// None while their memory is given away.
    weights: Option<PackedNetwork>,
}

/// Weights laid out for decoding.
struct PackedNetwork {
    embedding: Packed,
    layers: Vec<PackedLayer>,
    norm: Vec<f32>,
    head: Option<Packed>,
}

/// A layer, in which projections of the same input are one.
struct PackedLayer {
    input_norm: Vec<f32>,
    qkv: PackedLinear,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    o: PackedLinear,
    post_norm: Vec<f32>,
    gate_up: PackedLinear,
    down: PackedLinear,
}

struct PackedLinear {
    weight: Packed,
    bias: Option<Vec<f32>>,
}

impl PackedNetwork {
    /// Without weights.
    fn new(config: &ModelConfig) -> Self {
        let table = || Packed::new(&[], config.hidden_size);
        Self {
            embedding: table(),
            layers: (0..config.layers).map(|_| PackedLayer::new(config)).collect(),
            norm: Vec::new(),
            head: (!config.tie_word_embeddings).then(table),
        }
    }

    /// Takes weights, in the memory of the present ones.
    fn fill(&mut self, weights: &Network<Source<'_>>) {
        let Network { embedding, layers, norm, head } = weights;
        self.embedding.fill(&[&embedding.values()]);
        self.layers.iter_mut().zip(layers).for_each(|(layer, weights)| layer.fill(weights));
        self.norm = norm.values().into_owned();
        if let (Some(packed), Some(head)) = (&mut self.head, head) {
            packed.fill(&[&head.values()]);
        }
    }
}

impl PackedLayer {
    fn new(config: &ModelConfig) -> Self {
        Self {
            input_norm: Vec::new(),
            qkv: PackedLinear::new(config.hidden_size),
            q_norm: None,
            k_norm: None,
            o: PackedLinear::new(config.heads * config.head_dim),
            post_norm: Vec::new(),
            gate_up: PackedLinear::new(config.hidden_size),
            down: PackedLinear::new(config.intermediate_size),
        }
    }

    fn fill(&mut self, weights: &Layer<Source<'_>>) {
        let vector = |source: &Source<'_>| source.values().into_owned();
        let Layer { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = weights;
        let AttentionWeights { q, k, v, q_norm, k_norm, o } = attention;
        self.input_norm = vector(input_norm);
        self.qkv.fill(&[q, k, v]);
        self.q_norm = q_norm.as_ref().map(vector);
        self.k_norm = k_norm.as_ref().map(vector);
        self.o.fill(&[o]);
        self.post_norm = vector(post_norm);
        self.gate_up.fill(&[gate, up]);
        self.down.fill(&[down]);
    }
}

impl PackedLinear {
    fn new(inner: usize) -> Self {
        Self { weight: Packed::new(&[], inner), bias: None }
    }

    /// Takes the projections that are computed together: all of them have a bias, or none.
    fn fill(&mut self, projections: &[&Linear<Source<'_>>]) {
        let matrices: Vec<Cow<'_, [f32]>> = projections.iter().map(|projection| projection.weight.values()).collect();
        self.weight.fill(&matrices.iter().map(|matrix| &matrix[..]).collect::<Vec<_>>());
        let biases = projections.iter().filter_map(|projection| projection.bias.as_ref());
        let biases: Vec<f32> = biases.flat_map(|bias| bias.values().into_owned()).collect();
        self.bias = (!biases.is_empty()).then_some(biases);
    }

    fn forward(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * self.weight.outer()];
        self.weight.multiply(x, &mut out);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        out
    }
}

/// The next tokens of one sequence. The cache has room for them.
pub(crate) struct Work<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) tokens: &'a [TokenId],
    /// Whether the logits behind the last of them are wanted.
    pub(crate) logits: bool,
}

impl Engine {
    /// Without weights, until it is given [some](Self::fill).
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self { config: config.clone(), layout: Layout::of(config), weights: None }
    }

    /// Takes other weights, in the memory of the present ones.
    pub(crate) fn fill(&mut self, weights: &Network<Source<'_>>) {
        self.weights.get_or_insert_with(|| PackedNetwork::new(&self.config)).fill(weights);
    }

    /// Gives the memory of all weights back, until others are [taken](Self::fill).
    pub(crate) fn clear(&mut self) {
        self.weights = None;
    }

    /// Whether there is nothing to compute with.
    pub(crate) fn is_clear(&self) -> bool {
        self.weights.is_none()
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes every sequence's tokens through the network. The logits of those that want them,
    /// `[wanted, vocab]`, in their order.
    pub(crate) fn forward(&self, mut work: Vec<Work<'_>>) -> Vec<f32> {
        // Inside the pool, where one parallel operation follows another without waking a thread.
        let mut logits = Vec::new();
        if let Some(weights) = &self.weights {
            rayon::scope(|_| logits = self.forward_rows(weights, &mut work));
        }
        logits
    }

    fn forward_rows(&self, weights: &PackedNetwork, work: &mut [Work<'_>]) -> Vec<f32> {
        let c = &self.config;
        let hidden = c.hidden_size;
        let rows: usize = work.iter().map(|item| item.tokens.len()).sum();
        let mut x = vec![0.0; rows * hidden];
        let tokens = work.iter().flat_map(|item| item.tokens);
        for (row, token) in x.chunks_exact_mut(hidden).zip(tokens) {
            weights.embedding.copy_row(*token as usize, row);
        }
        let positions = work.iter().flat_map(|item| (0..item.tokens.len()).map(|t| item.cache.len() + t));
        let (cos, sin) = c.rotary_tables(positions);
        let mut normed = vec![0.0; x.len()];
        let mut gated = vec![0.0; rows * c.intermediate_size];
        for (index, layer) in weights.layers.iter().enumerate() {
            host::rms_norm_rows(&x, &layer.input_norm, c.rms_norm_eps, &mut normed);
            let mut qkv = layer.qkv.forward(&normed, rows);
            self.rotate(layer, &mut qkv, &cos, &sin);
            let attended = self.attention(index, &qkv, work);
            host::add_rows(&mut x, &layer.o.forward(&attended, rows));
            host::rms_norm_rows(&x, &layer.post_norm, c.rms_norm_eps, &mut normed);
            host::swiglu_rows(&layer.gate_up.forward(&normed, rows), c.intermediate_size, &mut gated);
            host::add_rows(&mut x, &layer.down.forward(&gated, rows));
        }
        let mut last = Vec::new();
        let mut row = 0;
        for item in work.iter_mut() {
            row += item.tokens.len();
            item.cache.advance(item.tokens.len());
            if item.logits {
                last.extend_from_slice(&x[(row - 1) * hidden..row * hidden]);
            }
        }
        let mut normed = vec![0.0; last.len()];
        host::rms_norm_rows(&last, &weights.norm, c.rms_norm_eps, &mut normed);
        let mut logits = vec![0.0; last.len() / hidden * c.vocab_size];
        weights.head.as_ref().unwrap_or(&weights.embedding).multiply(&normed, &mut logits);
        logits
    }

    /// Normalises where the model does, then rotates queries and keys in place.
    fn rotate(&self, layer: &PackedLayer, qkv: &mut [f32], cos: &[f32], sin: &[f32]) {
        let c = &self.config;
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let (width, half) = (q_width + 2 * kv_width, c.head_dim / 2);
        let rows = qkv.par_chunks_exact_mut(width).zip(cos.par_chunks_exact(half).zip(sin.par_chunks_exact(half)));
        rows.with_min_len(TILE).for_each_init(Vec::new, |raw, (row, (cos, sin))| {
            let (q, kv) = row.split_at_mut(q_width);
            for (heads, norm) in [(q, &layer.q_norm), (&mut kv[..kv_width], &layer.k_norm)] {
                if let Some(norm) = norm {
                    raw.clear();
                    raw.extend_from_slice(heads);
                    host::rms_norm_rows(raw, norm, c.rms_norm_eps, heads);
                }
                host::rotate_row(heads, cos, sin);
            }
        });
    }

    /// Appends keys and values to the caches and attends to them: `[rows, heads · head_dim]`.
    fn attention(&self, index: usize, qkv: &[f32], work: &mut [Work<'_>]) -> Vec<f32> {
        let c = &self.config;
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let width = q_width + 2 * kv_width;
        let mut rest = qkv;
        let mut parts = Vec::with_capacity(work.len());
        for item in work.iter_mut() {
            let (part, others) = rest.split_at(item.tokens.len() * width);
            rest = others;
            parts.push((item, part));
        }
        parts.par_iter_mut().for_each(|(item, part)| {
            for (ahead, row) in part.chunks_exact(width).enumerate() {
                let (keys, values) = row[q_width..].split_at(kv_width);
                item.cache.write(&self.layout, index, ahead, keys, values);
            }
        });
        let mut attended = vec![0.0; qkv.len() / width * q_width];
        let blocks: Vec<Vec<&[f32]>> = parts.iter().map(|(item, _)| item.cache.blocks()).collect();
        let mut tasks = Vec::new();
        let mut rest = &mut attended[..];
        for ((item, part), blocks) in parts.iter().zip(&blocks) {
            let end = item.cache.len() + item.tokens.len();
            let tile = (SCORES / (end * c.heads / c.kv_heads)).clamp(1, TILE);
            for (first, queries) in (item.cache.len()..).step_by(tile).zip(part.chunks(tile * width)) {
                let (out, others) = std::mem::take(&mut rest).split_at_mut(queries.len() / width * q_width);
                rest = others;
                tasks.push((first, queries, &blocks[..], out));
            }
        }
        let group = c.heads / c.kv_heads * c.head_dim;
        tasks.into_par_iter().for_each_init(Attention::default, |attention, (first, queries, blocks, out)| {
            for head in 0..c.kv_heads {
                let columns = head * group..(head + 1) * group;
                let rows = queries.chunks_exact(width).zip(out.chunks_exact_mut(q_width));
                let rows = rows.map(|(queries, out)| (&queries[columns.clone()], &mut out[columns.clone()]));
                attention.run(c.head_dim, first, rows, view(blocks, &self.layout, index, head));
            }
        });
        attended
    }
}
