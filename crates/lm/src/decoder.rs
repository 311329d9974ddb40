//! The forward pass on Burn tensors, for training and scoring on any device.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use zerosearch_generate::{Stream, TokenId};
use zerosearch_kernels::{self as kernels, AttentionShape};

use crate::lora::{a_name, b_name};
use crate::{HostTensor, HostWeights, LoraConfig, ModelConfig};

/// One parameter on a device.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A projection `[out, in]` or an embedding `[vocab, hidden]`.
    Matrix(Tensor<2>),
    /// A norm or a bias.
    Vector(Tensor<1>),
}

/// Parameters, or anything that has one tensor for each of them (gradients, moments), by name.
pub type Weights = BTreeMap<String, Weight>;

/// A decoder whose parameters are leaves of an autodiff graph, or constants.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: ModelConfig,
    weights: Weights,
    adapters: Option<Adapters>,
    /// The seed of a training pass's dropout; other passes have none.
    dropout: Option<u64>,
    device: Device,
}

/// What is trained instead of the weights.
#[derive(Clone, Debug)]
struct Adapters {
    config: LoraConfig,
    weights: Weights,
}

/// A token sequence and the positions in it whose tokens are to be scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredSequence<'a> {
    /// The whole sequence.
    pub tokens: &'a [TokenId],
    /// Indices into `tokens`, ascending, each at least 1: a token is scored given all before it. [`Decoder::features`]
    /// takes `tokens.len()` as well, the place of a token to come.
    pub positions: &'a [usize],
}

