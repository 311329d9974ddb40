//! Attention of queries over a sequence's cache, which lies in blocks of sixteen positions.

// Loops over const indices are unrolled before the compiler decides which arrays live in registers; iterators are not.
#![allow(clippy::needless_range_loop)]

use super::{LANES, lanes, multiply_add};
use crate::vector::{exponentiate, largest, vectorised, vectorised_fused};

/// Positions of one block of a cache: its scores fill one register.
pub const KV_BLOCK: usize = LANES;

/// Queries whose sums are held in registers together.
const QUERIES: usize = 4;
/// Registers of keys, or of one value's elements, that each query meets at once.
const WIDTH: usize = 4;

/// The cache of one key head: where its part stands in every block. Only the last block may be partly filled.
#[derive(Clone, Copy)]
pub struct KvBlocks<'a> {
    /// Sixteen positions each.
    pub blocks: &'a [&'a [f32]],
    /// Where the keys `[head_dim, 16]` start in a block.
    pub keys: usize,
    /// Where the values `[16, value_stride]` start in a block.
    pub values: usize,
    /// `head_dim` rounded up to a multiple of 16; what lies beyond `head_dim` is zero.
    pub value_stride: usize,
}

/// Writes a key (`[head_dim]`) as position `slot` of its block.
pub fn write_key(block: &mut [f32], slot: usize, key: &[f32]) {
    for (positions, value) in block.chunks_exact_mut(KV_BLOCK).zip(key) {
        positions[slot] = *value;
    }
}

/// Writes a value (`[head_dim]`) as position `slot` of its block.
pub fn write_value(block: &mut [f32], stride: usize, slot: usize, value: &[f32]) {
    block[slot * stride..][..value.len()].copy_from_slice(value);
}

/// Attention of adjacent positions to one key head, in scratch memory that is filled again and again.
#[derive(Default)]
pub struct Attention {
    queries: Vec<f32>,
    seen: Vec<usize>,
    scores: Vec<f32>,
    mixed: Vec<f32>,
}

impl Attention {
    /// `softmax(queries · keysᵀ / sqrt(head_dim), over the positions up to the query's own) · values`.
    ///
    /// For each of some adjacent positions, the first of them `first`, `rows` has the queries of the heads that the
    /// key head serves (`[heads, head_dim]`) and where their results go. A position's result does not depend on those
    /// beside it.
    ///
    /// # Panics
    /// When the lengths do not agree.
    pub fn run<'a>(
        &mut self,
        head_dim: usize,
        first: usize,
        rows: impl Iterator<Item = (&'a [f32], &'a mut [f32])>,
        cache: KvBlocks<'_>,
    ) {
        let scale = 1.0 / (head_dim as f32).sqrt();
        self.queries.clear();
        self.seen.clear();
        let mut outputs = Vec::new();
        for (ahead, (queries, out)) in rows.enumerate() {
            self.queries.extend(queries.iter().map(|value| value * scale));
            self.seen.extend(std::iter::repeat_n(first + ahead + 1, queries.len() / head_dim));
            outputs.push(out);
        }
        self.mixed.resize(self.seen.len() * cache.value_stride, 0.0);
        attend(&self.queries, &self.seen, cache, &mut self.scores, &mut self.mixed);
        let heads = outputs.into_iter().flat_map(|out| out.chunks_exact_mut(head_dim));
        for (out, mixed) in heads.zip(self.mixed.chunks_exact(cache.value_stride)) {
            out.copy_from_slice(&mixed[..head_dim]);
        }
    }
}

