//! The forward pass on the host, some tokens of many sequences at a time.
//!
//! All rows go through a layer together, so a weight is read once for all of them, and every row is
//! computed in an order that does not depend on the rows beside it (see [`zerosearch_kernels::host`]):
//! a sequence gets the same bits whichever others are in the batch and however its tokens are cut into calls.

use rayon::prelude::*;
use zerosearch_generate::TokenId;
use zerosearch_kernels::host::{self, Attention};

use super::blocks::{Store, Written};
use super::weights::{PackedLayer, PackedNetwork};
use crate::ModelConfig;
use crate::engine::Rows;

/// Rows of one sequence whose attention is one task.
const TILE: usize = 16;
/// Scores that a task holds at most, where a tile of one row allows it (512 KiB).
const SCORES: usize = 1 << 17;

/// The sequences that a step computes and the blocks that it reads.
pub(super) struct Step<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) store: &'a Store,
    pub(super) rows: &'a [Rows<'a>],
}

/// Memory of a step, kept for the next one: the system clears every page that it gives.
#[derive(Default)]
pub(super) struct Activations {
    /// `[rows, hidden]`, as all whose width is not said.
    x: Vec<f32>,
    normed: Vec<f32>,
    /// Of a projection, to be added to `x`.
    added: Vec<f32>,
    /// `[rows, heads · head_dim + 2 · kv_heads · head_dim]`.
    qkv: Vec<f32>,
    /// `[rows, heads · head_dim]`.
    attended: Vec<f32>,
    /// `[rows, 2 · intermediate]`.
    gate_up: Vec<f32>,
    /// `[rows, intermediate]`.
    gated: Vec<f32>,
    /// `[draws, vocab]`.
    pub(super) logits: Vec<f32>,
}

