//! Gradients by name, their global norm, and AdamW with state that a checkpoint can hold.
//!
//! Burn's optimizers key their records by parameter ids drawn at random, so the record of one process
//! does not fit the parameters of the next; a resumed run needs names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Gradients as BurnGradients, Tensor};
use serde::{Deserialize, Serialize};
use zerosearch_kernels::{self as kernels, AdamWRule, SquareSum, WeightCopy};

use crate::stored::{Stored, read_file, stage_tensors};
use crate::{HostTensor, LmError, StoredDtype, Weight};

/// Gradients by parameter name, without autodiff.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Weight>);

impl Gradients {
    /// Back-propagates a scalar loss and collects the gradients of these parameters. A parameter that
    /// the loss does not depend on has none.
    pub fn of<'w>(loss: Tensor<1>, weights: impl IntoIterator<Item = (&'w str, &'w Weight)>) -> Self {
        let mut all = loss.backward();
        Self::take(&mut all, weights)
    }

    /// Collects the gradients of these parameters from a backward pass that is already done.
    pub fn take<'w>(all: &mut BurnGradients, weights: impl IntoIterator<Item = (&'w str, &'w Weight)>) -> Self {
        let mut gradient = |weight: &Weight| match weight {
            Weight::Matrix(tensor) => tensor.grad_remove(all).map(Weight::Matrix),
            Weight::Vector(tensor) => tensor.grad_remove(all).map(Weight::Vector),
        };
        let gradients = weights.into_iter().filter_map(|(name, weight)| Some((name.into(), gradient(weight)?)));
        Self(gradients.collect())
    }

    /// Adds another micro-batch's gradients.
    pub fn add(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            let sum = match (self.0.remove(&name), gradient) {
                (Some(Weight::Matrix(a)), Weight::Matrix(b)) => Weight::Matrix(kernels::add(a, b)),
                (Some(Weight::Vector(a)), Weight::Vector(b)) => Weight::Vector(kernels::add(a, b)),
                (_, gradient) => gradient,
            };
            self.0.insert(name, sum);
        }
    }

    /// The same gradients on another device.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        let on = |weight| match weight {
            Weight::Matrix(tensor) => Weight::Matrix(tensor.to_device(device)),
            Weight::Vector(tensor) => Weight::Vector(tensor.to_device(device)),
        };
        Self(self.0.into_iter().map(|(name, gradient)| (name, on(gradient))).collect())
    }

    /// Multiplies every gradient.
    pub fn scale(&mut self, factor: f64) {
        // Taken out of the map, so that nothing else holds what is multiplied in place.
        for (name, gradient) in std::mem::take(&mut self.0) {
            let scaled = match gradient {
                Weight::Matrix(tensor) => Weight::Matrix(kernels::scale(tensor, factor)),
                Weight::Vector(tensor) => Weight::Vector(kernels::scale(tensor, factor)),
            };
            self.0.insert(name, scaled);
        }
    }

    /// The Euclidean norm over all parameters together.
    pub fn norm(&self) -> f64 {
        let mut squares = SquareSum::default();
        for gradient in self.0.values() {
            match gradient {
                Weight::Matrix(tensor) => squares.add(tensor.clone()),
                Weight::Vector(tensor) => squares.add(tensor.clone()),
            }
        }
        squares.total().sqrt()
    }

    /// Scales all gradients down together when their norm exceeds `limit`. Returns the norm before.
    pub fn clip(&mut self, limit: f64) -> f64 {
        let norm = self.norm();
        if norm.is_finite() && norm > limit {
            self.scale(limit / norm);
        }
        norm
    }

    /// The gradient of one parameter.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }
}

/// Parameters of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of matrices; norms and biases never decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// A generator's copies of the weights, by name: see [`Refit::lend_copies`](crate::Refit::lend_copies).
#[derive(Clone, Debug)]
pub struct WeightCopies(pub(crate) BTreeMap<String, WeightCopy>);

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: BTreeMap<String, (Weight, Weight)>,
    copies: BTreeMap<String, WeightCopy>,
}