/// `softmax(queries · keysᵀ over the positions each query sees) · values`.
///
/// `queries` is `[n, head_dim]`, already scaled; query `i` sees the first `seen[i] >= 1` positions, ascending in
/// `i`; `out` is `[n, value_stride]`. A query's result does not depend on those beside it: what they see and it
/// does not enters its sums as zeros.
///
/// # Panics
/// When the lengths do not agree.
fn attend(queries: &[f32], seen: &[usize], cache: KvBlocks<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    let Some(last) = seen.last() else { return };
    let head_dim = queries.len() / seen.len();
    let width = last.div_ceil(KV_BLOCK) * KV_BLOCK;
    assert!(cache.blocks.len() * KV_BLOCK >= width, "attend: the cache is shorter than what is seen");
    assert_eq!(out.len(), seen.len() * cache.value_stride, "attend: lengths disagree");
    scores.clear();
    scores.resize(seen.len() * width, 0.0);
    let groups = || seen.chunks(QUERIES).zip(0..).map(|(seen, group)| (seen, group * QUERIES));
    vectorised_fused(
        #[inline(always)]
        |fused| {
            for (seen, first) in groups() {
                let queries = &queries[first * head_dim..][..seen.len() * head_dim];
                let cache = cache.up_to(seen[seen.len() - 1]);
                let scores = &mut scores[first * width..][..seen.len() * width];
                match seen.len() {
                    QUERIES => score::<QUERIES>(fused, queries, cache, scores),
                    3 => score::<3>(fused, queries, cache, scores),
                    2 => score::<2>(fused, queries, cache, scores),
                    _ => score::<1>(fused, queries, cache, scores),
                }
            }
        },
    );
    vectorised(
        #[inline(always)]
        || {
            for (scores, seen) in scores.chunks_exact_mut(width).zip(seen) {
                let (scores, unseen) = scores.split_at_mut(*seen);
                let total = exponentiate(scores, largest(scores));
                let inverse = 1.0 / total;
                scores.iter_mut().for_each(|score| *score *= inverse);
                unseen.fill(0.0);
            }
        },
    );
    vectorised_fused(
        #[inline(always)]
        |fused| {
            for (seen, first) in groups() {
                let cache = cache.up_to(seen[seen.len() - 1]);
                let scores = &scores[first * width..][..seen.len() * width];
                let out = &mut out[first * cache.value_stride..][..seen.len() * cache.value_stride];
                match seen.len() {
                    QUERIES => mix::<QUERIES>(fused, scores, cache, out),
                    3 => mix::<3>(fused, scores, cache, out),
                    2 => mix::<2>(fused, scores, cache, out),
                    _ => mix::<1>(fused, scores, cache, out),
                }
            }
        },
    );
}

impl KvBlocks<'_> {
    /// The blocks that hold the first `positions`.
    #[inline(always)]
    fn up_to(mut self, positions: usize) -> Self {
        self.blocks = &self.blocks[..positions.div_ceil(KV_BLOCK)];
        self
    }
}

#[inline(always)]
fn score<const Q: usize>(fused: bool, queries: &[f32], cache: KvBlocks<'_>, scores: &mut [f32]) {
    let size = queries.len() / Q * KV_BLOCK;
    let mut position = 0;
    for blocks in cache.blocks.chunks(WIDTH) {
        if let Ok(blocks) = <[&[f32]; WIDTH]>::try_from(blocks) {
            let keys = blocks.map(|block| &block[cache.keys..][..size]);
            score_tile::<Q, WIDTH>(fused, queries, keys, scores, position);
        } else {
            for (at, block) in blocks.iter().enumerate() {
                let keys = [&block[cache.keys..][..size]];
                score_tile::<Q, 1>(fused, queries, keys, scores, position + at * KV_BLOCK);
            }
        }
        position += WIDTH * KV_BLOCK;
    }
}

#[inline(always)]
fn score_tile<const Q: usize, const B: usize>(
    fused: bool,
    queries: &[f32],
    keys: [&[f32]; B],
    scores: &mut [f32],
    position: usize,
) {
    let (head_dim, width) = (queries.len() / Q, scores.len() / Q);
    assert!(queries.len() == Q * head_dim);
    for keys in &keys {
        assert!(keys.len() == head_dim * KV_BLOCK);
    }
    let mut sums = [[[0f32; LANES]; B]; Q];
    for d in 0..head_dim {
        let mut key = [[0f32; LANES]; B];
        for b in 0..B {
            // SAFETY: `(d + 1) * KV_BLOCK <= head_dim * KV_BLOCK`, the length of each.
            key[b] = lanes(unsafe { keys[b].get_unchecked(d * KV_BLOCK..(d + 1) * KV_BLOCK) });
        }
        for q in 0..Q {
            // SAFETY: `q * head_dim + d < Q * head_dim`, the length.
            let query = unsafe { *queries.get_unchecked(q * head_dim + d) };
            for b in 0..B {
                for lane in 0..LANES {
                    sums[q][b][lane] = multiply_add(fused, query, key[b][lane], sums[q][b][lane]);
                }
            }
        }
    }
    for q in 0..Q {
        for b in 0..B {
            let sums = sums[q][b];
            scores[q * width + position + b * KV_BLOCK..][..LANES].copy_from_slice(&sums);
        }
    }
}

#[inline(always)]
fn mix<const Q: usize>(fused: bool, weights: &[f32], cache: KvBlocks<'_>, out: &mut [f32]) {
    let mut column = 0;
    while column < cache.value_stride {
        if cache.value_stride - column >= WIDTH * LANES {
            mix_tile::<Q, WIDTH>(fused, weights, cache, column, out);
            column += WIDTH * LANES;
        } else {
            mix_tile::<Q, 1>(fused, weights, cache, column, out);
            column += LANES;
        }
    }
}

