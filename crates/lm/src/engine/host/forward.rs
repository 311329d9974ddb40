//! The forward pass on the host, some tokens of many sequences at a time.
//!
//! All rows go through a layer together, so a weight is read once for all of them, and every row is
//! computed in an order that does not depend on the rows beside it (see [`zerosearch_kernels::host`]):
//! a sequence gets the same bits whichever others are in the batch and however its tokens are cut into calls.

use rayon::prelude::*;
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

impl Step<'_> {
    /// Takes every sequence's tokens through the network, keys and values into the blocks that are written. The logits
    /// of the draws, `[draws, vocab]`, in their order.
    pub(super) fn run(&self, weights: &PackedNetwork, written: &mut [Written]) -> Vec<f32> {
        // Inside the pool, where one parallel operation follows another without waking a thread.
        let mut logits = Vec::new();
        rayon::scope(|_| {
            let hidden = self.hidden(weights, written);
            logits = self.logits(weights, &hidden);
        });
        logits
    }

    /// The last layer's output, `[rows, hidden]`.
    fn hidden(&self, weights: &PackedNetwork, written: &mut [Written]) -> Vec<f32> {
        let c = self.config;
        let rows: usize = self.rows.iter().map(|rows| rows.tokens.len()).sum();
        let mut x = vec![0.0; rows * c.hidden_size];
        let tokens = self.rows.iter().flat_map(|rows| rows.tokens);
        for (row, token) in x.chunks_exact_mut(c.hidden_size).zip(tokens) {
            weights.embedding.copy_row(*token as usize, row);
        }
        let positions = self.rows.iter().flat_map(|rows| rows.start..rows.start + rows.tokens.len());
        let (cos, sin) = c.rotary_tables(positions);
        let mut normed = vec![0.0; x.len()];
        let mut gated = vec![0.0; rows * c.intermediate_size];
        for (index, layer) in weights.layers.iter().enumerate() {
            host::rms_norm_rows(&x, &layer.input_norm, c.rms_norm_eps, &mut normed);
            let mut qkv = layer.qkv.forward(&normed, rows);
            self.rotate(layer, &mut qkv, &cos, &sin);
            let attended = self.attention(index, &qkv, written);
            host::add_rows(&mut x, &layer.o.forward(&attended, rows));
            host::rms_norm_rows(&x, &layer.post_norm, c.rms_norm_eps, &mut normed);
            host::swiglu_rows(&layer.gate_up.forward(&normed, rows), c.intermediate_size, &mut gated);
            host::add_rows(&mut x, &layer.down.forward(&gated, rows));
        }
        x
    }

    fn logits(&self, weights: &PackedNetwork, x: &[f32]) -> Vec<f32> {
        let c = self.config;
        let mut last = Vec::new();
        let mut end = 0;
        for rows in self.rows {
            end += rows.tokens.len() * c.hidden_size;
            if rows.draw.is_some() {
                last.extend_from_slice(&x[end - c.hidden_size..end]);
            }
        }
        let mut normed = vec![0.0; last.len()];
        host::rms_norm_rows(&last, &weights.norm, c.rms_norm_eps, &mut normed);
        let mut logits = vec![0.0; last.len() / c.hidden_size * c.vocab_size];
        weights.head.as_ref().unwrap_or(&weights.embedding).multiply(&normed, &mut logits);
        logits
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

    /// Writes keys and values and attends to them: `[rows, heads · head_dim]`.
    fn attention(&self, index: usize, qkv: &[f32], written: &mut [Written]) -> Vec<f32> {
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
        let mut attended = vec![0.0; qkv.len() / width * q_width];
        let blocks = parts.iter().zip(&*written).map(|((rows, _), written)| self.store.blocks(rows, written));
        let blocks: Vec<Vec<&[f32]>> = blocks.collect();
        let mut tasks = Vec::new();
        let mut rest = &mut attended[..];
        for ((rows, part), blocks) in parts.iter().zip(&blocks) {
            let end = rows.start + rows.tokens.len();
            let tile = (SCORES / (end * c.heads / c.kv_heads)).clamp(1, TILE);
            for (first, queries) in (rows.start..).step_by(tile).zip(part.chunks(tile * width)) {
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
        attended
    }
}
