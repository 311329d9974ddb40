//! A counter of an engine's calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::forward_to_the_engine_inside;
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine that counts the queries it is given, answered or failed.
///
/// It stands at the real engine, so that "no real search during training" is measured there and not
/// assumed elsewhere.
///
/// ```
/// use zerosearch_search::{Bm25Index, Counted, Document, Query, SearchEngine};
///
/// let engine = Counted::new(Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?);
/// let calls = engine.calls();
/// assert_eq!(calls.total(), 0);
/// let query = Query { text: "fox", top_k: 1, context: None };
/// engine.search_batch(&[query, query]);
/// assert_eq!(calls.total(), 2);
/// # Ok::<(), zerosearch_search::SearchError>(())
/// ```
#[derive(Debug)]
pub struct Counted<E> {
    engine: E,
    calls: CallCount,
}

/// Reads a [`Counted`] engine's count from outside. Clones read the same count.
#[derive(Clone, Debug, Default)]
pub struct CallCount(Arc<AtomicU64>);

impl<E> Counted<E> {
    /// Counts from zero.
    pub fn new(engine: E) -> Self {
        Self { engine, calls: CallCount::default() }
    }

    /// A handle that stays valid while the engine is lent, moved or dropped.
    pub fn calls(&self) -> CallCount {
        self.calls.clone()
    }
}

impl CallCount {
    /// Queries so far. Each query of a batch counts.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl<E: SearchEngine> SearchEngine for Counted<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.calls.0.fetch_add(1, Ordering::SeqCst);
        self.engine.search(query)
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        self.calls.0.fetch_add(queries.len() as u64, Ordering::SeqCst);
        self.engine.search_batch(queries)
    }

    forward_to_the_engine_inside!();
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing;

    impl SearchEngine for Failing {
        fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
            Err(SearchError::Index("down".into()))
        }
    }

    #[test]
    fn failures_and_threads_count() {
        let engine = Counted::new(Failing);
        let calls = engine.calls();
        let query = Query { text: "x", top_k: 1, context: None };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| drop(engine.search(&query))));
            }
        });
        assert_eq!(engine.search_batch(&[query; 3]).len(), 3);
        drop(engine);
        assert_eq!(calls.total(), 403);
    }
}
