//! A model with its tokenizer, as a Hugging Face folder.

use std::path::Path;

use serde_json::{Map, Value};
use zerosearch_text::Codec;

use crate::weights::write_atomic;
use crate::{HostWeights, LmError, ModelConfig, StoredDtype};

/// A decoder's configuration, weights and tokenizer: what a model folder holds.
#[derive(Clone)]
pub struct LanguageModel {
    /// The shape.
    pub config: ModelConfig,
    /// The weights, on the host.
    pub weights: HostWeights,
    /// The tokenizer.
    pub codec: Codec,
    /// `config.json` as it was read, so that saving keeps keys that we do not interpret.
    config_json: Map<String, Value>,
}

impl LanguageModel {
    /// Puts the parts together.
    pub fn new(config: ModelConfig, weights: HostWeights, codec: Codec) -> Self {
        let mut config_json = config.to_json();
        if let Some(id) = codec.eos_ids().first() {
            config_json.insert("eos_token_id".into(), (*id).into());
        }
        Self { config, weights, codec, config_json }
    }

    /// Reads a folder: `config.json`, `model.safetensors` (or shards and index), `tokenizer.json`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(folder: &Path) -> Result<Self, LmError> {
        let (config, config_json) = ModelConfig::read(&folder.join("config.json"))?;
        let weights = HostWeights::read(folder, &config)?;
        let codec = Codec::from_folder(folder)?;
        if codec.vocab_size() > config.vocab_size {
            return Err(LmError::Vocabulary {
                folder: folder.into(),
                tokenizer: codec.vocab_size(),
                embedding: config.vocab_size,
            });
        }
        Ok(Self { config, weights, codec, config_json })
    }

    /// The same model with other weights.
    pub fn with_weights(&self, weights: HostWeights) -> Self {
        Self { weights, ..self.clone() }
    }

    /// Writes the folder in the layout that transformers, vLLM and SGLang load.
    ///
    /// # Errors
    /// When it cannot be written: a full disk, a read-only place.
    pub fn save(&self, folder: &Path, dtype: StoredDtype) -> Result<(), LmError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| LmError::file(folder, format!("cannot be created: {error}")))?;
        let mut config = self.config_json.clone();
        let name = match dtype {
            StoredDtype::F32 => "float32",
            StoredDtype::Bf16 => "bfloat16",
        };
        let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.insert(key.into(), name.into());
        let text = serde_json::to_string_pretty(&config).map_err(|error| LmError::file(folder, error))?;
        write_atomic(&folder.join("config.json"), text.as_bytes())?;
        self.weights.write(&folder.join("model.safetensors"), dtype)?;
        self.codec.save(folder)?;
        Ok(())
    }
}
