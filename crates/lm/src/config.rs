//! The shape of a decoder, read from a Hugging Face `config.json` in either of its spellings.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::LmError;
use crate::family::{Family, Features};

/// More than any model has; what a broken file asks for is refused before it is laid out.
const MOST_LAYERS: usize = 10_000;
const PARTIAL_ROTARY: &str = "partial_rotary_factor";

/// Llama-3 rotary scaling (`rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Long wavelengths are divided by this.
    pub factor: f64,
    /// Below `original_max_position / low_freq_factor` no scaling.
    pub low_freq_factor: f64,
    /// Above `original_max_position / high_freq_factor` full scaling.
    pub high_freq_factor: f64,
    /// Context length of the original training.
    pub original_max_position: f64,
}

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
            LmError::file(
                path,
                format!("{error}; a model folder needs config.json, model.safetensors and tokenizer.json"),
            )
        })
    }

    /// The text of a `config.json`; `path` is for messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<(Self, Map<String, Value>), LmError> {
        let value: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| LmError::file(path, format!("not a JSON object: {error}")))?;
        Ok((Self::from_json(path, &value)?, value))
    }

    fn from_json(path: &Path, value: &Map<String, Value>) -> Result<Self, LmError> {
        let reader = Reader { path, value };
        let architecture = value.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let kind = value.get("model_type").and_then(Value::as_str);
        let family = Family::named(architecture, kind).ok_or_else(|| {
            let found = architecture.or(kind).unwrap_or("missing");
            reader.refuse("architectures", found, &Family::architectures())
        })?;
        reader.only_full_precision_and_full_attention()?;
        let heads = reader.count("num_attention_heads")?;
        let hidden_size = reader.count("hidden_size")?;
        let kv_heads = reader.optional_count("num_key_value_heads")?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            return Err(reader.refuse(
                "num_key_value_heads",
                &kv_heads.to_string(),
                &format!("a divisor of num_attention_heads ({heads})"),
            ));
        }
        let head_dim = reader.optional_count("head_dim")?.unwrap_or(hidden_size / heads);
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(reader.refuse("head_dim", &head_dim.to_string(), "an even number above 0"));
        }
        let layers = reader.count("num_hidden_layers")?;
        if layers > MOST_LAYERS {
            return Err(reader.refuse("num_hidden_layers", &layers.to_string(), &format!("at most {MOST_LAYERS}")));
        }
        let (rope_theta, rope_scaling) = reader.rope()?;
        let Features { qkv_bias, output_bias, qk_norm } = family.features(reader.flag("attention_bias")?);
        Ok(Self {
            family,
            vocab_size: reader.count("vocab_size")?,
            hidden_size,
            intermediate_size: reader.count("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions: reader.optional_count("max_position_embeddings")?.unwrap_or(2048),
            rms_norm_eps: reader.positive("rms_norm_eps", value.get("rms_norm_eps"))?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: reader.flag("tie_word_embeddings")?,
            qkv_bias,
            output_bias,
            mlp_bias: reader.flag("mlp_bias")?,
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

    /// Inverse rotary frequencies, `[head_dim / 2]`, Llama-3 scaling included.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let base = (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64));
        let Some(s) = self.rope_scaling else { return base.collect() };
        base.map(|frequency| {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            let low = s.original_max_position / s.low_freq_factor;
            let high = s.original_max_position / s.high_freq_factor;
            if wavelength < high {
                frequency
            } else if wavelength > low {
                frequency / s.factor
            } else {
                let smooth = (s.original_max_position / wavelength - s.low_freq_factor)
                    / (s.high_freq_factor - s.low_freq_factor);
                (1.0 - smooth) * frequency / s.factor + smooth * frequency
            }
        })
        .collect()
    }

    /// Cosines and sines of these positions, each `[positions, head_dim / 2]` row-major.
    pub fn rotary_tables(&self, positions: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies();
        // Angles in f32 products, as the reference implementation computes them.
        let angles = positions.flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * *f as f32)));
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }
}

