//! Gradients by name, their global norm, and AdamW with state that a checkpoint can hold.
//!
//! Burn's optimizers key their records by parameter ids drawn at random, so the record of one process
//! does not fit the parameters of the next; a resumed run needs names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Gradients as BurnGradients, Tensor};
use serde::{Deserialize, Serialize};
use zerosearch_kernels::{self as kernels, AdamWRule};

use crate::stored::{Stored, read_file, stage_tensors};
use crate::{HostTensor, LmError, StoredDtype, Weight, Weights};

/// Gradients by parameter name, without autodiff.
#[derive(Clone, Debug, Default)]
pub struct Gradients(Weights);

impl Gradients {
    /// Back-propagates a scalar loss and collects the gradients of these parameters. A parameter that
    /// the loss does not depend on has none.
    pub fn of(loss: Tensor<1>, weights: &Weights) -> Self {
        let mut all = loss.backward();
        Self::take(&mut all, weights)
    }

    /// Collects the gradients of these parameters from a backward pass that is already done.
    pub fn take(all: &mut BurnGradients, weights: &Weights) -> Self {
        let gradient = |weight: &Weight, all: &mut BurnGradients| match weight {
            Weight::Matrix(tensor) => tensor.grad_remove(all).map(Weight::Matrix),
            Weight::Vector(tensor) => tensor.grad_remove(all).map(Weight::Vector),
        };
        Self(weights.iter().filter_map(|(name, weight)| Some((name.clone(), gradient(weight, all)?))).collect())
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
        // Taken out of the map, so that nobody else holds what is multiplied in place.
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
        let squares = self.0.values().map(|weight| match weight {
            Weight::Matrix(tensor) => kernels::square_sum(tensor.clone()),
            Weight::Vector(tensor) => kernels::square_sum(tensor.clone()),
        });
        squares.sum::<f64>().sqrt()
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

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: BTreeMap<String, (Weight, Weight)>,
}

impl AdamW {
    /// Without any state.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: BTreeMap::new() }
    }

    /// Updates every parameter that has a gradient, and uses the gradients up.
    pub fn step(&mut self, weights: &mut Weights, gradients: Gradients, learning_rate: f64) {
        self.step += 1;
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let rule = AdamWRule { beta1, beta2, epsilon, weight_decay, learning_rate, step: self.step };
        // What is updated is taken out of the maps: only then can it be written in place.
        for (name, gradient) in gradients.0 {
            let Some(weight) = weights.remove(&name) else { continue };
            let moments = self.moments.remove(&name);
            let [mut weight, first, second] = match (weight, gradient, moments) {
                (Weight::Matrix(w), Weight::Matrix(g), Some((Weight::Matrix(m), Weight::Matrix(v)))) => {
                    kernels::adamw(w.without_autodiff(), g, Some((m, v)), &rule).map(Weight::Matrix)
                }
                (Weight::Matrix(w), Weight::Matrix(g), _) => {
                    kernels::adamw(w.without_autodiff(), g, None, &rule).map(Weight::Matrix)
                }
                (Weight::Vector(w), Weight::Vector(g), moments) => {
                    let moments = moments.and_then(|pair| match pair {
                        (Weight::Vector(m), Weight::Vector(v)) => Some((m, v)),
                        _ => None,
                    });
                    let rule = AdamWRule { weight_decay: 0.0, ..rule };
                    kernels::adamw(w.without_autodiff(), g, moments, &rule).map(Weight::Vector)
                }
                (weight, ..) => {
                    weights.insert(name, weight);
                    continue;
                }
            };
            weight.track();
            weights.insert(name.clone(), weight);
            self.moments.insert(name, (first, second));
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
    pub fn save(&self, path: &Path) -> Result<(), LmError> {
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
    pub fn load(config: AdamWConfig, path: &Path, device: &Device) -> Result<Self, LmError> {
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
        Ok(Self { config, step, moments })
    }
}
