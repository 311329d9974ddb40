//! The parameters of a decoder on a device, with or without gradients and adapters.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Tensor};
use zerosearch_generate::Stream;
use zerosearch_kernels::host;
#[cfg(feature = "cube")]
use zerosearch_kernels::merge_adapter;

use crate::network::{Network, TensorSpec};
use crate::{GpuProducts, HostTensor, HostWeights, LmError, LoraConfig, ModelConfig, Weight, WeightDtype};

/// A decoder whose parameters are leaves of an autodiff graph, or constants.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) network: Network<Parameter>,
    /// Parameters beyond the architecture's.
    extra: Vec<Named>,
    /// The adapters, which are trained instead of the weights.
    pub(crate) lora: Option<LoraConfig>,
    /// The seed of a training pass's dropout; other passes have none.
    pub(crate) dropout: Option<u64>,
    /// The type of activations.
    pub(crate) dtype: FloatDType,
    /// The type that matrices are rounded to before a product.
    pub(crate) weights: FloatDType,
    pub(crate) device: Device,
}

/// A tensor of the architecture, with its adapter where it has one.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) base: Named,
    pub(crate) adapter: Option<Adapter>,
}

/// The two matrices beside a projection's weight.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    /// The projection's name, by which it draws its dropout.
    pub(crate) module: Arc<str>,
    pub(crate) a: Named,
    pub(crate) b: Named,
}

/// A tensor and its name in files.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) weight: Weight,
}