impl Decoder {
    /// Parameters that are constants: for reference log-probabilities. Weights that are given away, not lent, are not
    /// copied on the CPU; so with the other constructors.
    pub fn frozen<'w>(config: &ModelConfig, weights: impl Into<Cow<'w, HostWeights>>, device: &Device) -> Self {
        let weights = on_device(weights.into(), device);
        Self { config: config.clone(), weights, adapters: None, dropout: None, device: device.clone() }
    }

    /// Parameters that collect gradients.
    pub fn trainable<'w>(config: &ModelConfig, weights: impl Into<Cow<'w, HostWeights>>, device: &Device) -> Self {
        let mut decoder = Self::frozen(config, weights, device);
        decoder.weights.values_mut().for_each(Weight::track);
        decoder
    }

    /// Parameters that are constants, with adapters (see [`LoraConfig::initial`]) that collect gradients.
    pub fn with_lora<'w>(
        config: &ModelConfig,
        weights: impl Into<Cow<'w, HostWeights>>,
        lora: &LoraConfig,
        adapters: &HostWeights,
        device: &Device,
    ) -> Self {
        Self::frozen(config, weights, device).with_adapters(lora, adapters)
    }

    /// The same weights with other adapters, which collect gradients.
    pub fn with_adapters(&self, lora: &LoraConfig, adapters: &HostWeights) -> Self {
        let weights = on_device(Cow::Borrowed(adapters), &self.device);
        let mut adapters = Adapters { config: lora.clone(), weights };
        adapters.weights.values_mut().for_each(Weight::track);
        Self { adapters: Some(adapters), ..self.clone() }
    }

    /// The same weights without the adapters: the reference policy, at no memory.
    pub fn without_lora(&self) -> Self {
        Self { adapters: None, ..self.clone() }
    }

    /// The same parameters, adapters included, as constants; they share their memory.
    pub fn without_autodiff(&self) -> Self {
        let constants = |weights: &Weights| -> Weights {
            weights.iter().map(|(name, weight)| (name.clone(), weight.without_autodiff())).collect()
        };
        let adapters = self.adapters.as_ref();
        let adapters = adapters.map(|a| Adapters { config: a.config.clone(), weights: constants(&a.weights) });
        Self { weights: constants(&self.weights), adapters, ..self.clone() }
    }

    /// A copy on another device, whose parameters collect gradients of their own.
    pub fn replica(&self, device: &Device) -> Self {
        let on = |weights: &Weights, trained: bool| -> Weights {
            weights.iter().map(|(name, weight)| (name.clone(), weight.copy_to(device, trained))).collect()
        };
        let adapters = self.adapters.as_ref();
        let adapters = adapters.map(|a| Adapters { config: a.config.clone(), weights: on(&a.weights, true) });
        let trained = adapters.is_none() && self.weights.values().any(Weight::is_tracked);
        let (config, weights) = (self.config.clone(), on(&self.weights, trained));
        Self { config, weights, adapters, dropout: None, device: device.clone() }
    }

    /// Takes over what another copy has been trained to be.
    pub fn copy_trained(&mut self, from: &Self) {
        let device = self.device.clone();
        for (name, weight) in from.trained() {
            self.trained_mut().insert(name.clone(), weight.copy_to(&device, true));
        }
    }

    /// What is trained: the adapters where there are some, else the weights.
    pub fn trained(&self) -> &Weights {
        self.adapters.as_ref().map_or(&self.weights, |adapters| &adapters.weights)
    }

    /// What is trained, to be replaced by an optimizer.
    pub fn trained_mut(&mut self) -> &mut Weights {
        self.adapters.as_mut().map_or(&mut self.weights, |adapters| &mut adapters.weights)
    }

    /// The adapters and their configuration, copied to the host.
    pub fn lora(&self) -> Option<(&LoraConfig, HostWeights)> {
        self.adapters.as_ref().map(|adapters| (&adapters.config, on_host(&adapters.weights)))
    }

    /// The same parameters for one training pass: its adapters drop elements of their inputs as
    /// [`LoraConfig::dropout`] says, drawn from this stream. Nothing changes where that is 0 or there are no adapters.
    /// The pass's gradients are those of `self`'s parameters.
    pub fn with_dropout(&self, stream: Stream) -> Self {
        let drops = self.adapters.as_ref().is_some_and(|adapters| adapters.config.dropout > 0.0);
        Self { dropout: drops.then(|| stream.value()), ..self.clone() }
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its parameters by name.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Copies one parameter after another to the host, by name, with the adapters merged into it.
    pub fn parameters(&self) -> impl Fn(&str) -> Option<HostTensor> + '_ {
        let adapters = self.lora();
        move |name| {
            let mut tensor = self.weights.get(name)?.to_host();
            if let Some((lora, adapters)) = &adapters {
                lora.add_to(name, &mut tensor.values, adapters, lora.scale() as f32);
            }
            Some(tensor)
        }
    }

    /// Copies the parameters to the host, with the adapters merged into them.
    pub fn to_host(&self) -> HostWeights {
        let parameter = self.parameters();
        let mut host = HostWeights::default();
        self.weights.keys().filter_map(|name| Some((name, parameter(name)?))).for_each(|(name, tensor)| {
            host.insert(name.clone(), tensor);
        });
        host
    }

    /// Natural log-probabilities of the scored tokens, and the entropies of the distributions they were
    /// scored under; both `[n]`, in the order of sequences and positions. The output head is applied at
    /// scored positions only.
    pub fn score(&self, sequences: &[ScoredSequence<'_>]) -> (Tensor<1>, Tensor<1>) {
        let targets: Vec<i32> =
            sequences.iter().flat_map(|s| s.positions.iter().map(|p| s.tokens[*p] as i32)).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [targets.len()]), &self.device);
        kernels::token_logprobs(self.features(sequences), self.head(), targets)
    }

    /// The normalised last hidden states from which the scored tokens are predicted, `[n, hidden]`.
    pub fn features(&self, sequences: &[ScoredSequence<'_>]) -> Tensor<2> {
        // Nothing behind the last scored token can matter, by causality.
        let used = |s: &ScoredSequence<'_>| s.positions.last().copied().unwrap_or(1).max(1);
        let time = sequences.iter().map(used).max().unwrap_or(1);
        let mut ids = vec![0i32; sequences.len() * time];
        let mut rows = Vec::new();
        for (b, sequence) in sequences.iter().enumerate() {
            let length = used(sequence).min(sequence.tokens.len());
            for (slot, token) in ids[b * time..].iter_mut().zip(&sequence.tokens[..length]) {
                *slot = *token as i32;
            }
            rows.extend(sequence.positions.iter().map(|p| (b * time + p - 1) as i32));
        }
        let hidden = self.hidden(ids, sequences.len(), time);
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows.clone(), [rows.len()]), &self.device);
        kernels::rms_norm(hidden.select(0, rows), self.vector("model.norm.weight"), self.config.rms_norm_eps)
    }

    /// The output projection `[vocab, hidden]`.
    pub fn head(&self) -> Tensor<2> {
        self.matrix(if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" })
    }

    /// Hidden states before the last norm, `[batch · time, hidden]`. Padding stands on the right,
    /// where causality hides it from every real token.
    fn hidden(&self, ids: Vec<i32>, batch: usize, time: usize) -> Tensor<2> {
        let c = &self.config;
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [batch * time]), &self.device);
        let (cos, sin) = c.rotary_tables(0..time);
        let table =
            |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [time, c.head_dim / 2]), &self.device);
        let (cos, sin) = (table(cos), table(sin));
        let shape = AttentionShape { batch, time, heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim };
        let mut x = self.matrix("model.embed_tokens.weight").select(0, ids);
        for layer in 0..c.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let h = kernels::rms_norm(x.clone(), self.vector(&name("input_layernorm.weight")), c.rms_norm_eps);
            let head_norm = |values: Tensor<2>, part: &str, heads: usize| {
                if !c.qk_norm {
                    return values;
                }
                let rows = values.reshape([batch * time * heads, c.head_dim]);
                kernels::rms_norm(rows, self.vector(&name(part)), c.rms_norm_eps)
                    .reshape([batch * time, heads * c.head_dim])
            };
            let q = head_norm(self.linear(h.clone(), &name("self_attn.q_proj")), "self_attn.q_norm.weight", c.heads);
            let k = head_norm(self.linear(h.clone(), &name("self_attn.k_proj")), "self_attn.k_norm.weight", c.kv_heads);
            let v = self.linear(h, &name("self_attn.v_proj"));
            let q = kernels::rotary(q, cos.clone(), sin.clone(), c.heads);
            let k = kernels::rotary(k, cos.clone(), sin.clone(), c.kv_heads);
            x = x + self.linear(kernels::causal_attention(q, k, v, shape), &name("self_attn.o_proj"));
            let h = kernels::rms_norm(x.clone(), self.vector(&name("post_attention_layernorm.weight")), c.rms_norm_eps);
            let gated =
                kernels::swiglu(self.linear(h.clone(), &name("mlp.gate_proj")), self.linear(h, &name("mlp.up_proj")));
            x = x + self.linear(gated, &name("mlp.down_proj"));
        }
        x
    }

    fn linear(&self, x: Tensor<2>, name: &str) -> Tensor<2> {
        let adapted = self.adapters.as_ref().and_then(|adapters| {
            let matrix = |name: String| match adapters.weights.get(&name) {
                Some(Weight::Matrix(tensor)) => Some(tensor.clone()),
                _ => None,
            };
            let seen = match self.dropout {
                Some(seed) => {
                    let factors = adapters.config.dropout_factors(seed, name, x.dims().iter().product());
                    x.clone().mul(Tensor::from_data(TensorData::new(factors, x.dims()), &self.device))
                }
                None => x.clone(),
            };
            let low = kernels::linear(seen, matrix(a_name(name))?);
            Some(kernels::linear(low, matrix(b_name(name))?).mul_scalar(adapters.config.scale()))
        });
        let y = kernels::linear(x, self.matrix(&format!("{name}.weight")));
        let y = match adapted {
            Some(adapted) => y + adapted,
            None => y,
        };
        match self.weights.get(&format!("{name}.bias")) {
            Some(Weight::Vector(bias)) => y + bias.clone().unsqueeze::<2>(),
            _ => y,
        }
    }

    // The names below come from `ModelConfig::tensor_shapes`, which loading has checked against the
    // weights, so a missing one is a defect of this file.
    fn matrix(&self, name: &str) -> Tensor<2> {
        match self.weights.get(name) {
            Some(Weight::Matrix(tensor)) => tensor.clone(),
            _ => unreachable!("no matrix named {name}"),
        }
    }

    fn vector(&self, name: &str) -> Tensor<1> {
        match self.weights.get(name) {
            Some(Weight::Vector(tensor)) => tensor.clone(),
            _ => unreachable!("no vector named {name}"),
        }
    }
}