impl Step<'_> {
    /// Takes every sequence's tokens through the network, keys and values into the blocks that are written. It leaves the
    /// logits of the draws, in their order.
    pub(super) fn run(&self, weights: &PackedNetwork, written: &mut [Written], buffers: &mut Activations) {
        // Inside the pool, where one parallel operation follows another.
        rayon::scope(|_| {
            let _awake = host::ThreadsAwake::hold();
            self.hidden(weights, written, buffers);
            self.logits(weights, buffers);
        });
    }

    /// The last layer's output at the tokens from which others are drawn, in `x`.
    fn hidden(&self, weights: &PackedNetwork, written: &mut [Written], buffers: &mut Activations) {
        let c = self.config;
        let Activations { x, normed, added, qkv, attended, gate_up, gated, .. } = buffers;
        let tokens: Vec<TokenId> = self.rows.iter().flat_map(|rows| rows.tokens).copied().collect();
        let mut rows = tokens.len();
        host::resize_buffer(x, rows * c.hidden_size);
        host::resize_buffer(normed, x.len());
        host::resize_buffer(gated, rows * c.intermediate_size);
        x.par_chunks_exact_mut(c.hidden_size).zip(tokens).with_min_len(TILE).for_each(|(row, token)| {
            weights.embedding.copy_row(token as usize, row);
        });
        let positions = self.rows.iter().flat_map(|rows| rows.start..rows.start + rows.tokens.len());
        let (cos, sin) = c.rotary_tables(positions);
        for (index, layer) in weights.layers.iter().enumerate() {
            host::rms_norm_rows(x, &layer.input_norm, c.rms_norm_eps, normed);
            layer.qkv.forward(normed, rows, qkv);
            self.rotate(layer, qkv, &cos, &sin);
            // Behind the last layer's keys and values only the tokens matter from which others are drawn.
            let is_last = index + 1 == weights.layers.len();
            self.attention(index, qkv, written, attended, is_last);
            if is_last {
                rows = self.keep_drawing(x);
                host::resize_buffer(normed, x.len());
                host::resize_buffer(gated, rows * c.intermediate_size);
                if rows == 0 {
                    break;
                }
            }
            layer.o.forward(attended, rows, added);
            host::add_rows(x, added);
            host::rms_norm_rows(x, &layer.post_norm, c.rms_norm_eps, normed);
            layer.gate_up.forward(normed, rows, gate_up);
            host::swiglu_rows(gate_up, c.intermediate_size, gated);
            layer.down.forward(gated, rows, added);
            host::add_rows(x, added);
        }
    }

    /// Leaves the rows of the tokens from which others are drawn, and says how many they are.
    fn keep_drawing(&self, x: &mut Vec<f32>) -> usize {
        let hidden = self.config.hidden_size;
        let (mut kept, mut end) = (0, 0);
        for rows in self.rows {
            end += rows.tokens.len() * hidden;
            if rows.draw.is_some() {
                x.copy_within(end - hidden..end, kept);
                kept += hidden;
            }
        }
        x.truncate(kept);
        kept / hidden
    }

    fn logits(&self, weights: &PackedNetwork, buffers: &mut Activations) {
        let c = self.config;
        let Activations { x, normed, logits, .. } = buffers;
        host::rms_norm_rows(x, &weights.norm, c.rms_norm_eps, normed);
        host::resize_buffer(logits, x.len() / c.hidden_size * c.vocab_size);
        weights.head.as_ref().unwrap_or(&weights.embedding).multiply(normed, logits);
    }

    /// Normalises where the model does, then rotates queries and keys in place.
    fn rotate(&self, layer: &PackedLayer, qkv: &mut [f32], cos: &[f32], sin: &[f32]) {
        let c = self.config;
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let (width, half) = (q_width + 2 * kv_width, c.head_dim / 2);
        let rows = qkv.par_chunks_exact_mut(width).zip(cos.par_chunks_exact(half).zip(sin.par_chunks_exact(half)));
        rows.with_min_len(TILE).for_each_init(Vec::new, |raw, (row, (cos, sin))| {
            let (q, kv) = row.split_at_mut(q_width);
            for (heads, norm) in [(q, &layer.q_norm), (&mut kv[..kv_width], &layer.k_norm)] {
                if let Some(norm) = norm {
                    raw.clear();
                    raw.extend_from_slice(heads);
                    host::rms_norm_rows(raw, norm, c.rms_norm_eps, heads);
                }
                host::rotate_row(heads, cos, sin);
            }
        });
    }

    /// Writes keys and values and attends to them: from all tokens, or only from those from which others are drawn.
    fn attention(
        &self,
        index: usize,
        qkv: &[f32],
        written: &mut [Written],
        attended: &mut Vec<f32>,
        only_drawing: bool,
    ) {
        let (c, layout) = (self.config, self.store.layout());
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let width = q_width + 2 * kv_width;
        let mut rest = qkv;
        let mut parts = Vec::with_capacity(self.rows.len());
        for rows in self.rows {
            let (part, others) = rest.split_at(rows.tokens.len() * width);
            rest = others;
            parts.push((rows, part));
        }
        written.par_iter_mut().zip(&parts).for_each(|(written, (rows, part))| {
            for (position, row) in (rows.start..).zip(part.chunks_exact(width)) {
                let (keys, values) = row[q_width..].split_at(kv_width);
                written.write(layout, index, position, keys, values);
            }
        });
        // How many of a sequence's tokens, the last ones, attend.
        let attending = |rows: &Rows<'_>| match only_drawing {
            true => usize::from(rows.draw.is_some()),
            false => rows.tokens.len(),
        };
        host::resize_buffer(attended, self.rows.iter().map(attending).sum::<usize>() * q_width);
        let blocks = parts.iter().zip(&*written).map(|((rows, _), written)| self.store.blocks(rows, written));
        let blocks: Vec<Vec<&[f32]>> = blocks.collect();
        let mut tasks = Vec::new();
        let mut rest = &mut attended[..];
        for ((rows, part), blocks) in parts.iter().zip(&blocks) {
            let end = rows.start + rows.tokens.len();
            let tile = (SCORES / (end * c.heads / c.kv_heads)).clamp(1, TILE);
            let count = attending(rows);
            let part = &part[part.len() - count * width..];
            for (first, queries) in (end - count..).step_by(tile).zip(part.chunks(tile * width)) {
                let (out, others) = std::mem::take(&mut rest).split_at_mut(queries.len() / width * q_width);
                rest = others;
                tasks.push((first, queries, &blocks[..], out));
            }
        }
        let group = c.heads / c.kv_heads * c.head_dim;
        tasks.into_par_iter().for_each_init(Attention::default, |attention, (first, queries, blocks, out)| {
            for head in 0..c.kv_heads {
                let columns = head * group..(head + 1) * group;
                let rows = queries.chunks_exact(width).zip(out.chunks_exact_mut(q_width));
                let rows = rows.map(|(queries, out)| (&queries[columns.clone()], &mut out[columns.clone()]));
                attention.run(c.head_dim, first, rows, layout.view(blocks, index, head));
            }
        });
    }
}
