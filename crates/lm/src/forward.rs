//! The forward pass on Burn tensors, for training and scoring on any device.

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use zerosearch_generate::TokenId;
use zerosearch_kernels::{self as kernels, AttentionShape, PackedSpan};

use crate::decoder::{Adapter, Named, Parameter};
use crate::network::{Attention, Layer, Linear, Mlp};
use crate::packing::Packing;
use crate::{Decoder, ModelConfig};

/// A token sequence and the positions in it whose tokens are to be scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredSequence<'a> {
    /// The whole sequence.
    pub tokens: &'a [TokenId],
    /// Indices into `tokens`, ascending, each at least 1: a token is scored given all before it. [`Decoder::features`]
    /// takes `tokens.len()` as well, the place of a token to come.
    pub positions: &'a [usize],
}

/// Description of a pass's rows, shared by all layers.
#[derive(Clone)]
pub(crate) struct Rows {
    cos: Tensor<2>,
    sin: Tensor<2>,
    spans: Arc<[PackedSpan]>,
}

impl Rows {
    pub(crate) fn of(packing: &Packing, config: &ModelConfig, device: &Device) -> Self {
        let (cos, sin) = config.rotary_tables(packing.positions.iter().copied());
        let shape = [packing.positions.len(), config.head_dim / 2];
        let [cos, sin] = [cos, sin].map(|values| Tensor::from_data(TensorData::new(values, shape), device));
        Self { cos, sin, spans: Arc::clone(&packing.spans) }
    }
}

