//! Weights as a GPU multiplies by them.

use std::collections::BTreeMap;

use zerosearch_kernels::WeightCopy;
use zerosearch_kernels::cube::{Gpu, GpuBuffer, HeadNorms, Linear, LinearParts};

use crate::engine::Source;
use crate::network::{Attention, Layer, Linear as Projection, Mlp, Network, TensorSpec};
use crate::{ModelConfig, WeightDtype};

/// Weights laid out for decoding.
pub(super) struct DeviceNetwork {
    pub(super) embedding: Linear,
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) norm: GpuBuffer,
    pub(super) head: Option<Linear>,
}

/// A layer, in which projections of the same input are one.
pub(super) struct DeviceLayer {
    pub(super) input_norm: GpuBuffer,
    pub(super) qkv: Linear,
    pub(super) head_norms: Option<HeadNorms>,
    pub(super) o: Linear,
    pub(super) post_norm: GpuBuffer,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
    epsilon: f32,
}

impl DeviceNetwork {
    /// Memory for a model's weights.
    pub(super) fn new(gpu: &Gpu, config: &ModelConfig, dtype: WeightDtype) -> Self {
        let bf16 = dtype == WeightDtype::Bf16;
        let (hidden, heads) = (config.hidden_size, config.heads * config.head_dim);
        let linear = |inner, outer, parts| Linear::new(gpu, inner, outer, parts, bf16);
        let table = || linear(hidden, config.vocab_size, LinearParts::Stacked);
        let layer = |_| DeviceLayer {
            input_norm: gpu.empty(hidden),
            qkv: linear(hidden, heads + 2 * config.kv_heads * config.head_dim, LinearParts::Stacked),
            head_norms: None,
            o: linear(heads, hidden, LinearParts::Stacked),
            post_norm: gpu.empty(hidden),
            gate_up: linear(hidden, 2 * config.intermediate_size, LinearParts::Gated),
            down: linear(config.intermediate_size, hidden, LinearParts::Stacked),
            epsilon: config.rms_norm_eps as f32,
        };
        Self {
            embedding: table(),
            layers: (0..config.layers).map(layer).collect(),
            norm: gpu.empty(hidden),
            head: (!config.tie_word_embeddings).then(table),
        }
    }

    /// The place of every parameter, by its name.
    pub(super) fn copies(&self, specs: &Network<TensorSpec>) -> Copies {
        let Network { embedding, layers, norm, head } = specs;
        let mut copies = Copies::new();
        add_linear(&mut copies, &self.embedding, &[embedding]);
        for (own, layer) in self.layers.iter().zip(layers) {
            let Layer { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = layer;
            let Attention { q, k, v, q_norm, k_norm, o } = attention;
            add_vector(&mut copies, &own.input_norm, input_norm);
            add_projections(&mut copies, &own.qkv, &[q, k, v]);
            if let (Some(norms), Some(query), Some(key)) = (&own.head_norms, q_norm, k_norm) {
                add_vector(&mut copies, &norms.query, query);
                add_vector(&mut copies, &norms.key, key);
            }
            add_projections(&mut copies, &own.o, &[o]);
            add_vector(&mut copies, &own.post_norm, post_norm);
            add_projections(&mut copies, &own.gate_up, &[gate, up]);
            add_projections(&mut copies, &own.down, &[down]);
        }
        add_vector(&mut copies, &self.norm, norm);
        if let (Some(own), Some(head)) = (&self.head, head) {
            add_linear(&mut copies, own, &[head]);
        }
        copies
    }

    /// Takes weights, in the memory of the present ones, to which recorded steps refer.
    pub(super) fn fill(&mut self, gpu: &Gpu, weights: &Network<Source<'_>>) {
        let Network { embedding, layers, norm, head } = weights;
        self.embedding.fill(gpu, &[&upload(gpu, embedding)]);
        self.layers.iter_mut().zip(layers).for_each(|(layer, weights)| layer.fill(gpu, weights));
        keep(gpu, norm, &self.norm);
        if let (Some(own), Some(head)) = (&self.head, head) {
            own.fill(gpu, &[&upload(gpu, head)]);
        }
    }
}

impl DeviceLayer {
    fn fill(&mut self, gpu: &Gpu, weights: &Layer<Source<'_>>) {
        let Layer { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = weights;
        let Attention { q, k, v, q_norm, k_norm, o } = attention;
        keep(gpu, input_norm, &self.input_norm);
        fill(gpu, &mut self.qkv, &[q, k, v]);
        if let (Some(query), Some(key)) = (q_norm, k_norm) {
            let (query, key) = (upload(gpu, query), upload(gpu, key));
            let norms = self.head_norms.get_or_insert_with(|| HeadNorms {
                query: gpu.empty(query.len()),
                key: gpu.empty(key.len()),
                epsilon: self.epsilon,
            });
            gpu.copy(&query, &norms.query);
            gpu.copy(&key, &norms.key);
        }
        fill(gpu, &mut self.o, &[o]);
        keep(gpu, post_norm, &self.post_norm);
        fill(gpu, &mut self.gate_up, &[gate, up]);
        fill(gpu, &mut self.down, &[down]);
    }
}

type Copies = BTreeMap<String, WeightCopy>;

fn add_linear(copies: &mut Copies, own: &Linear, matrices: &[&TensorSpec]) {
    let rows: Vec<usize> = matrices.iter().map(|spec| spec.shape[0]).collect();
    copies.extend(matrices.iter().map(|spec| spec.name.clone()).zip(own.copies(&rows)));
}

fn add_projections(copies: &mut Copies, own: &Linear, projections: &[&Projection<TensorSpec>]) {
    add_linear(copies, own, &projections.iter().map(|projection| &projection.weight).collect::<Vec<_>>());
    let mut first = 0;
    for spec in projections.iter().filter_map(|projection| projection.bias.as_ref()) {
        if let Some(bias) = own.bias() {
            copies.insert(spec.name.clone(), WeightCopy::of_vector(bias, first, spec.shape[0]));
        }
        first += spec.shape[0];
    }
}

fn add_vector(copies: &mut Copies, own: &GpuBuffer, spec: &TensorSpec) {
    copies.insert(spec.name.clone(), WeightCopy::of_vector(own, 0, own.len()));
}

/// Takes the projections that are computed together: all of them have a bias, or none.
fn fill(gpu: &Gpu, linear: &mut Linear, projections: &[&Projection<Source<'_>>]) {
    let matrices: Vec<GpuBuffer> = projections.iter().map(|projection| upload(gpu, &projection.weight)).collect();
    linear.fill(gpu, &matrices.iter().collect::<Vec<_>>());
    let biases = projections.iter().filter_map(|projection| projection.bias.as_ref());
    let biases: Vec<f32> = biases.flat_map(|bias| bias.values().into_owned()).collect();
    if let Some(present) = linear.bias() {
        gpu.copy(&gpu.upload(&biases), present);
    } else if !biases.is_empty() {
        linear.set_bias(Some(gpu.upload(&biases)));
    }
}

/// The values where a decoder on this device has them, else a copy.
fn upload(gpu: &Gpu, source: &Source<'_>) -> GpuBuffer {
    source.on_gpu().unwrap_or_else(|| gpu.upload(&source.values()))
}

/// Copies the values to memory of its own, which an optimizer's next step does not change.
fn keep(gpu: &Gpu, source: &Source<'_>, own: &GpuBuffer) {
    gpu.copy(&upload(gpu, source), own);
}
