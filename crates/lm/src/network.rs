//! The parts of a decoder: one value for each parameter, in its place.
//!
//! [`Network::build`] is the one list of an architecture's tensors. Loading, checking, initialising, packing, adapters
//! and both forward passes go by it, so a name is looked up once, and a tensor that is missing is missed there.

use std::convert::Infallible;
use std::iter::once;

use crate::{LmError, ModelConfig};

/// A decoder, from the embedding to the output head.
#[derive(Clone, Debug)]
pub(crate) struct Network<W> {
    pub(crate) embedding: W,
    pub(crate) layers: Vec<Layer<W>>,
    pub(crate) norm: W,
    /// Absent where the embedding is the head.
    pub(crate) head: Option<W>,
}

/// One layer: attention and MLP, each behind a norm.
#[derive(Clone, Debug)]
pub(crate) struct Layer<W> {
    pub(crate) input_norm: W,
    pub(crate) attention: Attention<W>,
    pub(crate) post_norm: W,
    pub(crate) mlp: Mlp<W>,
}

#[derive(Clone, Debug)]
pub(crate) struct Attention<W> {
    pub(crate) q: Linear<W>,
    pub(crate) k: Linear<W>,
    pub(crate) v: Linear<W>,
    pub(crate) q_norm: Option<W>,
    pub(crate) k_norm: Option<W>,
    pub(crate) o: Linear<W>,
}

#[derive(Clone, Debug)]
pub(crate) struct Mlp<W> {
    pub(crate) gate: Linear<W>,
    pub(crate) up: Linear<W>,
    pub(crate) down: Linear<W>,
}

/// A projection.
#[derive(Clone, Debug)]
pub(crate) struct Linear<W> {
    pub(crate) weight: W,
    pub(crate) bias: Option<W>,
}

/// A tensor of the architecture.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    /// In Hugging Face's checkpoints.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

/// The part that a tensor plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `[vocab, hidden]`; the output head, too, where they are one.
    Embedding,
    /// `[vocab, hidden]`.
    Head,
    /// `[width]`.
    Norm,
    /// `[out, in]`.
    Projection(Projection),
    /// `[out]`.
    Bias,
}

/// A layer's projections, which adapters may stand beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projection {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Projection {
    pub(crate) const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The part of a layer that it belongs to.
    fn block(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// As checkpoints and PEFT name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Whether its output is added to the residual stream.
    pub(crate) fn is_residual(self) -> bool {
        matches!(self, Self::O | Self::Down)
    }
}

impl TensorSpec {
    /// Refuses a tensor that is missing.
    pub(crate) fn found<T>(&self, tensor: Option<T>) -> Result<T, LmError> {
        tensor.ok_or_else(|| LmError::tensor(&self.name, "is missing; the configuration asks for it"))
    }

    /// Refuses another shape.
    pub(crate) fn check_shape(&self, shape: &[usize]) -> Result<(), LmError> {
        if shape == self.shape {
            return Ok(());
        }
        Err(LmError::tensor(&self.name, format!("has shape {shape:?}, the configuration says {:?}", self.shape)))
    }
}

impl ModelConfig {
    /// Every tensor of the architecture, in its place.
    pub(crate) fn tensors(&self) -> Network<TensorSpec> {
        let Ok(network) = Network::build(self, Ok::<_, Infallible>);
        network
    }

    /// Name and shape of every tensor of the architecture.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
    }
}

/// The output head's name, which some checkpoints have although it is the embedding.
pub(crate) const HEAD: &str = "lm_head.weight";
/// The embedding's name.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

impl<W> Network<W> {
    /// Makes every parameter of an architecture, in the order in which [`iter`](Self::iter) gives them.
    pub(crate) fn build<E>(config: &ModelConfig, mut make: impl FnMut(TensorSpec) -> Result<W, E>) -> Result<Self, E> {
        let mut root = Builder { prefix: "", make: &mut make };
        let table = vec![config.vocab_size, config.hidden_size];
        Ok(Self {
            embedding: root.tensor(EMBEDDING, table.clone(), Role::Embedding)?,
            layers: (0..config.layers)
                .map(|index| {
                    Layer::build(config, Builder { prefix: &format!("model.layers.{index}."), ..root.again() })
                })
                .collect::<Result<_, E>>()?,
            norm: root.norm("model.norm", config.hidden_size)?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(root.tensor(HEAD, table, Role::Head)?),
            },
        })
    }

    /// Every parameter, from the embedding to the head.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &W> {
        let Self { embedding, layers, norm, head } = self;
        once(embedding).chain(layers.iter().flat_map(Layer::iter)).chain(once(norm)).chain(head)
    }

    /// The same, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        let Self { embedding, layers, norm, head } = self;
        once(embedding).chain(layers.iter_mut().flat_map(Layer::iter_mut)).chain(once(norm)).chain(head)
    }
}