impl Decoder {
    /// Natural log-probabilities of the scored tokens, and the entropies of the distributions they were
    /// scored under; both `[n]`, in the order of sequences and positions. The output head is applied at
    /// scored positions only.
    ///
    /// On the CPU a log-probability has the bits that [`LocalGenerator`](crate::LocalGenerator) recorded for the token,
    /// whichever sequences are beside it.
    pub fn score(&self, sequences: &[ScoredSequence<'_>]) -> (Tensor<1>, Tensor<1>) {
        self.score_features(self.features(sequences), sequences)
    }

    /// The normalised last hidden states from which the scored tokens are predicted, `[n, hidden]`.
    pub fn features(&self, sequences: &[ScoredSequence<'_>]) -> Tensor<2> {
        let packing = Packing::of(sequences);
        let rows = Rows::of(&packing, &self.config, &self.device);
        let layers = self.network.layers.iter();
        let hidden = layers.fold(self.embed(&packing.tokens), |x, layer| self.layer(layer, x, &rows));
        self.scored_features(hidden, &packing)
    }

    /// The output projection `[vocab, hidden]`.
    pub fn head(&self) -> Tensor<2> {
        self.network.head.as_ref().unwrap_or(&self.network.embedding).base.matrix()
    }

    pub(crate) fn score_features(
        &self,
        features: Tensor<2>,
        sequences: &[ScoredSequence<'_>],
    ) -> (Tensor<1>, Tensor<1>) {
        let targets = sequences.iter().flat_map(|s| s.positions.iter().map(|p| s.tokens[*p] as i32));
        kernels::token_logprobs(features, self.as_weight(self.head()), indices(targets.collect(), &self.device))
    }

    /// Embeddings of tokens, `[rows, hidden]`.
    pub(crate) fn embed(&self, tokens: &[TokenId]) -> Tensor<2> {
        self.rounded(self.as_weight(kernels::embedding(self.network.embedding.base.matrix(), tokens)))
    }

    /// The last norm, of the rows from which scored tokens are predicted.
    pub(crate) fn scored_features(&self, hidden: Tensor<2>, packing: &Packing) -> Tensor<2> {
        let rows = indices(packing.scored.iter().map(|row| *row as i32).collect(), &self.device);
        self.norm(hidden.select(0, rows), &self.network.norm)
    }

    /// One layer, `[rows, hidden]` to `[rows, hidden]`.
    pub(crate) fn layer(&self, layer: &Layer<Parameter>, x: Tensor<2>, rows: &Rows) -> Tensor<2> {
        let Layer { input_norm, attention, post_norm, mlp } = layer;
        let attended = self.attention(attention, self.norm(x.clone(), input_norm), rows);
        let x = x + self.linear(attended, &attention.o, self.config.hidden_size);
        let h = self.norm(x.clone(), post_norm);
        x + self.mlp(mlp, h)
    }

    /// All of attention but the projection of its output.
    fn attention(&self, attention: &Attention<Parameter>, h: Tensor<2>, rows: &Rows) -> Tensor<2> {
        let Attention { q, k, v, q_norm, k_norm, o: _ } = attention;
        let c = &self.config;
        let shape = AttentionShape { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim };
        // A generator holds the three as one weight, and gate and up as well.
        let outputs = (c.heads + 2 * c.kv_heads) * c.head_dim;
        let q = self.head_norm(self.linear(h.clone(), q, outputs), q_norm);
        let k = self.head_norm(self.linear(h.clone(), k, outputs), k_norm);
        let v = self.linear(h, v, outputs);
        let q = kernels::rotary(q, rows.cos.clone(), rows.sin.clone(), c.heads);
        let k = kernels::rotary(k, rows.cos.clone(), rows.sin.clone(), c.kv_heads);
        kernels::causal_attention_in(q, k, v, &rows.spans, shape, self.weights == FloatDType::BF16)
    }

    fn mlp(&self, mlp: &Mlp<Parameter>, h: Tensor<2>) -> Tensor<2> {
        let Mlp { gate, up, down } = mlp;
        let outputs = 2 * self.config.intermediate_size;
        let (gate, up) = (self.linear(h.clone(), gate, outputs), self.linear(h, up, outputs));
        match &down.weight.adapter {
            None => self.biased(kernels::swiglu_linear(gate, up, self.matrix(&down.weight.base)), down),
            Some(_) => self.linear(kernels::swiglu(gate, up), down, self.config.hidden_size),
        }
    }

    fn norm(&self, x: Tensor<2>, weight: &Parameter) -> Tensor<2> {
        kernels::rms_norm(x, weight.base.vector(), self.config.rms_norm_eps)
    }

    /// The norm of each head, where the model has one.
    fn head_norm(&self, values: Tensor<2>, weight: &Option<Parameter>) -> Tensor<2> {
        let Some(weight) = weight else { return values };
        let [rows, width] = values.dims();
        let heads = values.reshape([rows * width / self.config.head_dim, self.config.head_dim]);
        self.norm(heads, weight).reshape([rows, width])
    }

    /// A projection with its adapter and its bias, where it has them. `outputs`: of the weight that a generator makes of it.
    fn linear(&self, x: Tensor<2>, linear: &Linear<Parameter>, outputs: usize) -> Tensor<2> {
        let weight = || self.matrix(&linear.weight.base);
        let y = match (&linear.weight.adapter, &self.lora, self.dropout) {
            (Some(Adapter { a, b, .. }), Some(lora), None) => {
                // The sum is rounded where the generator rounds it, not its parts.
                let [weight, a, b] = [&linear.weight.base, a, b].map(|part| self.rounded(part.matrix()));
                let bf16 = self.weights == FloatDType::BF16;
                kernels::adapted_linear(x, weight, a, b, lora.scale() as f32, bf16, outputs)
            }
            (Some(Adapter { module, a, b }), Some(lora), Some(seed)) => {
                let factors = lora.dropout_factors(seed, module, x.dims().iter().product());
                let factors = Tensor::from_data(TensorData::new(factors, x.dims()), &self.device);
                let [a, b] = [a, b].map(|part| self.rounded(part.matrix()));
                let low = kernels::linear(x.clone().mul(self.rounded(factors)), a);
                kernels::linear(x, weight()) + kernels::linear(low, b).mul_scalar(lora.scale())
            }
            _ => kernels::linear_among(x, weight(), outputs),
        };
        self.biased(y, linear)
    }

    fn biased(&self, y: Tensor<2>, linear: &Linear<Parameter>) -> Tensor<2> {
        match &linear.bias {
            Some(bias) => y + self.rounded(bias.base.vector()).unsqueeze::<2>(),
            None => y,
        }
    }

    /// A matrix as products take it.
    fn matrix(&self, tensor: &Named) -> Tensor<2> {
        self.as_weight(tensor.matrix())
    }

    fn as_weight(&self, tensor: Tensor<2>) -> Tensor<2> {
        cast(tensor, self.weights)
    }

    fn rounded<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        cast(tensor, self.dtype)
    }
}

fn cast<const D: usize>(tensor: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    if FloatDType::from(tensor.dtype()) == dtype { tensor } else { tensor.cast(dtype) }
}

fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
