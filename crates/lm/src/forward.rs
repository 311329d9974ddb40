//! The forward pass on Burn tensors, for training and scoring on any device.

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use zerosearch_generate::TokenId;
use zerosearch_kernels::{self as kernels, AttentionShape, Segment};

use crate::decoder::Adapters;
use crate::lora::{a_name, b_name};
use crate::packing::Packing;
use crate::{Decoder, LoraConfig, ModelConfig, Weight};

/// A token sequence and the positions in it whose tokens are to be scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredSequence<'a> {
    /// The whole sequence.
    pub tokens: &'a [TokenId],
    /// Indices into `tokens`, ascending, each at least 1: a token is scored given all before it. [`Decoder::features`]
    /// takes `tokens.len()` as well, the place of a token to come.
    pub positions: &'a [usize],
}

/// What every layer is told of its rows.
#[derive(Clone)]
pub(crate) struct Rows {
    cos: Tensor<2>,
    sin: Tensor<2>,
    segments: Arc<[Segment]>,
}

impl Rows {
    pub(crate) fn of(packing: &Packing, config: &ModelConfig, device: &Device) -> Self {
        let (cos, sin) = config.rotary_tables(packing.positions.iter().copied());
        let shape = [packing.positions.len(), config.head_dim / 2];
        let [cos, sin] = [cos, sin].map(|values| Tensor::from_data(TensorData::new(values, shape), device));
        Self { cos, sin, segments: Arc::clone(&packing.segments) }
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
        let hidden = (0..self.config.layers).fold(self.embed(&packing.tokens), |x, index| self.layer(index, x, &rows));
        self.scored_features(hidden, &packing)
    }

    /// The output projection `[vocab, hidden]`.
    pub fn head(&self) -> Tensor<2> {
        self.stored(if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" })
    }

    pub(crate) fn score_features(
        &self,
        features: Tensor<2>,
        sequences: &[ScoredSequence<'_>],
    ) -> (Tensor<1>, Tensor<1>) {
        let targets = sequences.iter().flat_map(|s| s.positions.iter().map(|p| s.tokens[*p] as i32));
        kernels::token_logprobs(features, self.rounded(self.head()), indices(targets.collect(), &self.device))
    }

    /// Embeddings of tokens, `[rows, hidden]`.
    pub(crate) fn embed(&self, tokens: &[TokenId]) -> Tensor<2> {
        let tokens = indices(tokens.iter().map(|token| *token as i32).collect(), &self.device);
        self.rounded(self.stored("model.embed_tokens.weight").select(0, tokens))
    }

    /// The last norm, of the rows from which scored tokens are predicted.
    pub(crate) fn scored_features(&self, hidden: Tensor<2>, packing: &Packing) -> Tensor<2> {
        let rows = indices(packing.scored.iter().map(|row| *row as i32).collect(), &self.device);
        kernels::rms_norm(hidden.select(0, rows), self.vector("model.norm.weight"), self.config.rms_norm_eps)
    }

    /// One layer, `[rows, hidden]` to `[rows, hidden]`.
    pub(crate) fn layer(&self, index: usize, x: Tensor<2>, rows: &Rows) -> Tensor<2> {
        let c = &self.config;
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let shape = AttentionShape { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim };
        let h = kernels::rms_norm(x.clone(), self.vector(&name("input_layernorm.weight")), c.rms_norm_eps);
        let head_norm = |values: Tensor<2>, part: &str| {
            if !c.qk_norm {
                return values;
            }
            let [rows, width] = values.dims();
            let heads = values.reshape([rows * width / c.head_dim, c.head_dim]);
            kernels::rms_norm(heads, self.vector(&name(part)), c.rms_norm_eps).reshape([rows, width])
        };
        let q = head_norm(self.linear(h.clone(), &name("self_attn.q_proj")), "self_attn.q_norm.weight");
        let k = head_norm(self.linear(h.clone(), &name("self_attn.k_proj")), "self_attn.k_norm.weight");
        let v = self.linear(h, &name("self_attn.v_proj"));
        let q = kernels::rotary(q, rows.cos.clone(), rows.sin.clone(), c.heads);
        let k = kernels::rotary(k, rows.cos.clone(), rows.sin.clone(), c.kv_heads);
        let attended = kernels::causal_attention(q, k, v, &rows.segments, shape);
        let x = x + self.linear(attended, &name("self_attn.o_proj"));
        let h = kernels::rms_norm(x.clone(), self.vector(&name("post_attention_layernorm.weight")), c.rms_norm_eps);
        let (gate, up) = (self.linear(h.clone(), &name("mlp.gate_proj")), self.linear(h, &name("mlp.up_proj")));
        let down = name("mlp.down_proj");
        x + match self.adapter(&down) {
            None => self.biased(kernels::swiglu_linear(gate, up, self.matrix(&down)), &down),
            Some(_) => self.linear(kernels::swiglu(gate, up), &down),
        }
    }

    /// A projection with its adapter and its bias, where it has them.
    fn linear(&self, x: Tensor<2>, name: &str) -> Tensor<2> {
        let weight = self.matrix(name);
        let y = match (self.adapter(name), self.dropout) {
            (None, _) => kernels::linear(x, weight),
            (Some((config, [a, b])), None) => kernels::adapted_linear(x, weight, a, b, config.scale() as f32),
            (Some((config, [a, b])), Some(seed)) => {
                let factors = config.dropout_factors(seed, name, x.dims().iter().product());
                let factors = Tensor::from_data(TensorData::new(factors, x.dims()), &self.device);
                let low = kernels::linear(x.clone().mul(self.rounded(factors)), a);
                kernels::linear(x, weight) + kernels::linear(low, b).mul_scalar(config.scale())
            }
        };
        self.biased(y, name)
    }

    fn biased(&self, y: Tensor<2>, name: &str) -> Tensor<2> {
        match self.weights.get(&format!("{name}.bias")) {
            Some(Weight::Vector(bias)) => y + self.rounded(bias.clone()).unsqueeze::<2>(),
            _ => y,
        }
    }

    /// The two matrices beside a projection's weight.
    fn adapter(&self, name: &str) -> Option<(&LoraConfig, [Tensor<2>; 2])> {
        let Adapters { config, weights } = self.adapters.as_ref()?;
        let matrix = |name: String| match weights.get(&name) {
            Some(Weight::Matrix(tensor)) => Some(self.rounded(tensor.clone())),
            _ => None,
        };
        Some((config, [matrix(a_name(name))?, matrix(b_name(name))?]))
    }

    // The names below come from `ModelConfig::tensor_shapes`, which loading has checked against the
    // weights, so a missing one is a defect of this file.
    fn stored(&self, name: &str) -> Tensor<2> {
        match self.weights.get(name) {
            Some(Weight::Matrix(tensor)) => tensor.clone(),
            _ => unreachable!("no matrix named {name}"),
        }
    }

    /// A projection's weight as products take it.
    fn matrix(&self, name: &str) -> Tensor<2> {
        self.rounded(self.stored(&format!("{name}.weight")))
    }

    fn rounded<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        if self.dtype == FloatDType::F32 { tensor } else { tensor.cast(self.dtype) }
    }

    fn vector(&self, name: &str) -> Tensor<1> {
        match self.weights.get(name) {
            Some(Weight::Vector(tensor)) => tensor.clone(),
            _ => unreachable!("no vector named {name}"),
        }
    }
}

fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
