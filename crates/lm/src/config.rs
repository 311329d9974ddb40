//! The shape of a decoder, read from a Hugging Face `config.json` in either of its spellings.

use std::path::Path;

use serde_json::{Map, Value, json};
use zerosearch_text::from_python_json;

use crate::family::{Family, Features};
use crate::keys::Keys;
use crate::{Llama3Scaling, LmError, rope};

/// More than any model has; what a broken file asks for is refused before it is laid out.
const MOST_LAYERS: usize = 10_000;

/// Everything that the forward pass needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which family it is.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
    /// Context length in tokens.
    pub max_positions: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Llama-3.x scaling of them.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// RMS norm on each query and key head.
    pub qk_norm: bool,
}

impl ModelConfig {
    /// A small Llama with tied embeddings.
    pub fn tiny_llama(
        vocab_size: usize,
        hidden_size: usize,
        layers: usize,
        heads: usize,
        kv_heads: usize,
        intermediate_size: usize,
    ) -> Self {
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            max_positions: 2048,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
        }
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// When the file is missing or no JSON, a key is missing, or it asks for something that is not computed here.
    pub fn read(path: impl AsRef<Path>) -> Result<(Self, Map<String, Value>), LmError> {
        let path = path.as_ref();
        Self::parse(path, &Self::read_text(path)?)
    }

    pub(crate) fn read_text(path: &Path) -> Result<String, LmError> {
        std::fs::read(path).and_then(zerosearch_files::decode_text).map_err(|error| {
            let needed = if path.with_file_name("adapter_config.json").exists() {
                "the folder holds an adapter: give its base model's folder"
            } else {
                "a model folder needs config.json, model.safetensors and tokenizer.json"
            };
            LmError::file(path, format!("{error}; {needed}"))
        })
    }

    /// The text of a `config.json`; `path` is for messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<(Self, Map<String, Value>), LmError> {
        let value: Map<String, Value> =
            from_python_json(text).map_err(|error| LmError::file(path, format!("not a JSON object: {error}")))?;
        Ok((Self::from_json(path, &value)?, value))
    }

    fn from_json(path: &Path, value: &Map<String, Value>) -> Result<Self, LmError> {
        let keys = Keys { path, value };
        let architecture = value.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let kind = value.get("model_type").and_then(Value::as_str);
        let family = Family::named(architecture, kind).ok_or_else(|| {
            let found = architecture.or(kind).unwrap_or("missing");
            keys.refuse("architectures", found, &Family::architectures())
        })?;
        // transformers goes by `model_type`, others by `architectures`. Between the families here the tensors decide.
        if let Some(kind) = kind.filter(|kind| Family::named(None, Some(kind)).is_none()) {
            let expected = format!("{}, as architectures says", family.names().1);
            return Err(keys.refuse("model_type", &format!("{kind:?}"), &expected));
        }
        let heads = keys.count("num_attention_heads")?;
        let hidden_size = keys.count("hidden_size")?;
        let kv_heads = match family.default_kv_heads() {
            Some(count) if !value.contains_key("num_key_value_heads") => count,
            _ => keys.optional_count("num_key_value_heads")?.unwrap_or(heads),
        };
        if heads % kv_heads != 0 {
            return Err(keys.refuse(
                "num_key_value_heads",
                &kv_heads.to_string(),
                &format!("a divisor of num_attention_heads ({heads})"),
            ));
        }
        let head_dim = match family.default_head_dim() {
            Some(size) if !value.contains_key("head_dim") => size,
            _ => keys.optional_count("head_dim")?.unwrap_or(hidden_size / heads),
        };
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(keys.refuse("head_dim", &head_dim.to_string(), "an even number above 0"));
        }
        let layers = keys.count("num_hidden_layers")?;
        if layers > MOST_LAYERS {
            return Err(keys.refuse("num_hidden_layers", &layers.to_string(), &format!("at most {MOST_LAYERS}")));
        }
        keys.only_what_is_computed(layers)?;
        let max_positions =
            keys.optional_count("max_position_embeddings")?.unwrap_or_else(|| family.default_positions());
        let (rope_theta, rope_scaling) = rope::read(&keys, max_positions)?;
        let Features { qkv_bias, output_bias, qk_norm } = family.features(keys.flag("attention_bias")?);
        Ok(Self {
            family,
            vocab_size: keys.count("vocab_size")?,
            hidden_size,
            intermediate_size: keys.count("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions,
            rms_norm_eps: keys.positive("rms_norm_eps", value.get("rms_norm_eps"))?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
            qkv_bias,
            output_bias,
            mlp_bias: keys.flag("mlp_bias")?,
            qk_norm,
        })
    }

    /// The same in Hugging Face's present spelling.
    pub fn to_json(&self) -> Map<String, Value> {
        let (architecture, model_type) = self.family.names();
        let scaling = self.rope_scaling.map(|s| {
            json!({"rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor, "high_freq_factor": s.high_freq_factor,
                   "original_max_position_embeddings": s.original_max_position as u64})
        });
        let value = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.output_bias,
            "mlp_bias": self.mlp_bias,
            "hidden_act": "silu",
            "torch_dtype": "float32",
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}
