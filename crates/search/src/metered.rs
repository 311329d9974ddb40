//! An engine whose usage goes into the ledger.

use zerosearch_generate::{Account, Usage};

use crate::engine::forward_to_the_engine_inside;
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine whose queries, failures and time are reported to an account of a [`Ledger`](zerosearch_generate::Ledger).
///
/// ```
/// use zerosearch_generate::{Ledger, Role};
/// use zerosearch_search::{Bm25Index, Document, Metered, Query, SearchEngine};
///
/// let ledger = Ledger::new();
/// let engine = Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?;
/// let engine = Metered::new(engine, ledger.account(Role::Engine));
/// engine.search(&Query { text: "fox", top_k: 1, context: None })?;
/// assert_eq!(ledger.usage(Role::Engine).calls, 1);
/// # Ok::<(), zerosearch_search::SearchError>(())
/// ```
#[derive(Debug)]
pub struct Metered<E> {
    engine: E,
    account: Account,
}

impl<E> Metered<E> {
    /// Reports to this account.
    pub fn new(engine: E, account: Account) -> Self {
        Self { engine, account }
    }

    fn count(&self, calls: usize, failures: usize) {
        self.account.add(Usage { calls: calls as u64, failures: failures as u64, ..Usage::default() });
    }
}

impl<E: SearchEngine> SearchEngine for Metered<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let _working = self.account.begin();
        let found = self.engine.search(query);
        self.count(1, usize::from(found.is_err()));
        found
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let _working = self.account.begin();
        let found = self.engine.search_batch(queries);
        self.count(queries.len(), found.iter().filter(|found| found.is_err()).count());
        found
    }

    forward_to_the_engine_inside!();
}
