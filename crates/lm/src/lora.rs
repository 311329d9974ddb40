//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use zerosearch_generate::stream_seed;
use zerosearch_kernels::host::merge_adapter;

use crate::network::{Projection, Role, TensorSpec};
use crate::{HostTensor, HostWeights, LmError, ModelConfig};

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Adapters instead of whole matrices: `y = W·x + (alpha / rank)·B·(A·x)`, of which only `A` and `B` are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The update's weight is `alpha / rank`.
    pub alpha: f64,
    /// PEFT's `lora_dropout`: the probability with which an adapter does not see an element of its input in a training
    /// pass (see [`Decoder::with_dropout`](crate::Decoder::with_dropout)); what it sees is divided by one minus this.
    /// Sampling and the reference know no dropout, so in RL it makes the trained policy differ from the one that
    /// sampled: the ratio and `rollout/logprob_gap` then hold its noise.
    pub dropout: f64,
    /// Which projections have adapters, in every layer.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.0, target_modules: modules().map(String::from).to_vec() }
    }
}

impl LoraConfig {
    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), LmError> {
        let refuse = |key: &str, value: String, expected: String| {
            Err(LmError::Config { path: "lora".into(), key: key.into(), value, expected })
        };
        if self.rank == 0 {
            return refuse("rank", "0".into(), "at least 1".into());
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("alpha", self.alpha.to_string(), "a finite number above 0".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", self.dropout.to_string(), "at least 0 and below 1".into());
        }
        match self.target_modules.iter().find(|name| !modules().contains(&name.as_str())) {
            Some(name) => refuse("target_modules", format!("`{name}`"), modules().join(", ")),
            None if self.target_modules.is_empty() => refuse("target_modules", "empty".into(), modules().join(", ")),
            None => Ok(()),
        }
    }

    /// `alpha / rank`.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Dropout of a module's input in the pass of this seed, as factors: 0 for what is dropped, else what keeps the mean.
    pub(crate) fn dropout_factors(&self, seed: u64, module: &str, count: usize) -> Vec<f32> {
        let name = module.bytes().fold(0, |hash, byte| stream_seed(&[hash, u64::from(byte)]));
        let mut rng = ChaCha8Rng::seed_from_u64(stream_seed(&[seed, name]));
        let threshold = (self.dropout * 2f64.powi(32)) as u32;
        let kept = (1.0 / (1.0 - self.dropout)) as f32;
        (0..count).map(|_| if rng.next_u32() < threshold { 0.0 } else { kept }).collect()
    }

    /// Adapters that change nothing yet: `A` uniform in `±1/sqrt(in)`, as PEFT draws it, and `B` zero. Named
    /// `{module}.lora_A.weight` `[rank, in]` and `{module}.lora_B.weight` `[out, rank]`.
    pub fn initial(&self, config: &ModelConfig, seed: u64) -> HostWeights {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut adapters = HostWeights::default();
        for spec in config.tensors().iter() {
            let Some((_, [a, b])) = self.adapter_of(spec) else { continue };
            let columns: usize = a.shape.iter().skip(1).product();
            let bound = 1.0 / (columns as f64).sqrt();
            let mut draw = || ((f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) * bound) as f32;
            let values = (0..self.rank * columns).map(|_| draw()).collect();
            adapters.insert(a.name, HostTensor { shape: a.shape, values });
            let zeros = vec![0.0; b.shape.iter().product()];
            adapters.insert(b.name, HostTensor { shape: b.shape, values: zeros });
        }
        adapters
    }

    /// The module whose weight this is and its adapter's two matrices, if it is one that has adapters.
    pub(crate) fn adapter_of<'a>(&self, spec: &'a TensorSpec) -> Option<(&'a str, [TensorSpec; 2])> {
        let (Role::Projection(projection), &[rows, columns]) = (spec.role, spec.shape.as_slice()) else { return None };
        if !self.target_modules.iter().any(|target| target == projection.name()) {
            return None;
        }
        let module = spec.name.strip_suffix(".weight")?;
        let [a, b] = names(module);
        let shapes = [(a, vec![self.rank, columns]), (b, vec![rows, self.rank])];
        Some((module, shapes.map(|(name, shape)| TensorSpec { name, shape, role: spec.role })))
    }

    /// Adds the adapters to the weights: `W + scale·B·A`.
    ///
    /// # Errors
    /// When an adapter lacks one of its two matrices, or its weight is missing.
    pub fn merge(&self, weights: &mut HostWeights, adapters: &HostWeights) -> Result<(), LmError> {
        add(weights, adapters, self.scale() as f32)
    }

    /// Takes merged adapters out again, up to rounding.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn unmerge(&self, weights: &mut HostWeights, adapters: &HostWeights) -> Result<(), LmError> {
        add(weights, adapters, -self.scale() as f32)
    }
}

/// PEFT's names of an adapter's two matrices.
fn names(module: &str) -> [String; 2] {
    [A, B].map(|suffix| format!("{module}{suffix}"))
}

/// The projections that can be adapted.
fn modules() -> [&'static str; 7] {
    Projection::ALL.map(Projection::name)
}

fn add(weights: &mut HostWeights, adapters: &HostWeights, scale: f32) -> Result<(), LmError> {
    for (name, a) in adapters.iter() {
        let Some(module) = name.strip_suffix(A) else { continue };
        let [_, b] = names(module);
        let b = adapters.get(&b).ok_or_else(|| LmError::tensor(&b, "is missing"))?;
        merge_adapter(weights.values_mut(&format!("{module}.weight"))?, &a.values, &b.values, a.shape[1], scale);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let lora = LoraConfig { dropout: 0.2, ..LoraConfig::default() };
        let factors = lora.dropout_factors(3, "a", 100_000);
        assert!(factors.iter().all(|factor| [0.0, 1.25].contains(factor)));
        let dropped = factors.iter().filter(|factor| **factor == 0.0).count();
        // Within five standard deviations.
        assert!(dropped.abs_diff(20_000) < 640, "{dropped}");
        assert_ne!(factors, lora.dropout_factors(3, "b", 100_000), "modules draw for themselves");
        assert_ne!(factors, lora.dropout_factors(4, "a", 100_000), "passes draw for themselves");
    }
}