fn on_device(weights: Cow<'_, HostWeights>, device: &Device) -> Weights {
    let weight = |(name, tensor)| (name, Weight::from_host(tensor, device));
    match weights {
        Cow::Owned(weights) => weights.into_tensors().into_iter().map(weight).collect(),
        // One tensor is copied after another, not all at once.
        Cow::Borrowed(weights) => weights.iter().map(|(name, tensor)| weight((name.into(), tensor.clone()))).collect(),
    }
}

fn on_host(weights: &Weights) -> HostWeights {
    let mut host = HostWeights::default();
    weights.iter().for_each(|(name, weight)| host.insert(name.clone(), weight.to_host()));
    host
}

impl Weight {
    /// Takes values to a device.
    pub fn from_host(tensor: HostTensor, device: &Device) -> Self {
        let HostTensor { shape, values } = tensor;
        let dimensions = shape.len();
        let data = TensorData::new(values, shape);
        if dimensions == 2 {
            Self::Matrix(Tensor::from_data(data, device))
        } else {
            Self::Vector(Tensor::from_data(data, device))
        }
    }

    /// Copies values to the host.
    pub fn to_host(&self) -> HostTensor {
        let data = match self {
            Self::Matrix(tensor) => tensor.clone().without_autodiff().into_data(),
            Self::Vector(tensor) => tensor.clone().without_autodiff().into_data(),
        };
        let shape = data.shape().to_vec();
        let values = data.convert::<f32>().try_into_vec::<f32>().unwrap_or_default();
        HostTensor { shape, values }
    }

    /// The same values as a constant.
    fn without_autodiff(&self) -> Self {
        match self.clone() {
            Self::Matrix(tensor) => Self::Matrix(tensor.without_autodiff()),
            Self::Vector(tensor) => Self::Vector(tensor.without_autodiff()),
        }
    }

    /// The same values on a device, as a constant or as a leaf that collects a gradient.
    fn copy_to(&self, device: &Device, tracked: bool) -> Self {
        let mut copy = match self.without_autodiff() {
            Self::Matrix(tensor) => Self::Matrix(tensor.to_device(device)),
            Self::Vector(tensor) => Self::Vector(tensor.to_device(device)),
        };
        if tracked {
            copy.track();
        }
        copy
    }

    fn is_tracked(&self) -> bool {
        match self {
            Self::Matrix(tensor) => tensor.is_require_grad(),
            Self::Vector(tensor) => tensor.is_require_grad(),
        }
    }

    /// Makes it a leaf that collects a gradient.
    pub fn track(&mut self) {
        *self = match self.clone() {
            Self::Matrix(tensor) => Self::Matrix(tensor.without_autodiff().autodiff().require_grad()),
            Self::Vector(tensor) => Self::Vector(tensor.without_autodiff().autodiff().require_grad()),
        };
    }
}