impl Decoder {
    /// Parameters that are constants: for reference log-probabilities. Weights that are given away, not lent, are not
    /// copied on the CPU; so with the other constructors. Tensors that are not the architecture's are kept beside it
    /// (see [`extra`](Self::extra)).
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says; so with the other constructors.
    pub fn frozen<'w>(
        config: &ModelConfig,
        weights: impl Into<Cow<'w, HostWeights>>,
        device: &Device,
    ) -> Result<Self, LmError> {
        let mut weights = weights.into();
        let network = Network::build::<LmError>(config, |spec| {
            // One tensor is copied after another, not all at once.
            let tensor = match &mut weights {
                Cow::Owned(weights) => weights.remove(&spec.name),
                Cow::Borrowed(weights) => weights.get(&spec.name).cloned(),
            };
            Ok(Parameter { base: Named::from_host(&spec, tensor, device)?, adapter: None })
        })?;
        let known: BTreeSet<&str> = network.iter().map(|parameter| &*parameter.base.name).collect();
        let extra = weights.iter().filter(|(name, _)| !known.contains(name));
        let extra =
            extra.map(|(name, tensor)| Named { name: name.into(), weight: Weight::from_host(tensor.clone(), device) });
        let bf16 = WeightDtype::default_on(device) == WeightDtype::Bf16;
        let (extra, config, device) = (extra.collect(), config.clone(), device.clone());
        Ok(Self {
            config,
            network,
            extra,
            lora: None,
            dropout: None,
            dtype: FloatDType::F32,
            weights: FloatDType::F32,
            device,
        }
        .with_bf16_weights(bf16))
    }

    /// Parameters that collect gradients.
    ///
    /// # Errors
    /// As [`frozen`](Self::frozen).
    pub fn trainable<'w>(
        config: &ModelConfig,
        weights: impl Into<Cow<'w, HostWeights>>,
        device: &Device,
    ) -> Result<Self, LmError> {
        let mut decoder = Self::frozen(config, weights, device)?;
        decoder.trained_mut().into_iter().for_each(|(_, weight)| weight.track());
        Ok(decoder)
    }

    /// Parameters that are constants, with adapters (see [`LoraConfig::initial`]) that collect gradients.
    ///
    /// # Errors
    /// As [`frozen`](Self::frozen), also of the adapters.
    pub fn with_lora<'w>(
        config: &ModelConfig,
        weights: impl Into<Cow<'w, HostWeights>>,
        lora: &LoraConfig,
        adapters: &HostWeights,
        device: &Device,
    ) -> Result<Self, LmError> {
        Self::frozen(config, weights, device)?.with_adapters(lora, adapters)
    }

    /// The same weights with other adapters, which collect gradients.
    ///
    /// # Errors
    /// When an adapter is missing or of another shape than the two configurations say.
    pub fn with_adapters(&self, lora: &LoraConfig, adapters: &HostWeights) -> Result<Self, LmError> {
        let mut decoder = Self { lora: Some(lora.clone()), ..self.clone() };
        for (parameter, spec) in decoder.network.iter_mut().zip(self.config.tensors().iter()) {
            parameter.adapter = match lora.adapter_of(spec) {
                None => None,
                Some((module, specs)) => {
                    let [a, b] = specs.map(|spec| {
                        let named = Named::from_host(&spec, adapters.get(&spec.name).cloned(), &self.device);
                        named.map(Named::tracked)
                    });
                    Some(Adapter { module: module.into(), a: a?, b: b? })
                }
            };
        }
        Ok(decoder)
    }

    /// The same parameters, which a GPU multiplies in this way.
    pub fn with_products(self, products: GpuProducts) -> Self {
        let has_bf16 = WeightDtype::default_on(&self.device) == WeightDtype::Bf16;
        self.with_bf16_activations(has_bf16 && products == GpuProducts::Fast)
    }

    /// The same parameters, whose activations are in bf16, with matrices rounded alike, or in f32, as a decoder begins. Sums,
    /// exponentials and rotations are in f32 with either, and so are parameters and their gradients. The CPU's fused operations know
    /// activations in f32 only.
    pub fn with_bf16_activations(self, bf16: bool) -> Self {
        match bf16 {
            true => Self { dtype: FloatDType::BF16, weights: FloatDType::BF16, ..self },
            false => Self { dtype: FloatDType::F32, ..self },
        }
    }

    /// The same parameters, whose matrices are rounded to bf16 before a product or not; a decoder begins with what
    /// [`WeightDtype::default_on`] its device says. Sums and activations keep their type. So a
    /// generator with [weights in bf16](WeightDtype) computes. Parameters and their gradients stay in f32: a gradient
    /// goes through the rounding as if it were not there.
    pub fn with_bf16_weights(self, bf16: bool) -> Self {
        Self { weights: if bf16 { FloatDType::BF16 } else { self.dtype }, ..self }
    }

    /// The type of the weights that a generator must hold to compute as this decoder does.
    pub(crate) fn weight_dtype(&self) -> WeightDtype {
        if self.weights == FloatDType::BF16 { WeightDtype::Bf16 } else { WeightDtype::F32 }
    }

    /// The same weights without the adapters: the reference policy, at no memory.
    pub fn without_lora(&self) -> Self {
        let mut decoder = Self { lora: None, ..self.clone() };
        decoder.network.iter_mut().for_each(|parameter| parameter.adapter = None);
        decoder
    }

    /// The same parameters, adapters included, as constants; they share their memory.
    pub fn without_autodiff(&self) -> Self {
        let mut decoder = self.clone();
        decoder.tensors_mut().for_each(|tensor| tensor.weight = tensor.weight.without_autodiff());
        decoder
    }

    /// A copy on another device, whose parameters collect gradients of their own.
    pub fn replica(&self, device: &Device) -> Self {
        let trained = self.lora.is_some() || self.trained().iter().any(|(_, weight)| weight.is_tracked());
        let mut decoder = Self { dropout: None, device: device.clone(), ..self.clone() };
        decoder.tensors_mut().for_each(|tensor| tensor.weight = tensor.weight.copy_to(device, false));
        if trained {
            decoder.trained_mut().into_iter().for_each(|(_, weight)| weight.track());
        }
        decoder
    }

    /// Takes over what another copy has been trained to be.
    pub fn copy_trained(&mut self, from: &Self) {
        let device = self.device.clone();
        for ((_, weight), (_, trained)) in self.trained_mut().into_iter().zip(from.trained()) {
            *weight = trained.copy_to(&device, true);
        }
    }

    /// The trained tensors by name: the adapters where there are some, else the weights.
    pub fn trained(&self) -> Vec<(&str, &Weight)> {
        match &self.lora {
            Some(_) => self.adapters().flat_map(|Adapter { a, b, .. }| [a, b]).map(Named::pair).collect(),
            None => self.weights(),
        }
    }

    /// The trained tensors by name, to be replaced by an optimizer.
    pub fn trained_mut(&mut self) -> Vec<(&str, &mut Weight)> {
        let (network, extra) = (self.network.iter_mut(), self.extra.iter_mut());
        match &self.lora {
            Some(_) => {
                let adapters = network.filter_map(|parameter| parameter.adapter.as_mut());
                adapters.flat_map(|Adapter { a, b, .. }| [a, b]).map(Named::pair_mut).collect()
            }
            None => network.map(|parameter| &mut parameter.base).chain(extra).map(Named::pair_mut).collect(),
        }
    }

    /// Its parameters by name, without adapters.
    pub fn weights(&self) -> Vec<(&str, &Weight)> {
        self.network.iter().map(|parameter| &parameter.base).chain(&self.extra).map(Named::pair).collect()
    }

    /// A parameter beyond the architecture's, such as a critic's output layer.
    pub fn extra(&self, name: &str) -> Option<&Weight> {
        self.extra.iter().find(|tensor| &*tensor.name == name).map(|tensor| &tensor.weight)
    }

    /// Whether the embedding collects a gradient.
    pub(crate) fn trains_embedding(&self) -> bool {
        self.network.embedding.base.weight.is_tracked()
    }

    /// The adapters and their configuration, copied to the host.
    pub fn lora(&self) -> Option<(&LoraConfig, HostWeights)> {
        let lora = self.lora.as_ref()?;
        let mut host = HostWeights::default();
        self.trained().into_iter().for_each(|(name, weight)| host.insert(name, weight.to_host()));
        Some((lora, host))
    }

    /// The same parameters for one training pass: its adapters drop elements of their inputs as
    /// [`LoraConfig::dropout`] says, drawn from this stream. Nothing changes where that is 0 or there are no adapters.
    /// The pass's gradients are those of `self`'s parameters.
    pub fn with_dropout(&self, stream: Stream) -> Self {
        let drops = self.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0);
        Self { dropout: drops.then(|| stream.value()), ..self.clone() }
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies the parameters to the host, with the adapters merged into them.
    pub fn to_host(&self) -> HostWeights {
        let mut host = HostWeights::default();
        for parameter in self.network.iter() {
            host.insert(&*parameter.base.name, parameter.merged(self.scale()));
        }
        self.extra.iter().for_each(|tensor| host.insert(&*tensor.name, tensor.weight.to_host()));
        host
    }

    /// The factor of the adapters.
    pub(crate) fn scale(&self) -> f32 {
        self.lora.as_ref().map_or(0.0, |lora| lora.scale() as f32)
    }

    fn adapters(&self) -> impl Iterator<Item = &Adapter> {
        self.network.iter().filter_map(|parameter| parameter.adapter.as_ref())
    }

    /// Every tensor, adapters and those beyond the architecture included.
    fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Named> {
        let parameters = self.network.iter_mut().flat_map(|Parameter { base, adapter }| {
            let adapter = adapter.iter_mut().flat_map(|Adapter { a, b, .. }| [a, b]);
            std::iter::once(base).chain(adapter)
        });
        parameters.chain(&mut self.extra)
    }
}

