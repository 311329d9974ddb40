//! Gradients by name, their global norm, and AdamW with state that a checkpoint can hold.
//!
//! Burn's optimizers key their records by parameter ids drawn at random, so the record of one process
//! does not fit the parameters of the next; a resumed run needs names.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Gradients as BurnGradients, Tensor};
use serde::{Deserialize, Serialize};

use crate::stored::{read_file, write_tensors};
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
                (Some(Weight::Matrix(a)), Weight::Matrix(b)) => Weight::Matrix(a + b),
                (Some(Weight::Vector(a)), Weight::Vector(b)) => Weight::Vector(a + b),
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
        for gradient in self.0.values_mut() {
            *gradient = match gradient.clone() {
                Weight::Matrix(tensor) => Weight::Matrix(tensor.mul_scalar(factor)),
                Weight::Vector(tensor) => Weight::Vector(tensor.mul_scalar(factor)),
            };
        }
    }

    /// The Euclidean norm over all parameters together.
    pub fn norm(&self) -> f64 {
        let square = |weight: &Weight| -> f64 {
            let data = match weight {
                Weight::Matrix(tensor) => tensor.clone().square().sum(),
                Weight::Vector(tensor) => tensor.clone().square().sum(),
            };
            f64::from(data.into_scalar::<f32>())
        };
        self.0.values().map(square).sum::<f64>().sqrt()
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

    /// Updates every parameter that has a gradient.
    pub fn step(&mut self, weights: &mut Weights, gradients: &Gradients, learning_rate: f64) {
        self.step += 1;
        let c = self.config;
        let time = self.step as i32;
        let (correct1, correct2) = (1.0 - c.beta1.powi(time), 1.0 - c.beta2.powi(time));
        for (name, gradient) in &gradients.0 {
            let Some(weight) = weights.get_mut(name) else { continue };
            let moments = self.moments.remove(name);
            let rule = Rule { config: c, correct1, correct2, learning_rate };
            let (updated, first, second) = match (weight.clone(), gradient.clone()) {
                (Weight::Matrix(w), Weight::Matrix(g)) => {
                    let moments = moments.and_then(|pair| match pair {
                        (Weight::Matrix(m), Weight::Matrix(v)) => Some((m, v)),
                        _ => None,
                    });
                    let (w, m, v) = rule.update(w.without_autodiff(), g, moments, c.weight_decay);
                    (Weight::Matrix(w), Weight::Matrix(m), Weight::Matrix(v))
                }
                (Weight::Vector(w), Weight::Vector(g)) => {
                    let moments = moments.and_then(|pair| match pair {
                        (Weight::Vector(m), Weight::Vector(v)) => Some((m, v)),
                        _ => None,
                    });
                    let (w, m, v) = rule.update(w.without_autodiff(), g, moments, 0.0);
                    (Weight::Vector(w), Weight::Vector(m), Weight::Vector(v))
                }
                _ => continue,
            };
            *weight = updated;
            weight.track();
            self.moments.insert(name.clone(), (first, second));
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
        let mut tensors: BTreeMap<String, HostTensor> = BTreeMap::new();
        // Two halves, each exact in f32.
        let step = [(self.step >> 20) as f32, (self.step & 0xf_ffff) as f32];
        tensors.insert("step".into(), HostTensor { shape: vec![2], values: step.to_vec() });
        for (name, (first, second)) in &self.moments {
            tensors.insert(format!("exp_avg.{name}"), first.to_host());
            tensors.insert(format!("exp_avg_sq.{name}"), second.to_host());
        }
        write_tensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), StoredDtype::F32)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file is missing, cut short, or not of this form.
    pub fn load(config: AdamWConfig, path: &Path, device: &Device) -> Result<Self, LmError> {
        let (tensors, _) = read_file(path)?;
        let step = match tensors.get("step").map(|tensor| tensor.values.as_slice()) {
            Some([high, low]) => ((*high as u64) << 20) + *low as u64,
            _ => return Err(LmError::file(path, "has no `step`: not a state that this optimizer wrote")),
        };
        let mut moments = BTreeMap::new();
        for (key, first) in &tensors {
            let Some(name) = key.strip_prefix("exp_avg.") else { continue };
            let second = tensors.get(&format!("exp_avg_sq.{name}")).ok_or_else(|| LmError::Tensor {
                path: path.into(),
                name: format!("exp_avg_sq.{name}"),
                message: "is missing".into(),
            })?;
            moments.insert(name.to_string(), (Weight::from_host(first, device), Weight::from_host(second, device)));
        }
        Ok(Self { config, step, moments })
    }
}

struct Rule {
    config: AdamWConfig,
    correct1: f64,
    correct2: f64,
    learning_rate: f64,
}

impl Rule {
    fn update<const D: usize>(
        &self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<(Tensor<D>, Tensor<D>)>,
        decay: f64,
    ) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        let c = self.config;
        let (first, second) = (gradient.clone().mul_scalar(1.0 - c.beta1), gradient.square().mul_scalar(1.0 - c.beta2));
        let (first, second) = match moments {
            Some((m, v)) => (m.mul_scalar(c.beta1) + first, v.mul_scalar(c.beta2) + second),
            None => (first, second),
        };
        let scale = second.clone().div_scalar(self.correct2).sqrt().add_scalar(c.epsilon);
        let change = first.clone().div_scalar(self.correct1).div(scale).mul_scalar(self.learning_rate);
        (weight.mul_scalar(1.0 - self.learning_rate * decay) - change, first, second)
    }
}
