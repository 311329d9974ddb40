//! Named tensors on the host: what a checkpoint holds, in the order of the forward pass.

use std::collections::BTreeMap;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{LmError, ModelConfig};

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

/// How numbers are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredDtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, the upper half of an f32, rounded to nearest even.
    Bf16,
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

    /// The values of a tensor; empty where there is none of that name.
    pub(crate) fn values_mut(&mut self, name: &str) -> &mut [f32] {
        self.tensors.get_mut(name).map_or(&mut [], |tensor| &mut tensor.values)
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
        let tensors = config
            .tensor_shapes()
            .into_iter()
            .map(|(name, shape)| {
                let count = shape.iter().product();
                let values = if name.ends_with("norm.weight") {
                    vec![1.0; count]
                } else if name.ends_with(".bias") {
                    vec![0.0; count]
                } else {
                    let deviation = if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
                        residual
                    } else {
                        0.02
                    };
                    normal(&mut rng, count, deviation)
                };
                (name, HostTensor { shape, values })
            })
            .collect();
        Self { tensors }
    }

    /// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// When a file is missing or cut short, or a tensor is missing, superfluous, of another shape or not finite.
    pub fn read(folder: &Path, config: &ModelConfig) -> Result<Self, LmError> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let mut tensors = BTreeMap::new();
        if single.exists() || !index.exists() {
            read_file(&single, &mut tensors)?;
        } else {
            let text = std::fs::read_to_string(&index).map_err(|error| LmError::file(&index, error))?;
            let value: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| LmError::file(&index, format!("not JSON: {error}")))?;
            let map = value
                .get("weight_map")
                .and_then(|map| map.as_object())
                .ok_or_else(|| LmError::file(&index, "has no `weight_map`"))?;
            let files: std::collections::BTreeSet<&str> = map.values().filter_map(|file| file.as_str()).collect();
            for file in files {
                read_file(&folder.join(file), &mut tensors)?;
            }
        }
        // Older checkpoints store the rotary frequencies, and some a copy of the tied head.
        tensors.retain(|name, _| {
            !(name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight"))
        });
        let weights = Self { tensors };
        weights.check(folder, config)?;
        Ok(weights)
    }

    /// Reads every tensor of one safetensors file, without asking what they are for.
    ///
    /// # Errors
    /// When it is missing, cut short, or holds another kind of number than floats.
    pub fn read_file(path: &Path) -> Result<Self, LmError> {
        let mut tensors = BTreeMap::new();
        read_file(path, &mut tensors)?;
        Ok(Self { tensors })
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

    /// Writes `model.safetensors`.
    ///
    /// # Errors
    /// When the file cannot be written: a full disk, a read-only folder.
    pub fn write(&self, path: &Path, dtype: StoredDtype) -> Result<(), LmError> {
        write_tensors(path, self.iter(), dtype)
    }
}

impl ModelConfig {
    /// Name and shape of every tensor of the architecture.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, q, kv, mlp) =
            (self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate_size);
        let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, hidden])];
        for layer in 0..self.layers {
            let mut push = |name: &str, shape: Vec<usize>| shapes.push((format!("model.layers.{layer}.{name}"), shape));
            push("input_layernorm.weight", vec![hidden]);
            for (name, rows) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                push(&format!("self_attn.{name}.weight"), vec![rows, hidden]);
                if self.qkv_bias {
                    push(&format!("self_attn.{name}.bias"), vec![rows]);
                }
            }
            if self.qk_norm {
                push("self_attn.q_norm.weight", vec![self.head_dim]);
                push("self_attn.k_norm.weight", vec![self.head_dim]);
            }
            push("self_attn.o_proj.weight", vec![hidden, q]);
            if self.output_bias {
                push("self_attn.o_proj.bias", vec![hidden]);
            }
            push("post_attention_layernorm.weight", vec![hidden]);
            for (name, shape) in
                [("gate_proj", [mlp, hidden]), ("up_proj", [mlp, hidden]), ("down_proj", [hidden, mlp])]
            {
                push(&format!("mlp.{name}.weight"), shape.to_vec());
                if self.mlp_bias {
                    push(&format!("mlp.{name}.bias"), vec![shape[0]]);
                }
            }
        }
        shapes.push(("model.norm.weight".into(), vec![hidden]));
        if !self.tie_word_embeddings {
            shapes.push(("lm_head.weight".into(), vec![self.vocab_size, hidden]));
        }
        shapes
    }
}

/// Writes named tensors as one safetensors file, to a temporary name first.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a HostTensor)>,
    dtype: StoredDtype,
) -> Result<(), LmError> {
    let stored: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .map(|(name, tensor)| {
            let bytes = match dtype {
                StoredDtype::F32 => tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                StoredDtype::Bf16 => tensor.values.iter().flat_map(|value| to_bf16(*value).to_le_bytes()).collect(),
            };
            (name, tensor.shape.as_slice(), bytes)
        })
        .collect();
    let kind = match dtype {
        StoredDtype::F32 => Dtype::F32,
        StoredDtype::Bf16 => Dtype::BF16,
    };
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(kind, shape.to_vec(), bytes).map(|view| (*name, view)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| LmError::file(path, error))?;
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| LmError::file(path, error))?;
    write_atomic(path, &bytes)
}

/// Reads every tensor of one safetensors file as f32.
///
/// # Errors
/// When it is missing, cut short, or holds another kind of number.
pub(crate) fn read_file(path: &Path, into: &mut BTreeMap<String, HostTensor>) -> Result<(), LmError> {
    let bytes = std::fs::read(path).map_err(|error| LmError::file(path, error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        LmError::file(path, format!("not a whole safetensors file ({error}); was the download or the write cut short?"))
    })?;
    for (name, view) in file.tensors() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
                .collect(),
            Dtype::F16 => data.as_chunks::<2>().0.iter().map(|b| from_f16(u16::from_le_bytes(*b))).collect(),
            other => {
                let message = format!("has dtype {other:?}, expected F32, BF16 or F16");
                return Err(LmError::Tensor { path: path.into(), name, message });
            }
        };
        into.insert(name, HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(())
}

/// Writes to a temporary name beside `path`, syncs, renames: readers see the old file or the whole new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), LmError> {
    use std::io::Write;
    let explain =
        |error: std::io::Error| LmError::file(path, format!("{error}; is the disk full or the folder read-only?"));
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let mut file = std::fs::File::create(temporary).map_err(explain)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(explain)?;
    std::fs::rename(temporary, path).map_err(explain)
}

fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounding = 0x7fff + ((bits >> 16) & 1);
    (bits.wrapping_add(rounding) >> 16) as u16
}

fn from_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// Box-Muller, so that the draw is the same on every platform and version.
pub(crate) fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    (0..count)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos() * deviation) as f32)
        .collect()
}
