//! New weights for a generator after an update of the policy.

use burn::tensor::Device;
use zerosearch_generate::{GenerateError, RolloutGenerator, Statistics, WeightVersion};

use crate::{Decoder, LanguageModel, LmError, LocalGenerator, WeightCopies, WeightDtype};

/// A generator of the policy that is trained: it takes the trainer's weights after every update.
///
/// [`LocalGenerator`] copies them; an engine behind a network is made to load a folder that they are written to.
pub trait Refit: RolloutGenerator {
    /// Samples with the weights of `policy`, its adapters merged, from now on, and calls them `version`. Live sequences
    /// keep the caches that older weights computed.
    ///
    /// # Errors
    /// When the weights cannot be taken; the generator then has those that it had, or none if it slept.
    fn refit(&mut self, policy: &Decoder, version: WeightVersion) -> Result<(), LmError>;

    /// Its own copies of the weights of `policy`, which it was given last, for the optimizer that changes them to
    /// [write as well](crate::AdamW::write_also). It must not decode until it is told that they are [written](Self::take_written),
    /// which takes the place of a refit. `None`, the default, where it has none beside them: on the CPU, on another device, behind a
    /// network, or of a policy with adapters.
    fn lend_copies(&mut self, _policy: &Decoder) -> Option<WeightCopies> {
        None
    }

    /// Samples with what an optimizer has written into the copies that it [lent](Self::lend_copies), and calls it `version`. Live
    /// sequences keep the caches that older weights computed.
    fn take_written(&mut self, _version: WeightVersion) {}
}

/// The generator that fits a model and a device, with weights of this type: a policy that is trained on `device` is decoded
/// there.
///
/// # Errors
/// When a tensor is missing or of another shape than the configuration says.
pub fn generator_for(model: &LanguageModel, device: &Device, dtype: WeightDtype) -> Result<Box<dyn Refit>, LmError> {
    Ok(Box::new(LocalGenerator::on(device, dtype, &model.config, &model.weights, model.codec.eos_ids())?))
}

impl RolloutGenerator for LocalGenerator {
    /// Gives back the memory of the weights and of the caches of released sequences. Polling fails until there are other
    /// weights.
    fn sleep(&mut self) -> Result<(), GenerateError> {
        self.drop_recent();
        self.engine.clear();
        Ok(())
    }

    fn limit_cache(&mut self, bytes: usize) {
        self.cache_bytes = bytes;
        self.bound_recent();
    }

    /// The caches of released sequences are dropped: the next counts would depend on them.
    fn take_statistics(&mut self) -> Statistics {
        let taken = self.statistics();
        self.drop_recent();
        self.statistics = Statistics::default();
        self.blocks.reset_peak();
        taken
    }
}

impl Refit for LocalGenerator {
    fn refit(&mut self, policy: &Decoder, version: WeightVersion) -> Result<(), LmError> {
        self.refit_from(policy, version)
    }

    fn lend_copies(&mut self, policy: &Decoder) -> Option<WeightCopies> {
        // Adapters are trained beside the weights that it decodes with.
        let has_adapters = policy.lora.is_some();
        if has_adapters { None } else { self.engine.lend(policy.device()).map(WeightCopies) }
    }

    fn take_written(&mut self, version: WeightVersion) {
        self.engine.take_written();
        self.now_at(version);
    }
}