impl AdamW {
    /// Without any state.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: BTreeMap::new(), copies: BTreeMap::new() }
    }

    /// Has all further steps write these copies of the weights as well, and none that it was given before.
    pub fn write_also(&mut self, copies: Option<WeightCopies>) {
        self.copies = copies.map(|copies| copies.0).unwrap_or_default();
    }

    /// Updates every parameter that has a gradient, and uses the gradients up.
    pub fn step<'w>(
        &mut self,
        weights: impl IntoIterator<Item = (&'w str, &'w mut Weight)>,
        mut gradients: Gradients,
        learning_rate: f64,
    ) {
        self.step += 1;
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let rule = AdamWRule { beta1, beta2, epsilon, weight_decay, learning_rate, step: self.step };
        for (name, weight) in weights {
            let Some(gradient) = gradients.0.remove(name) else { continue };
            let (moments, copy) = (self.moments.remove(name), self.copies.get(name));
            // A tensor is taken out of the map before its update: only then can it be written in place.
            let [mut updated, first, second] = match (weight.take(), gradient) {
                (Weight::Matrix(w), gradient) => {
                    let moments = moments.map(|(m, v)| (m.into_matrix(), v.into_matrix()));
                    let updated = kernels::adamw(w.without_autodiff(), gradient.into_matrix(), moments, &rule, copy);
                    updated.map(Weight::Matrix)
                }
                (Weight::Vector(w), gradient) => {
                    let moments = moments.map(|(m, v)| (m.into_vector(), v.into_vector()));
                    let rule = AdamWRule { weight_decay: 0.0, ..rule };
                    let updated = kernels::adamw(w.without_autodiff(), gradient.into_vector(), moments, &rule, copy);
                    updated.map(Weight::Vector)
                }
            };
            updated.track();
            *weight = updated;
            self.moments.insert(name.into(), (first, second));
        }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Writes step and moments as one safetensors file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LmError> {
        let path = path.as_ref();
        // Two halves, each exact in f32.
        let step = [(self.step >> 20) as f32, (self.step & 0xf_ffff) as f32];
        let step = HostTensor { shape: vec![2], values: step.to_vec() };
        let mut tensors = vec![Stored::of("step", &step, StoredDtype::F32)];
        for (name, (first, second)) in &self.moments {
            for (kind, moment) in [("exp_avg", first), ("exp_avg_sq", second)] {
                // Copied to the host one after another.
                let values = Box::new(|| Cow::Owned(moment.to_host().values));
                let (name, shape) = (format!("{kind}.{name}"), moment.shape());
                tensors.push(Stored { name, dtype: StoredDtype::F32, shape, values });
            }
        }
        stage_tensors(path, tensors)?.publish()?;
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file is missing, cut short, or not of this form.
    pub fn read(config: AdamWConfig, path: impl AsRef<Path>, device: &Device) -> Result<Self, LmError> {
        let path = path.as_ref();
        let (mut tensors, _) = read_file(path)?;
        let step = match tensors.get("step").map(|tensor| tensor.values.as_slice()) {
            Some([high, low]) => ((*high as u64) << 20) + *low as u64,
            _ => return Err(LmError::file(path, "has no `step`: not a state that this optimizer wrote")),
        };
        let mut moments = BTreeMap::new();
        let names: Vec<String> =
            tensors.keys().filter_map(|key| key.strip_prefix("exp_avg.")).map(String::from).collect();
        for name in names {
            let mut moment = |kind: &str| match tensors.remove(&format!("{kind}.{name}")) {
                Some(tensor) => Ok(Weight::from_host(tensor, device)),
                None => Err(LmError::Tensor {
                    path: path.into(),
                    name: format!("{kind}.{name}"),
                    message: "is missing".into(),
                }),
            };
            let moment = (moment("exp_avg")?, moment("exp_avg_sq")?);
            moments.insert(name, moment);
        }
        Ok(Self { config, step, moments, copies: BTreeMap::new() })
    }
}
