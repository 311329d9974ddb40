//! Decoder families: how their `config.json` names them, and what the layers of one have that those of others have not.

/// A decoder family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2/3.x, SmolLM2 and other Llama-shaped models.
    Llama,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMS-normalised queries and keys, explicit head size.
    Qwen3,
}

/// The parts of a layer that differ between families.
pub(crate) struct Features {
    /// Biases on the query, key and value projections.
    pub(crate) qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub(crate) output_bias: bool,
    /// RMS norm on each query and key head.
    pub(crate) qk_norm: bool,
}

impl Family {
    pub(crate) const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// In `architectures`, and as `model_type`.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        }
    }

    /// The parts of its layers, given the configuration's `attention_bias`.
    pub(crate) fn features(self, attention_bias: bool) -> Features {
        match self {
            Self::Llama => Features { qkv_bias: attention_bias, output_bias: attention_bias, qk_norm: false },
            Self::Qwen2 => Features { qkv_bias: true, output_bias: false, qk_norm: false },
            Self::Qwen3 => Features { qkv_bias: attention_bias, output_bias: attention_bias, qk_norm: true },
        }
    }

    /// Key and value heads of a configuration without `num_key_value_heads`; where this is `None`, as many as query heads.
    pub(crate) fn default_kv_heads(self) -> Option<usize> {
        match self {
            Self::Llama => None,
            Self::Qwen2 | Self::Qwen3 => Some(32),
        }
    }

    /// Size of a head where a configuration has no `head_dim`; where this is `None`, a head's share of `hidden_size`.
    pub(crate) fn default_head_dim(self) -> Option<usize> {
        match self {
            Self::Llama | Self::Qwen2 => None,
            Self::Qwen3 => Some(128),
        }
    }

    /// Context length of a configuration without `max_position_embeddings`.
    pub(crate) fn default_positions(self) -> usize {
        match self {
            Self::Llama => 2048,
            Self::Qwen2 | Self::Qwen3 => 32_768,
        }
    }

    /// The one that a configuration names; `model_type` counts where it names no architecture.
    pub(crate) fn named(architecture: Option<&str>, model_type: Option<&str>) -> Option<Self> {
        let is = |family: &Self| match (architecture, family.names()) {
            (Some(found), (architecture, _)) => found == architecture,
            (None, (_, name)) => model_type == Some(name),
        };
        Self::ALL.into_iter().find(is)
    }

    /// All architectures, as a message lists them.
    pub(crate) fn architectures() -> String {
        let [others @ .., last] = Self::ALL.map(|family| family.names().0);
        format!("{} or {last}", others.join(", "))
    }
}