#[inline(always)]
fn mix_tile<const Q: usize, const C: usize>(
    fused: bool,
    weights: &[f32],
    cache: KvBlocks<'_>,
    column: usize,
    out: &mut [f32],
) {
    let (width, stride) = (weights.len() / Q, cache.value_stride);
    assert!(weights.len() == Q * width && cache.blocks.len() * KV_BLOCK <= width && column + C * LANES <= stride);
    let mut sums = [[[0f32; LANES]; C]; Q];
    for (block, values) in cache.blocks.iter().enumerate() {
        let values = &values[cache.values..][..KV_BLOCK * stride];
        for slot in 0..KV_BLOCK {
            let mut value = [[0f32; LANES]; C];
            for c in 0..C {
                let start = slot * stride + column + c * LANES;
                // SAFETY: `column + C * LANES <= stride`, so it ends at `(slot + 1) * stride` at the latest.
                value[c] = lanes(unsafe { values.get_unchecked(start..start + LANES) });
            }
            for q in 0..Q {
                // SAFETY: the position is one of the blocks', of which there are `width` at most.
                let weight = unsafe { *weights.get_unchecked(q * width + block * KV_BLOCK + slot) };
                for c in 0..C {
                    for lane in 0..LANES {
                        sums[q][c][lane] = multiply_add(fused, weight, value[c][lane], sums[q][c][lane]);
                    }
                }
            }
        }
    }
    for q in 0..Q {
        for c in 0..C {
            let sums = sums[q][c];
            out[q * stride + column + c * LANES..][..LANES].copy_from_slice(&sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::values;
    use super::*;
    use proptest::prelude::*;

    /// The blocks of one key head; values are the keys backwards. Keys have rubbish where nothing was written.
    fn blocks(rows: &[f32], head_dim: usize, stride: usize) -> Vec<Vec<f32>> {
        let mut blocks = Vec::new();
        for rows in rows.chunks(KV_BLOCK * head_dim) {
            let mut block = vec![7.5; head_dim * KV_BLOCK];
            block.resize((head_dim + stride) * KV_BLOCK, 0.0);
            for (slot, row) in rows.chunks_exact(head_dim).enumerate() {
                let (keys, values) = block.split_at_mut(head_dim * KV_BLOCK);
                write_key(keys, slot, row);
                let reversed: Vec<f32> = row.iter().rev().copied().collect();
                write_value(values, stride, slot, &reversed);
            }
            blocks.push(block);
        }
        blocks
    }

    proptest! {
        #[test]
        fn attention_agrees_with_the_formula_and_never_depends_on_the_queries_beside(
            head_dim in 1usize..90, length in 1usize..200, count in 1usize..11, seed: u32
        ) {
            let stride = head_dim.next_multiple_of(LANES);
            let rows = values(length * head_dim, seed);
            let blocks = blocks(&rows, head_dim, stride);
            let blocks: Vec<&[f32]> = blocks.iter().map(|block| &block[..]).collect();
            let cache = KvBlocks { blocks: &blocks, keys: 0, values: head_dim * KV_BLOCK, value_stride: stride };
            let queries: Vec<f32> = values(count * head_dim, seed ^ 9).iter().map(|v| v * 4.0).collect();
            let seen: Vec<usize> = (0..count).map(|i| (length * (i + 1) / count).max(1)).collect();
            let mut out = vec![0.0; count * stride];
            attend(&queries, &seen, cache, &mut Vec::new(), &mut out);
            for (i, seen) in seen.iter().enumerate() {
                let query = &queries[i * head_dim..][..head_dim];
                let mut alone = vec![0.0; stride];
                attend(query, &[*seen], cache, &mut Vec::new(), &mut alone);
                prop_assert_eq!(&alone, &out[i * stride..][..stride]);
                let score = |t: usize| (0..head_dim).map(|d| f64::from(query[d]) * f64::from(rows[t * head_dim + d])).sum::<f64>();
                let total: f64 = (0..*seen).map(|t| score(t).exp()).sum();
                for d in 0..head_dim {
                    let exact: f64 = (0..*seen).map(|t| score(t).exp() / total * f64::from(rows[t * head_dim + head_dim - 1 - d])).sum();
                    prop_assert!((exact - f64::from(alone[d])).abs() < 1e-5);
                }
            }
        }
    }
}
