//! A model with its tokenizer, as a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use zerosearch_files::write_atomic;
use zerosearch_text::Codec;

use crate::stored::Dtypes;
use crate::{HostWeights, LmError, ModelConfig, StoredDtype, shards};

/// A decoder's configuration, weights and tokenizer: what a model folder holds.
#[derive(Clone)]
pub struct LanguageModel {
    /// The shape.
    pub config: ModelConfig,
    /// The weights, on the host; a clone of the model shares them.
    pub weights: Arc<HostWeights>,
    /// The tokenizer.
    pub codec: Codec,
    form: Form,
}

/// A model folder without its weights: shape, tokenizer, and how the folder is written. A trainer keeps it beside weights
/// that live on a device.
#[derive(Clone)]
pub struct ModelFiles {
    /// The shape.
    pub config: ModelConfig,
    /// The tokenizer.
    pub codec: Codec,
    form: Form,
}

/// How the folder was written that a model was read from.
#[derive(Clone)]
struct Form {
    /// `config.json` as it was read, so that saving keeps keys that we do not interpret.
    config_json: Map<String, Value>,
    /// The same, letter for letter.
    config_text: String,
    /// How each tensor was stored where the weights were read; f32 for those that are not in it.
    dtypes: Dtypes,
}

/// How a model folder is written. The default keeps the number formats of the folder that the model was read from,
/// and cuts the weights into shards of 5 GB.
///
/// A [`StoredDtype`] is such options, too: every tensor in that format. Trained weights are best stored as
/// [`StoredDtype::F32`]: at learning rates such as 1e-6, most of an update is smaller than what bf16 can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveOptions {
    /// The format of every tensor; `None` keeps what each had, f32 where the weights were not read from a folder.
    pub dtype: Option<StoredDtype>,
    /// Most bytes of tensors in one file, transformers' `max_shard_size`. One tensor is never cut.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { dtype: None, max_shard_bytes: 5_000_000_000 }
    }
}

impl From<StoredDtype> for SaveOptions {
    fn from(dtype: StoredDtype) -> Self {
        Self { dtype: Some(dtype), ..Self::default() }
    }
}

impl LanguageModel {
    /// Puts the parts together.
    pub fn new(config: ModelConfig, weights: impl Into<Arc<HostWeights>>, codec: Codec) -> Self {
        let mut config_json = config.to_json();
        if let Some(id) = codec.eos_ids().first() {
            config_json.insert("eos_token_id".into(), (*id).into());
        }
        let config_text = pretty(&config_json);
        let form = Form { config_json, config_text, dtypes: Dtypes::new() };
        Self { config, weights: weights.into(), codec, form }
    }

    /// Reads a folder: `config.json`, `model.safetensors` (or shards and index), `tokenizer.json`.
    ///
    /// A tokenizer may have fewer tokens than the embedding has rows: some are padded. It may have added tokens beyond them
    /// that no text needs, which are then no tokens here; a vocabulary that goes beyond is another model's.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, LmError> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let config_text = ModelConfig::read_text(&path)?;
        let (config, config_json) = ModelConfig::parse(&path, &config_text)?;
        let (weights, dtypes) = HostWeights::read_stored(folder, &config)?;
        let codec = Codec::read(folder)?.for_rows(config.vocab_size)?;
        for (key, ids) in [("eos_token_id", codec.eos_ids()), ("bos_token_id", codec.bos_id().as_slice())] {
            if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
                return Err(LmError::Config {
                    path: folder.into(),
                    key: key.into(),
                    value: id.to_string(),
                    expected: format!("an id below vocab_size ({}): do the files belong together?", config.vocab_size),
                });
            }
        }
        Ok(Self { config, weights: Arc::new(weights), codec, form: Form { config_json, config_text, dtypes } })
    }

    /// The same model with other weights.
    pub fn with_weights(&self, weights: impl Into<Arc<HostWeights>>) -> Self {
        Self { weights: weights.into(), ..self.clone() }
    }

    /// All of the folder but the weights.
    pub fn files(&self) -> ModelFiles {
        ModelFiles { config: self.config.clone(), codec: self.codec.clone(), form: self.form.clone() }
    }

    /// The weights alone, which are copied only if another model shares them.
    pub fn into_weights(self) -> HostWeights {
        Arc::unwrap_or_clone(self.weights)
    }

    /// The weights, as by [`into_weights`](Self::into_weights), and all the rest of the folder.
    pub fn into_parts(self) -> (ModelFiles, HostWeights) {
        (self.files(), self.into_weights())
    }

    /// Writes the folder in the layout that transformers, vLLM and SGLang load: `config.json`, the weights in one file
    /// or in shards with an index, generation configuration and tokenizer files. A model that was read and is saved with
    /// [`SaveOptions::default`] has the names, shapes and formats that it had; a second copy of a tied head is left out.
    ///
    /// Each file appears whole or not at all; weight files of an earlier save are deleted once the new ones are there.
    ///
    /// # Errors
    /// When it cannot be written (a full disk, a read-only place), or a value does not fit the format.
    pub fn save(&self, folder: impl AsRef<Path>, options: impl Into<SaveOptions>) -> Result<(), LmError> {
        let folder = folder.as_ref();
        let SaveOptions { dtype, max_shard_bytes } = options.into();
        std::fs::create_dir_all(folder)
            .map_err(|error| LmError::file(folder, format!("cannot be created: {error}")))?;
        let dtype_of = |name: &str| dtype.or(self.form.dtypes.get(name).copied()).unwrap_or(StoredDtype::F32);
        shards::write(folder, &self.weights, &dtype_of, max_shard_bytes)?;
        write_atomic(folder.join("config.json"), self.form.config_text(dtype).as_bytes())?;
        self.codec.save(folder)?;
        Ok(())
    }
}

impl ModelFiles {
    /// The model with these weights.
    pub fn with_weights(&self, weights: impl Into<Arc<HostWeights>>) -> LanguageModel {
        let Self { config, codec, form } = self.clone();
        LanguageModel { config, weights: weights.into(), codec, form }
    }
}

impl Form {
    /// `config.json` as it was, unless it names another format than this one.
    fn config_text(&self, dtype: Option<StoredDtype>) -> String {
        let mut json = self.config_json.clone();
        if let Some(name) = dtype.map(|dtype| Value::from(dtype.name())) {
            // Some folders have both spellings, for programs of either generation.
            if json.contains_key("dtype") {
                json.insert("dtype".into(), name.clone());
            }
            if json.contains_key("torch_dtype") || !json.contains_key("dtype") {
                json.insert("torch_dtype".into(), name);
            }
        }
        if json == self.config_json { self.config_text.clone() } else { pretty(&json) }
    }
}

fn pretty(json: &Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(json.clone()))
}
