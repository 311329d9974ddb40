//! The source of an engine's weights.

use std::borrow::Cow;

use crate::decoder::Parameter;
use crate::network::Network;
use crate::{Decoder, HostTensor, HostWeights, LmError, ModelConfig};

/// Source of an engine's parameter.
pub(crate) enum Source<'a> {
    /// Weights on the host.
    Host(&'a HostTensor),
    /// A decoder, its adapter to be merged at this scale.
    Decoder(&'a Parameter, f32),
}

impl<'a> Source<'a> {
    /// The values, row-major; copied to the host only when they are asked for.
    pub(crate) fn values(&self) -> Cow<'a, [f32]> {
        match self {
            Self::Host(tensor) => Cow::Borrowed(&tensor.values),
            Self::Decoder(parameter, scale) => Cow::Owned(parameter.merged(*scale).values),
        }
    }

    /// The values in the memory of a GPU, where a decoder on it has them.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(&self) -> Option<zerosearch_kernels::cube::GpuBuffer> {
        match self {
            Self::Host(_) => None,
            Self::Decoder(parameter, scale) => parameter.merged_on_device(*scale).on_gpu(),
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
