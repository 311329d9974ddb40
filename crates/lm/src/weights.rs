//! Named tensors on the host: what a checkpoint holds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::network::{EMBEDDING, HEAD, Role, TensorSpec};
use crate::stored::{Dtypes, StoredDtype, read_file, write_tensors};
use crate::{LmError, ModelConfig, shards};

/// Values of one tensor, row-major, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// A model's tensors by their Hugging Face names.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HostWeights {
    tensors: BTreeMap<String, HostTensor>,
}

impl From<HostWeights> for Cow<'_, HostWeights> {
    fn from(weights: HostWeights) -> Self {
        Cow::Owned(weights)
    }
}

impl<'w> From<&'w HostWeights> for Cow<'w, HostWeights> {
    fn from(weights: &'w HostWeights) -> Self {
        Cow::Borrowed(weights)
    }
}

impl HostWeights {
    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }

    /// Puts a tensor under a name.
    pub fn insert(&mut self, name: impl Into<String>, tensor: HostTensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// The values of a tensor.
    pub(crate) fn values_mut(&mut self, name: &str) -> Result<&mut [f32], LmError> {
        match self.tensors.get_mut(name) {
            Some(tensor) => Ok(&mut tensor.values),
            None => Err(LmError::tensor(name, "is missing")),
        }
    }

    /// Takes a tensor out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<HostTensor> {
        self.tensors.remove(name)
    }

    /// Every tensor, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.values.len()).sum()
    }

    /// Draws initial weights: normal with standard deviation 0.02, the projections into the
    /// residual stream scaled down by `sqrt(2 · layers)` (GPT-2), norms 1, biases 0.
    pub fn init(config: &ModelConfig, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let residual = 0.02 / (2.0 * config.layers as f64).sqrt();
        let draw = |spec: &TensorSpec| {
            let count = spec.shape.iter().product();
            let values = match spec.role {
                Role::Norm => vec![1.0; count],
                Role::Bias => vec![0.0; count],
                Role::Projection(projection) if projection.is_residual() => normal(&mut rng, count, residual),
                Role::Embedding | Role::Head | Role::Projection(_) => normal(&mut rng, count, 0.02),
            };
            (spec.name.clone(), HostTensor { shape: spec.shape.clone(), values })
        };
        let tensors = config.tensors().iter().map(draw).collect();
        Self { tensors }
    }

    /// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// When a file is missing or cut short, or a tensor is missing, superfluous, of another shape or not finite.
    pub fn read(folder: impl AsRef<Path>, config: &ModelConfig) -> Result<Self, LmError> {
        Ok(Self::read_stored(folder.as_ref(), config)?.0)
    }

    /// As [`read`](Self::read), with how each tensor was stored.
    pub(crate) fn read_stored(folder: &Path, config: &ModelConfig) -> Result<(Self, Dtypes), LmError> {
        let (mut tensors, mut dtypes) = shards::read(folder)?;
        // Older checkpoints store the rotary frequencies.
        tensors.retain(|name, _| !name.contains("rotary_emb."));
        // A model that was saved without its head, as an encoder of texts, names its tensors from inside.
        let bare = !tensors.keys().any(|name| name.starts_with(BODY));
        let names: Vec<String> = tensors.keys().filter(|name| bare && *name != HEAD).cloned().collect();
        names.iter().for_each(|name| rename(name, &format!("{BODY}{name}"), &mut tensors, &mut dtypes));
        if config.tie_word_embeddings {
            one_table(folder, &mut tensors, &mut dtypes)?;
        }
        let weights = Self { tensors };
        weights.check(folder, config)?;
        Ok((weights, dtypes))
    }

    /// Reads every tensor of one safetensors file, without asking what they are for.
    ///
    /// # Errors
    /// When it is missing, cut short, or holds another kind of number than floats.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, LmError> {
        Ok(Self { tensors: read_file(path.as_ref())?.0 })
    }

    fn check(&self, path: &Path, config: &ModelConfig) -> Result<(), LmError> {
        let wrong = |name: &str, message: String| LmError::Tensor { path: path.into(), name: name.into(), message };
        let expected: BTreeMap<String, Vec<usize>> = config.tensor_shapes().into_iter().collect();
        for (name, shape) in &expected {
            match self.tensors.get(name) {
                None => return Err(wrong(name, "is missing; config.json asks for it".into())),
                Some(tensor) if tensor.shape != *shape => {
                    return Err(wrong(name, format!("has shape {:?}, config.json says {shape:?}", tensor.shape)));
                }
                Some(tensor) => {
                    if let Some(position) = tensor.values.iter().position(|value| !value.is_finite()) {
                        return Err(wrong(name, format!("holds {} at element {position}", tensor.values[position])));
                    }
                }
            }
        }
        match self.tensors.keys().find(|name| !expected.contains_key(*name)) {
            Some(name) => Err(wrong(name, "is not part of the architecture that config.json names".into())),
            None => Ok(()),
        }
    }

    /// Writes one safetensors file. A model's folder is written by [`LanguageModel::save`](crate::LanguageModel::save).
    ///
    /// # Errors
    /// When the file cannot be written (a full disk, a read-only folder), or a value does not fit the format.
    pub fn write(&self, path: impl AsRef<Path>, dtype: StoredDtype) -> Result<(), LmError> {
        write_tensors(path.as_ref(), self.iter(), dtype)
    }
}

/// Begins the names of all tensors but the head.
const BODY: &str = "model.";

fn rename(from: &str, to: &str, tensors: &mut BTreeMap<String, HostTensor>, dtypes: &mut Dtypes) {
    if let Some(tensor) = tensors.remove(from) {
        tensors.insert(to.into(), tensor);
    }
    if let Some(dtype) = dtypes.remove(from) {
        dtypes.insert(to.into(), dtype);
    }
}

/// The tied table under the embedding's name: some checkpoints have it under the head's name instead, some under both.
fn one_table(folder: &Path, tensors: &mut BTreeMap<String, HostTensor>, dtypes: &mut Dtypes) -> Result<(), LmError> {
    match (tensors.get(EMBEDDING), tensors.get(HEAD)) {
        (None, Some(_)) => rename(HEAD, EMBEDDING, tensors, dtypes),
        (Some(embedding), Some(head)) if embedding != head => {
            let message = format!(
                "is another table than `{EMBEDDING}`, but `tie_word_embeddings` is true in config.json: set that to \
                 false if the model has a head of its own, or leave this tensor out"
            );
            return Err(LmError::Tensor { path: folder.into(), name: HEAD.into(), message });
        }
        _ => {
            tensors.remove(HEAD);
        }
    }
    Ok(())
}

/// Box-Muller, so that the draw is the same on every platform and version.
pub(crate) fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    (0..count)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos() * deviation) as f32)
        .collect()
}
