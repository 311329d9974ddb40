//! Sizes of a model from its `config.json` alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use zerosearch_lm::{LoraConfig, ModelConfig, WeightDtype};

use super::DryRunError;

/// The size of a model, whose weights need not be there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSize {
    /// The folder that the run reads.
    pub folder: PathBuf,
    /// The `config.json` that the sizes are from.
    pub config_json: PathBuf,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of the weights in the dtype that `config.json` names.
    pub stored_bytes: u64,
    #[serde(skip)]
    pub(super) config: ModelConfig,
    /// Parameters that are elements of matrices: those that a smaller dtype is for.
    #[serde(skip)]
    in_matrices: u64,
}

impl ModelSize {
    /// The sizes of a folder: from its own `config.json`, or from the one that `sizes` names for it or that lies under its last name,
    /// in lower case, in the folder `models` beside the configuration file.
    pub(super) fn find(folder: &Path, beside: &Path, sizes: &BTreeMap<String, PathBuf>) -> Result<Self, DryRunError> {
        let name = folder.to_string_lossy().into_owned();
        let last = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let preset = match sizes.get(&name) {
            Some(preset) => beside.join(preset),
            None => beside.join("models").join(last),
        };
        let found = [folder, &preset].map(|folder| folder.join("config.json")).into_iter().find(|path| path.exists());
        match found {
            Some(config_json) => Self::read(folder, config_json),
            None => Err(DryRunError::Sizes { folder: folder.into(), beside: preset, name }),
        }
    }

    fn read(folder: &Path, config_json: PathBuf) -> Result<Self, DryRunError> {
        let (config, json) = ModelConfig::read(&config_json)?;
        let (mut parameters, mut in_matrices) = (0, 0);
        for (_, shape) in config.tensor_shapes() {
            let count = elements(&shape);
            parameters += count;
            in_matrices += if shape.len() == 2 { count } else { 0 };
        }
        let dtype = json.get("dtype").or_else(|| json.get("torch_dtype")).and_then(Value::as_str);
        let bytes = if matches!(dtype, Some("bfloat16" | "float16")) { 2 } else { 4 };
        Ok(Self {
            folder: folder.into(),
            config_json,
            parameters,
            stored_bytes: bytes * parameters,
            config,
            in_matrices,
        })
    }

    /// Whether the weights are there.
    pub(super) fn has_weights(&self) -> bool {
        ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| self.folder.join(name).exists())
    }

    /// Bytes of a copy to decode with: matrices in the dtype, norms and biases in f32.
    pub(super) fn decoding_bytes(&self, dtype: WeightDtype) -> u64 {
        match dtype {
            WeightDtype::F32 => 4 * self.parameters,
            WeightDtype::Bf16 => 2 * self.in_matrices + 4 * (self.parameters - self.in_matrices),
        }
    }

    /// Parameters of the adapters.
    pub(super) fn adapters(&self, lora: &LoraConfig) -> u64 {
        let of = |(name, shape): (String, Vec<usize>)| {
            let projection = name.strip_suffix(".weight").and_then(|name| name.rsplit('.').next());
            let is_adapted = projection.is_some_and(|name| lora.target_modules.iter().any(|target| target == name));
            if is_adapted { (lora.rank * shape.iter().sum::<usize>()) as u64 } else { 0 }
        };
        self.config.tensor_shapes().into_iter().map(of).sum()
    }

    /// Parameters of one layer.
    pub(super) fn of_layer(&self) -> u64 {
        let shapes = self.config.tensor_shapes();
        shapes.iter().filter(|(name, _)| name.starts_with("model.layers.0.")).map(|(_, shape)| elements(shape)).sum()
    }

    /// Parameters of the largest tensor.
    pub(super) fn largest_tensor(&self) -> u64 {
        self.config.tensor_shapes().iter().map(|(_, shape)| elements(shape)).max().unwrap_or(0)
    }

    /// Parameters of the embedding, and so of a head of its own.
    pub(super) fn embedding(&self) -> u64 {
        elements(&[self.config.vocab_size, self.config.hidden_size])
    }
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|size| *size as u64).product()
}
