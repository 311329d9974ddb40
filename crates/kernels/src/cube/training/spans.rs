//! Packed spans as tables in a GPU's memory.

use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use cubecl::prelude::*;

use super::super::GpuBuffer;
use super::super::attention::TILE_WORDS as QUERY_TILE;
use crate::PackedSpan;

/// Numbers of a tile of keys: its first row, its rows, its first visit, the visit after its last.
pub(super) const KEY_TILE: usize = 4;
/// Numbers of a visit, which is what a tile of keys has to do with one span: the first query and the one after the last, the first key
/// and the one after the last, and 1 where a query sees no keys behind it.
pub(super) const VISIT: usize = 5;

/// A table of whole numbers, one line after another.
pub(super) struct Table {
    pub(super) buffer: GpuBuffer,
    /// Lines of the table.
    pub(super) lines: usize,
}

impl Table {
    fn new(beside: &FloatTensor<Cube>, lines: &[impl AsRef<[u32]>]) -> Self {
        let mut words: Vec<u32> = lines.iter().flat_map(|line| line.as_ref().iter().copied()).collect();
        // A buffer of nothing cannot be bound.
        words.resize(words.len().max(1), 0);
        let handle = beside.client.create_from_slice(u32::as_bytes(&words));
        Self { buffer: GpuBuffer::over(handle, words.len()), lines: lines.len() }
    }
}

/// Tiles of up to `tile` queries.
pub(super) fn queries(spans: &[PackedSpan], tile: usize, beside: &FloatTensor<Cube>) -> Table {
    Table::new(beside, &query_lines(spans, tile))
}

/// Tiles of up to `tile` keys, and the visits that they list.
pub(super) fn keys(spans: &[PackedSpan], tile: usize, beside: &FloatTensor<Cube>) -> [Table; 2] {
    let (keys, visits) = key_lines(spans, tile);
    [Table::new(beside, &keys), Table::new(beside, &visits)]
}

fn query_lines(spans: &[PackedSpan], tile: usize) -> Vec<[u32; QUERY_TILE]> {
    let mut queries = Vec::new();
    for PackedSpan { shared, own } in spans {
        for first in own.clone().step_by(tile) {
            let count = tile.min(own.end - first);
            queries.push([first, count, shared.start, shared.len(), own.start].map(|number| number as u32));
        }
    }
    queries
}

fn key_lines(spans: &[PackedSpan], tile: usize) -> (Vec<[u32; KEY_TILE]>, Vec<[u32; VISIT]>) {
    let (mut keys, mut visits) = (Vec::new(), Vec::new());
    for (index, PackedSpan { own, .. }) in spans.iter().enumerate() {
        for first in own.clone().step_by(tile) {
            let end = own.end.min(first + tile);
            let begin = visits.len();
            visits.push([first, own.end, first, end, 1].map(|number| number as u32));
            for later in &spans[index + 1..] {
                let (from, to) = (later.shared.start.max(first), later.shared.end.min(end));
                if from < to && !later.own.is_empty() {
                    visits.push([later.own.start, later.own.end, from, to, 0].map(|number| number as u32));
                }
            }
            keys.push([first, end - first, begin, visits.len()].map(|number| number as u32));
        }
    }
    (keys, visits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Pairs of a query and a key that the spans let see each other.
    fn pairs(spans: &[PackedSpan]) -> BTreeSet<(usize, usize)> {
        let of_span = |PackedSpan { shared, own }: &PackedSpan| {
            let keys = |query| shared.clone().chain(own.start..query + 1).map(move |key| (query, key));
            own.clone().flat_map(keys).collect::<Vec<_>>()
        };
        spans.iter().flat_map(of_span).collect()
    }

    #[test]
    fn every_pair_is_visited_once_from_either_side() {
        let span = |shared, own| PackedSpan { shared, own };
        for spans in [
            vec![span(0..0, 0..1)],
            vec![span(0..0, 0..40), span(0..37, 40..70), span(0..37, 70..71), span(0..0, 71..71), span(0..0, 71..90)],
            vec![span(0..0, 0..16), span(5..16, 16..33), span(20..22, 33..41)],
        ] {
            let (queries, (keys, visits)) = (query_lines(&spans, 8), key_lines(&spans, 16));
            let mut by_keys = Vec::new();
            for [first, count, begin, end] in keys.iter().map(|line| line.map(|number| number as usize)) {
                for visit in &visits[begin..end] {
                    let [query_first, query_end, from, to, own] = visit.map(|number| number as usize);
                    for query in query_first..query_end {
                        let seen = (first..first + count).filter(|key| (from..to).contains(key));
                        by_keys.extend(seen.filter(|key| own == 0 || *key <= query).map(|key| (query, key)));
                    }
                }
            }
            let mut by_queries = Vec::new();
            for line in &queries {
                let [first, count, shared, shared_length, own] = line.map(|number| number as usize);
                for query in first..first + count {
                    let keys = (shared..shared + shared_length).chain(own..query + 1);
                    by_queries.extend(keys.map(|key| (query, key)));
                }
            }
            for found in [by_keys, by_queries] {
                assert_eq!(found.len(), found.iter().collect::<BTreeSet<_>>().len(), "{spans:?}");
                assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), pairs(&spans), "{spans:?}");
            }
        }
    }
}
