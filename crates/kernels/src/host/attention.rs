//! Attention of queries over a sequence's cache, which lies in blocks of sixteen positions.

// Loops over const indices are unrolled before the compiler decides which arrays live in registers; iterators are not.
#![allow(clippy::needless_range_loop)]

use crate::simd::{LANES, Simd, Work, with_simd};
use crate::tile::{Shaped, heights, tile, widths, with_shape};
use crate::vector::{exponentiate, largest, vectorised};

/// Positions of one block of a cache: its scores fill one register.
pub const KV_BLOCK: usize = LANES;

/// The cache of one key head: where its part stands in every block. Only the last block may be partly filled.
#[derive(Clone, Copy)]
pub struct KvBlocks<'a> {
    /// Sixteen positions each.
    pub blocks: &'a [&'a [f32]],
    /// Offset of the keys `[head_dim, 16]` in a block.
    pub keys: usize,
    /// Offset of the values `[16, value_stride]` in a block.
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
    let width = last.div_ceil(KV_BLOCK) * KV_BLOCK;
    assert!(cache.blocks.len() * KV_BLOCK >= width, "attend: the cache is shorter than what is seen");
    assert_eq!(out.len(), seen.len() * cache.value_stride, "attend: lengths disagree");
    scores.clear();
    scores.resize(seen.len() * width, 0.0);
    with_simd(Score { queries, seen, cache, scores });
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
    with_simd(Mix { weights: scores, seen, cache, out });
}

/// `queries · keysᵀ`, up to the end of the last block that one of a tile's queries sees.
struct Score<'a> {
    /// `[n, head_dim]`.
    queries: &'a [f32],
    seen: &'a [usize],
    cache: KvBlocks<'a>,
    /// `[n, width]`.
    scores: &'a mut [f32],
}

impl Work for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { queries, seen, cache, scores } = self;
        let (head_dim, width) = (queries.len() / seen.len(), scores.len() / seen.len());
        for (first, height) in heights::<S>(seen.len()) {
            let blocks = cache.seen_by(&seen[first..first + height]);
            assert!(blocks.len() * KV_BLOCK <= width);
            for (block, together) in widths::<S>(seen.len(), blocks.len()) {
                let blocks = &blocks[block..block + together];
                assert!(blocks.iter().all(|block| cache.keys + head_dim * KV_BLOCK <= block.len()));
                let queries = queries[first * head_dim..][..height * head_dim].as_ptr();
                let scores = scores[first * width + block * KV_BLOCK..].as_mut_ptr();
                let tile = ScoreTile { queries, head_dim, blocks, keys: cache.keys, scores, width };
                // SAFETY: the queries, the keys and the scores are there, as checked above.
                unsafe { with_shape::<S, _>(height, together, tile) };
            }
        }
    }
}

struct ScoreTile<'a> {
    queries: *const f32,
    head_dim: usize,
    blocks: &'a [&'a [f32]],
    keys: usize,
    scores: *mut f32,
    width: usize,
}

impl Shaped for ScoreTile<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const P: usize>(self) {
        let Self { queries, head_dim, blocks, keys, scores, width } = self;
        // SAFETY: the caller's promise.
        unsafe {
            let mut panels = [std::ptr::null(); P];
            for p in 0..P {
                panels[p] = blocks.get_unchecked(p).as_ptr().add(keys);
            }
            let sums = [[S::zero(); P]; R];
            let sums = tile::<S, f32, false, R, P>(queries, head_dim, panels, LANES, head_dim, sums, None);
            for r in 0..R {
                for p in 0..P {
                    S::store(sums[r][p], scores.add(r * width + p * KV_BLOCK));
                }
            }
        }
    }
}

/// `weights · values`.
struct Mix<'a> {
    /// `[n, width]`.
    weights: &'a [f32],
    seen: &'a [usize],
    cache: KvBlocks<'a>,
    /// `[n, value_stride]`.
    out: &'a mut [f32],
}

impl Work for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { weights, seen, cache, out } = self;
        let (width, stride) = (weights.len() / seen.len(), cache.value_stride);
        assert!(stride.is_multiple_of(LANES) && out.len() == seen.len() * stride);
        for (first, height) in heights::<S>(seen.len()) {
            let blocks = cache.seen_by(&seen[first..first + height]);
            assert!(blocks.len() * KV_BLOCK <= width);
            assert!(blocks.iter().all(|block| cache.values + KV_BLOCK * stride <= block.len()));
            for (column, together) in widths::<S>(seen.len(), stride / LANES) {
                let weights = weights[first * width..][..height * width].as_ptr();
                let out = out[first * stride + column * LANES..].as_mut_ptr();
                let values = cache.values + column * LANES;
                let tile = MixTile { weights, width, blocks, values, out, stride };
                // SAFETY: the weights, the values and the results are there, as checked above.
                unsafe { with_shape::<S, _>(height, together, tile) };
            }
        }
    }
}

struct MixTile<'a> {
    weights: *const f32,
    width: usize,
    blocks: &'a [&'a [f32]],
    values: usize,
    out: *mut f32,
    stride: usize,
}

impl Shaped for MixTile<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const P: usize>(self) {
        let Self { weights, width, blocks, values, out, stride } = self;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[S::zero(); P]; R];
            let mut weights = weights;
            for block in blocks {
                let mut panels = [std::ptr::null(); P];
                for p in 0..P {
                    panels[p] = block.as_ptr().add(values + p * LANES);
                }
                sums = tile::<S, f32, false, R, P>(weights, width, panels, stride, KV_BLOCK, sums, None);
                weights = weights.add(KV_BLOCK);
            }
            for r in 0..R {
                for p in 0..P {
                    S::store(sums[r][p], out.add(r * stride + p * LANES));
                }
            }
        }
    }
}

impl<'a> KvBlocks<'a> {
    /// The blocks that one of these queries sees; the last sees most.
    #[inline(always)]
    fn seen_by(&self, seen: &[usize]) -> &'a [&'a [f32]] {
        &self.blocks[..seen.last().map_or(0, |positions| positions.div_ceil(KV_BLOCK))]
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
