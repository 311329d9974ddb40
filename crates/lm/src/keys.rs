//! Typed access to the keys of a `config.json`, and refusal of those that say what is not computed here.

use std::path::Path;

use serde_json::{Map, Value};

use crate::LmError;

/// Keys of other families that change the forward pass, with the numbers that change nothing. A configuration that sets
/// one asks for a computation that no family here has.
const FOREIGN: [(&str, &[f64], &str); 13] = [
    ("attn_logit_softcapping", &[], "null: scores are not capped"),
    ("final_logit_softcapping", &[], "null: logits are not capped"),
    ("attention_multiplier", &[], "null: scores are divided by the root of head_dim"),
    ("query_pre_attn_scalar", &[], "null: scores are divided by the root of head_dim"),
    ("embedding_multiplier", &[1.0], "1: embeddings are not scaled"),
    ("scale_emb", &[1.0], "1: embeddings are not scaled"),
    ("residual_multiplier", &[1.0], "1: residuals are not scaled"),
    ("logits_scaling", &[1.0], "1: logits are not scaled"),
    ("logit_scale", &[1.0], "1: logits are not scaled"),
    ("clip_qkv", &[], "null: queries, keys and values are not clipped"),
    ("num_experts", &[0.0, 1.0], "null: mixtures of experts are not computed"),
    ("num_local_experts", &[0.0, 1.0], "null: mixtures of experts are not computed"),
    ("n_routed_experts", &[0.0, 1.0], "null: mixtures of experts are not computed"),
];

/// The keys of one file, or of one object in it.
pub(crate) struct Keys<'a> {
    /// The file, for messages.
    pub(crate) path: &'a Path,
    pub(crate) value: &'a Map<String, Value>,
}

impl Keys<'_> {
    pub(crate) fn refuse(&self, key: &str, value: &str, expected: &str) -> LmError {
        LmError::Config { path: self.path.into(), key: key.into(), value: value.into(), expected: expected.into() }
    }

    /// Refuses what would change the forward pass of a model with so many layers and is not computed here.
    pub(crate) fn only_what_is_computed(&self, layers: usize) -> Result<(), LmError> {
        let value = |key: &str| self.value.get(key).filter(|value| !value.is_null());
        for key in ["hidden_act", "hidden_activation"] {
            if let Some(act) = value(key).filter(|act| *act != "silu" && *act != "swish") {
                return Err(self.refuse(key, &act.to_string(), "silu"));
            }
        }
        let full = |layer: &Value| layer == "full_attention";
        let types = value("layer_types");
        if let Some(types) = types.filter(|types| !types.as_array().is_some_and(|t| t.iter().all(full))) {
            return Err(self.refuse("layer_types", &types.to_string(), "a list of full_attention"));
        }
        // The window is that of the layers from `max_window_layers` on, unless `layer_types` names them.
        let full_layers = value("max_window_layers").and_then(Value::as_u64).unwrap_or(0);
        if self.flag("use_sliding_window")? && types.is_none() && full_layers < layers as u64 {
            return Err(self.refuse("use_sliding_window", "true", "false: sliding windows are not computed"));
        }
        if let Some(quantization) = value("quantization_config") {
            return Err(self.refuse(
                "quantization_config",
                &quantization.to_string(),
                "no such key: quantized weights are not computed, use the original ones",
            ));
        }
        for (key, neutral, expected) in FOREIGN {
            let changes = |value: &&Value| !value.as_f64().is_some_and(|number| neutral.contains(&number));
            if let Some(found) = value(key).filter(changes) {
                return Err(self.refuse(key, &found.to_string(), expected));
            }
        }
        Ok(())
    }

    /// `false` where it is absent or null.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, LmError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.refuse(key, &other.to_string(), "true or false")),
        }
    }

    pub(crate) fn positive(&self, key: &str, value: Option<&Value>) -> Result<Option<f64>, LmError> {
        match value.filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(self.refuse(key, &value.to_string(), "a number above 0")),
            },
        }
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, LmError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.refuse(key, &other.to_string(), "an object or null")),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Result<usize, LmError> {
        self.optional_count(key)?.ok_or_else(|| self.refuse(key, "missing", "a positive integer"))
    }

    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<usize>, LmError> {
        self.integer(key, self.value.get(key))
    }

    /// A count that fits the 32-bit indices of tensors.
    pub(crate) fn integer(&self, key: &str, value: Option<&Value>) -> Result<Option<usize>, LmError> {
        match value.filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|count| (1..=i32::MAX as u64).contains(count)) {
                Some(count) => Ok(Some(count as usize)),
                None => Err(self.refuse(key, &value.to_string(), "a positive integer below 2^31")),
            },
        }
    }
}
