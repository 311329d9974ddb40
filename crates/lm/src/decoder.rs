//! The parameters of a decoder on a device, with or without gradients and adapters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use zerosearch_generate::Stream;
use zerosearch_kernels::is_cpu;

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
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights,
    pub(crate) adapters: Option<Adapters>,
    /// The seed of a training pass's dropout; other passes have none.
    pub(crate) dropout: Option<u64>,
    /// What products are computed in.
    pub(crate) dtype: FloatDType,
    pub(crate) device: Device,
}

/// What is trained instead of the weights.
#[derive(Clone, Debug)]
pub(crate) struct Adapters {
    pub(crate) config: LoraConfig,
    pub(crate) weights: Weights,
}

impl Decoder {
    /// Parameters that are constants: for reference log-probabilities. Weights that are given away, not lent, are not
    /// copied on the CPU; so with the other constructors.
    pub fn frozen<'w>(config: &ModelConfig, weights: impl Into<Cow<'w, HostWeights>>, device: &Device) -> Self {
        let weights = on_device(weights.into(), device);
        let (config, device) = (config.clone(), device.clone());
        Self { config, weights, adapters: None, dropout: None, dtype: FloatDType::F32, device }.with_bf16(None)
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

    /// The same parameters, whose products are computed in bf16 or not; `None`, as a decoder begins: on a GPU they are.
    /// What is summed over a row, exponentiated or rotated is so in f32, and parameters and their gradients stay in f32.
    /// The CPU's fused operations know f32 only.
    pub fn with_bf16(self, bf16: Option<bool>) -> Self {
        let bf16 = bf16.unwrap_or_else(|| !is_cpu(&self.device));
        Self { dtype: if bf16 { FloatDType::BF16 } else { FloatDType::F32 }, ..self }
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
        Self { config, weights, adapters, dropout: None, dtype: self.dtype, device: device.clone() }
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

    /// Whether the embedding collects a gradient.
    pub(crate) fn trains_embedding(&self) -> bool {
        self.weights.get("model.embed_tokens.weight").is_some_and(Weight::is_tracked)
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

    /// Its dimensions.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Matrix(tensor) => tensor.dims().to_vec(),
            Self::Vector(tensor) => tensor.dims().to_vec(),
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
