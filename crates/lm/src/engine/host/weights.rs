//! Weights as the host multiplies by them.

use std::borrow::Cow;

use zerosearch_kernels::host::{Packed, resize_buffer};

use crate::engine::Source;
use crate::network::{Attention, Layer, Linear, Mlp, Network};
use crate::{ModelConfig, WeightDtype};

/// Weights laid out for decoding.
pub(super) struct PackedNetwork {
    pub(super) embedding: Packed,
    pub(super) layers: Vec<PackedLayer>,
    pub(super) norm: Vec<f32>,
    pub(super) head: Option<Packed>,
}

/// A layer, in which projections of the same input are one.
pub(super) struct PackedLayer {
    pub(super) input_norm: Vec<f32>,
    pub(super) qkv: PackedLinear,
    pub(super) q_norm: Option<Vec<f32>>,
    pub(super) k_norm: Option<Vec<f32>>,
    pub(super) o: PackedLinear,
    pub(super) post_norm: Vec<f32>,
    pub(super) gate_up: PackedLinear,
    pub(super) down: PackedLinear,
}

pub(super) struct PackedLinear {
    weight: Packed,
    bias: Option<Vec<f32>>,
}

impl PackedNetwork {
    /// Without weights.
    pub(super) fn new(config: &ModelConfig, dtype: WeightDtype) -> Self {
        let table = || packed(config.hidden_size, dtype);
        Self {
            embedding: table(),
            layers: (0..config.layers).map(|_| PackedLayer::new(config, dtype)).collect(),
            norm: Vec::new(),
            head: (!config.tie_word_embeddings).then(table),
        }
    }

    /// Takes weights, in the memory of the present ones.
    pub(super) fn fill(&mut self, weights: &Network<Source<'_>>) {
        let Network { embedding, layers, norm, head } = weights;
        self.embedding.fill(&[&embedding.values()]);
        self.layers.iter_mut().zip(layers).for_each(|(layer, weights)| layer.fill(weights));
        self.norm = norm.values().into_owned();
        if let (Some(packed), Some(head)) = (&mut self.head, head) {
            packed.fill(&[&head.values()]);
        }
    }
}

fn packed(inner: usize, dtype: WeightDtype) -> Packed {
    match dtype {
        WeightDtype::F32 => Packed::new(&[], inner),
        WeightDtype::Bf16 => Packed::new_bf16(&[], inner),
    }
}

impl PackedLayer {
    fn new(config: &ModelConfig, dtype: WeightDtype) -> Self {
        let linear = |inner| PackedLinear { weight: packed(inner, dtype), bias: None };
        Self {
            input_norm: Vec::new(),
            qkv: linear(config.hidden_size),
            q_norm: None,
            k_norm: None,
            o: linear(config.heads * config.head_dim),
            post_norm: Vec::new(),
            gate_up: linear(config.hidden_size),
            down: linear(config.intermediate_size),
        }
    }

    fn fill(&mut self, weights: &Layer<Source<'_>>) {
        let vector = |source: &Source<'_>| source.values().into_owned();
        let Layer { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = weights;
        let Attention { q, k, v, q_norm, k_norm, o } = attention;
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
    /// Takes the projections that are computed together: all of them have a bias, or none.
    fn fill(&mut self, projections: &[&Linear<Source<'_>>]) {
        let matrices: Vec<Cow<'_, [f32]>> = projections.iter().map(|projection| projection.weight.values()).collect();
        self.weight.fill(&matrices.iter().map(|matrix| &matrix[..]).collect::<Vec<_>>());
        let biases = projections.iter().filter_map(|projection| projection.bias.as_ref());
        let biases: Vec<f32> = biases.flat_map(|bias| bias.values().into_owned()).collect();
        self.bias = (!biases.is_empty()).then_some(biases);
    }

    /// `[rows, inner]` to `[rows, outer]`, in place of what `out` holds.
    pub(super) fn forward(&self, x: &[f32], rows: usize, out: &mut Vec<f32>) {
        resize_buffer(out, rows * self.weight.outer());
        self.weight.multiply(x, out);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
    }
}
