//! Memory of a training pass: the values that the operations of `kernels` keep for their backward passes.

use zerosearch_kernels::LARGEST_HEAD;
use zerosearch_lm::ModelConfig;

/// Logits that are kept for the backward pass on the CPU, and those that are otherwise computed at a time.
const KEPT_LOGITS: u64 = 1 << 25;
const BLOCK_LOGITS: u64 = 1 << 24;
/// Bytes of the logits that are there at a time on a GPU, and of the splits of attention.
const BLOCK_BYTES: u64 = 1 << 27;
const SPLIT_BYTES: u64 = 1 << 26;
/// Positions of a split.
const SPLIT: u64 = 256;

/// A training pass over a micro batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrainingPass {
    /// Rows of the network's input.
    pub(super) rows: u64,
    /// Rows from which a token is predicted that is trained on.
    pub(super) scored: u64,
    /// Tokens of the longest sequence.
    pub(super) longest: u64,
    /// Whether it runs on a GPU.
    pub(super) gpu: bool,
    /// Bytes of an activation.
    pub(super) width: u64,
    /// Whether the projections back into the residual stream of the MLP have adapters, which keep their inputs.
    pub(super) adapts_down: bool,
    /// Whether a reference scores the micro batch while the pass is kept.
    pub(super) reference: bool,
}

impl TrainingPass {
    /// Bytes of its activations at their peak, with and without gradient checkpointing.
    pub(super) fn bytes(&self, c: &ModelConfig, gradient_checkpointing: bool) -> u64 {
        let layers = c.layers as u64;
        let (kept, working) = if self.gpu { self.gpu_layer(c) } else { self.cpu_layer(c) };
        let (features, ends) = if self.gpu { self.gpu_ends(c) } else { self.cpu_ends(c) };
        let input = self.width * self.rows * c.hidden_size as u64;
        match gradient_checkpointing {
            // The ends are done with before the first layer is computed again.
            true => input * (layers + 1) + (features + ends).max(kept + working),
            false => kept * layers + (features + ends).max(working),
        }
    }

    /// Bytes that a layer keeps, and those that its backward pass works with. `kernels`' fused operations keep their inputs.
    fn cpu_layer(&self, c: &ModelConfig) -> (u64, u64) {
        let Widths { hidden, inner, q, kv } = Widths::of(c);
        let normed_heads = if c.qk_norm { q + kv } else { 0 };
        let gated = if self.adapts_down { inner } else { 0 };
        // Inputs of the norms, of the projections behind them, of attention, of its output's projection, of the gate.
        let kept = 4 * hidden + (q + 2 * kv) + q + 2 * inner + normed_heads + gated;
        // The gate computed again, and the gradients of its inputs and of the layer's output.
        let working = 3 * inner + hidden;
        (4 * self.rows * kept, 4 * self.rows * working)
    }

    /// Bytes of the last layer's output with the features and their gradient, and of the head's logits.
    fn cpu_ends(&self, c: &ModelConfig) -> (u64, u64) {
        let (hidden, vocabulary) = (c.hidden_size as u64, c.vocab_size as u64);
        let logits = self.scored * vocabulary;
        let at_a_time = (BLOCK_LOGITS / vocabulary).clamp(128, 1024).min(self.scored) * vocabulary;
        let logits = if logits <= KEPT_LOGITS { logits } else { at_a_time };
        let of_reference = if self.reference { at_a_time } else { 0 };
        (4 * (self.rows + 3 * self.scored) * hidden, 4 * (logits + of_reference))
    }

    /// As [`cpu_layer`](Self::cpu_layer), with activations in either type.
    fn gpu_layer(&self, c: &ModelConfig) -> (u64, u64) {
        let (w, Widths { hidden, inner, q, kv }) = (self.width, Widths::of(c));
        let norms = 4 * w * hidden + if c.qk_norm { 2 * w * (q + kv) } else { 0 };
        let gate = (2 + u64::from(self.adapts_down)) * w * inner;
        let (attention, scores) = self.gpu_attention(c);
        let kept = self.rows * (norms + gate) + attention;
        let working = self.rows * w * (3 * inner + 4 * hidden) + scores;
        (kept, working)
    }

    /// Bytes that attention keeps, and those that its backward pass works with: its inputs and output; or, with heads that no kernel
    /// takes, the scores of sequences that are padded to the longest.
    fn gpu_attention(&self, c: &ModelConfig) -> (u64, u64) {
        let (w, Widths { q, kv, .. }) = (self.width, Widths::of(c));
        let ends = self.rows * w * (2 * q + 2 * kv);
        if c.head_dim <= LARGEST_HEAD {
            let sums = 4 * self.rows * c.heads as u64;
            let splits = match self.longest.div_ceil(SPLIT) {
                splits if splits > 1 && w == 4 => (4 * self.rows * q * splits).min(SPLIT_BYTES),
                _ => 0,
            };
            return (ends + sums, self.rows * w * (q + 2 * kv) + sums.max(splits));
        }
        let sequences = (self.rows / self.longest.max(1)).max(1);
        let scores = c.heads as u64 * sequences * self.longest * self.longest;
        // The softmax's result in f32, the same as activations, and the mask.
        (ends + self.rows * w * kv + (8 + w) * scores, (8 + 2 * w) * scores)
    }

    /// As [`cpu_ends`](Self::cpu_ends), with the logits of some rows in f32.
    fn gpu_ends(&self, c: &ModelConfig) -> (u64, u64) {
        let row = 4 * c.vocab_size as u64;
        let at_a_time = (self.scored * row).min(BLOCK_BYTES.max(row));
        (self.scored * 12 * c.hidden_size as u64, at_a_time)
    }
}

/// Widths of a row, in numbers.
struct Widths {
    hidden: u64,
    inner: u64,
    /// Of the queries, and of keys or values.
    q: u64,
    kv: u64,
}

impl Widths {
    fn of(c: &ModelConfig) -> Self {
        Self {
            hidden: c.hidden_size as u64,
            inner: c.intermediate_size as u64,
            q: (c.heads * c.head_dim) as u64,
            kv: (c.kv_heads * c.head_dim) as u64,
        }
    }
}

/// Bytes of a decoding step's activations with so many sequences.
pub(super) fn decoding_bytes(c: &ModelConfig, sequences: u64) -> u64 {
    /// Tokens of prompts that a step computes beside those of the sequences that decode.
    const PREFILL: u64 = 512;
    let Widths { hidden, inner, q, kv } = Widths::of(c);
    let row = 3 * hidden + 2 * q + 2 * kv + 3 * inner;
    4 * ((sequences + PREFILL) * row + sequences * c.vocab_size as u64)
}