impl Parameter {
    /// A copy on the host with the adapter, times this, merged into it.
    pub(crate) fn merged(&self, scale: f32) -> HostTensor {
        let mut tensor = self.base.weight.to_host();
        if let Some(Adapter { a, b, .. }) = &self.adapter {
            let (a, b) = (a.weight.to_host(), b.weight.to_host());
            host::merge_adapter(&mut tensor.values, &a.values, &b.values, a.shape[1], scale);
        }
        tensor
    }

    /// As [`merged`](Self::merged), on its device.
    #[cfg(feature = "cube")]
    pub(crate) fn merged_on_device(&self, scale: f32) -> Weight {
        match &self.adapter {
            None => self.base.weight.without_autodiff(),
            Some(Adapter { a, b, .. }) => {
                let [base, a, b] = [&self.base, a, b].map(|named| named.matrix().without_autodiff());
                Weight::Matrix(merge_adapter(base, a, b, scale))
            }
        }
    }
}

impl Named {
    fn from_host(spec: &TensorSpec, tensor: Option<HostTensor>, device: &Device) -> Result<Self, LmError> {
        let tensor = spec.found(tensor)?;
        spec.check_shape(&tensor.shape)?;
        Ok(Self { name: spec.name.as_str().into(), weight: Weight::from_host(tensor, device) })
    }

    pub(crate) fn matrix(&self) -> Tensor<2> {
        self.weight.clone().into_matrix()
    }

    pub(crate) fn vector(&self) -> Tensor<1> {
        self.weight.clone().into_vector()
    }

    fn tracked(mut self) -> Self {
        self.weight.track();
        self
    }

    fn pair(&self) -> (&str, &Weight) {
        (&self.name, &self.weight)
    }

    fn pair_mut(&mut self) -> (&str, &mut Weight) {
        (&self.name, &mut self.weight)
    }
}