struct Reader<'a> {
    path: &'a Path,
    value: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn refuse(&self, key: &str, value: &str, expected: &str) -> LmError {
        LmError::Config { path: self.path.into(), key: key.into(), value: value.into(), expected: expected.into() }
    }

    /// What would change the forward pass and is not computed here is refused, not ignored.
    fn only_full_precision_and_full_attention(&self) -> Result<(), LmError> {
        let value = |key: &str| self.value.get(key).filter(|value| !value.is_null());
        if let Some(act) = value("hidden_act").filter(|act| *act != "silu") {
            return Err(self.refuse("hidden_act", &act.to_string(), "silu"));
        }
        if self.flag("use_sliding_window")? {
            return Err(self.refuse("use_sliding_window", "true", "false: sliding windows are not computed"));
        }
        let full = |layer: &Value| layer == "full_attention";
        if let Some(types) = value("layer_types").filter(|types| !types.as_array().is_some_and(|t| t.iter().all(full)))
        {
            return Err(self.refuse("layer_types", &types.to_string(), "a list of full_attention"));
        }
        if let Some(quantization) = value("quantization_config") {
            return Err(self.refuse(
                "quantization_config",
                &quantization.to_string(),
                "no such key: quantized weights are not computed, use the original ones",
            ));
        }
        let partial =
            [self.value.get("rope_parameters").and_then(|rope| rope.get(PARTIAL_ROTARY)), value(PARTIAL_ROTARY)];
        match partial.into_iter().flatten().find(|share| share.as_f64() != Some(1.0)) {
            Some(share) => Err(self.refuse(PARTIAL_ROTARY, &share.to_string(), "1: the whole head is rotated")),
            None => Ok(()),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, LmError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.refuse(key, &other.to_string(), "true or false")),
        }
    }

    fn positive(&self, key: &str, value: Option<&Value>) -> Result<Option<f64>, LmError> {
        match value.filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(self.refuse(key, &value.to_string(), "a number above 0")),
            },
        }
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, LmError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.refuse(key, &other.to_string(), "an object or null")),
        }
    }

    fn count(&self, key: &str) -> Result<usize, LmError> {
        self.optional_count(key)?.ok_or_else(|| self.refuse(key, "missing", "a positive integer"))
    }

    fn optional_count(&self, key: &str) -> Result<Option<usize>, LmError> {
        self.integer(key, self.value.get(key))
    }

    /// A count that fits the 32-bit indices of tensors.
    fn integer(&self, key: &str, value: Option<&Value>) -> Result<Option<usize>, LmError> {
        match value.filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|count| (1..=i32::MAX as u64).contains(count)) {
                Some(count) => Ok(Some(count as usize)),
                None => Err(self.refuse(key, &value.to_string(), "a positive integer below 2^31")),
            },
        }
    }

    fn rope(&self) -> Result<(f64, Option<Llama3Scaling>), LmError> {
        let parameters = self.object("rope_parameters")?;
        let scaling = self.object("rope_scaling")?.or(parameters);
        let theta = parameters.and_then(|parameters| parameters.get("rope_theta")).or(self.value.get("rope_theta"));
        let theta = self.positive("rope_theta", theta)?.unwrap_or(10_000.0);
        let Some(scaling) = scaling else { return Ok((theta, None)) };
        let number = |key: &str| {
            let name = format!("rope_scaling.{key}");
            self.positive(&name, scaling.get(key))?.ok_or_else(|| self.refuse(&name, "missing", "a number"))
        };
        let original = || {
            let name = "rope_scaling.original_max_position_embeddings";
            let value = self.integer(name, scaling.get("original_max_position_embeddings"))?;
            value.ok_or_else(|| self.refuse(name, "missing", "a positive integer"))
        };
        match scaling.get("rope_type").or_else(|| scaling.get("type")) {
            None => Ok((theta, None)),
            Some(kind) if kind == "default" => Ok((theta, None)),
            Some(kind) if kind == "llama3" => {
                let scaling = Llama3Scaling {
                    factor: number("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original_max_position: original()? as f64,
                };
                if scaling.high_freq_factor <= scaling.low_freq_factor {
                    let expected = format!("a number above low_freq_factor ({})", scaling.low_freq_factor);
                    let high = scaling.high_freq_factor.to_string();
                    return Err(self.refuse("rope_scaling.high_freq_factor", &high, &expected));
                }
                Ok((theta, Some(scaling)))
            }
            Some(other) => Err(self.refuse("rope_scaling.rope_type", &other.to_string(), "default or llama3")),
        }
    }
}