impl<W> Layer<W> {
    fn build<E>(config: &ModelConfig, mut layer: Builder<'_, W, E>) -> Result<Self, E> {
        let c = config;
        let (hidden, q, kv) = (c.hidden_size, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let head_norm = |layer: &mut Builder<'_, W, E>, name| match c.qk_norm {
            true => layer.norm(name, c.head_dim).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            input_norm: layer.norm("input_layernorm", hidden)?,
            attention: Attention {
                q: layer.linear(Projection::Q, [q, hidden], c.qkv_bias)?,
                k: layer.linear(Projection::K, [kv, hidden], c.qkv_bias)?,
                v: layer.linear(Projection::V, [kv, hidden], c.qkv_bias)?,
                q_norm: head_norm(&mut layer, "self_attn.q_norm")?,
                k_norm: head_norm(&mut layer, "self_attn.k_norm")?,
                o: layer.linear(Projection::O, [hidden, q], c.output_bias)?,
            },
            post_norm: layer.norm("post_attention_layernorm", hidden)?,
            mlp: Mlp {
                gate: layer.linear(Projection::Gate, [c.intermediate_size, hidden], c.mlp_bias)?,
                up: layer.linear(Projection::Up, [c.intermediate_size, hidden], c.mlp_bias)?,
                down: layer.linear(Projection::Down, [hidden, c.intermediate_size], c.mlp_bias)?,
            },
        })
    }

    fn iter(&self) -> impl Iterator<Item = &W> {
        let Self { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = self;
        let Attention { q, k, v, q_norm, k_norm, o } = attention;
        let attention = [q, k, v].into_iter().flat_map(Linear::iter).chain(q_norm).chain(k_norm).chain(o.iter());
        let mlp = [gate, up, down].into_iter().flat_map(Linear::iter);
        once(input_norm).chain(attention).chain(once(post_norm)).chain(mlp)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        let Self { input_norm, attention, post_norm, mlp: Mlp { gate, up, down } } = self;
        let Attention { q, k, v, q_norm, k_norm, o } = attention;
        let attention =
            [q, k, v].into_iter().flat_map(Linear::iter_mut).chain(q_norm).chain(k_norm).chain(o.iter_mut());
        let mlp = [gate, up, down].into_iter().flat_map(Linear::iter_mut);
        once(input_norm).chain(attention).chain(once(post_norm)).chain(mlp)
    }
}

impl<W> Linear<W> {
    fn iter(&self) -> impl Iterator<Item = &W> {
        once(&self.weight).chain(&self.bias)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        once(&mut self.weight).chain(&mut self.bias)
    }
}

/// Makes the tensors whose names begin alike.
struct Builder<'a, W, E> {
    prefix: &'a str,
    make: &'a mut dyn FnMut(TensorSpec) -> Result<W, E>,
}

impl<W, E> Builder<'_, W, E> {
    fn again(&mut self) -> Builder<'_, W, E> {
        Builder { prefix: self.prefix, make: &mut *self.make }
    }

    fn tensor(&mut self, name: &str, shape: Vec<usize>, role: Role) -> Result<W, E> {
        (self.make)(TensorSpec { name: format!("{}{name}", self.prefix), shape, role })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<W, E> {
        self.tensor(&format!("{name}.weight"), vec![width], Role::Norm)
    }

    fn linear(&mut self, projection: Projection, [rows, columns]: [usize; 2], bias: bool) -> Result<Linear<W>, E> {
        let module = format!("{}.{}", projection.block(), projection.name());
        Ok(Linear {
            weight: self.tensor(&format!("{module}.weight"), vec![rows, columns], Role::Projection(projection))?,
            bias: match bias {
                true => Some(self.tensor(&format!("{module}.bias"), vec![rows], Role::Bias)?),
                false => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that an architecture may have.
    fn config() -> ModelConfig {
        let plain = ModelConfig::tiny_llama(10, 8, 2, 2, 1, 12);
        ModelConfig {
            tie_word_embeddings: false,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            qk_norm: true,
            ..plain
        }
    }

    #[test]
    fn parameters_are_given_in_the_order_in_which_they_were_made() {
        let mut made = 0;
        let Ok(mut network) = Network::build(&config(), |_| {
            made += 1;
            Ok::<_, Infallible>(made)
        });
        assert_eq!(made, 3 + 2 * (2 + 2 + 7 * 2));
        assert!(network.iter().copied().eq(1..=made));
        assert!(network.iter_mut().map(|number| *number).eq(1..=made));
    }

    #[test]
    fn names_are_unique_and_those_of_checkpoints() {
        let tensors = config().tensor_shapes();
        let names: std::collections::BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), tensors.len());
        for name in [
            "model.embed_tokens.weight",
            "model.layers.1.input_layernorm.weight",
            "model.layers.1.self_attn.k_proj.bias",
            "model.layers.1.self_attn.q_norm.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.norm.weight",
            "lm_head.weight",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_tensor_that_cannot_be_made_ends_it_with_its_error() {
        let made = Network::build(&config(), |spec| match spec.role {
            Role::Bias => Err(spec.name),
            _ => Ok(()),
        });
        assert_eq!(made.unwrap_err(), "model.layers.0.self_attn.q_proj.bias");
    }
}
