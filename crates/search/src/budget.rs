//! A limit on the number of calls of an engine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use zerosearch_files::parse_rows;

use crate::engine::forward_to_the_engine_inside;
use crate::tape::open_rows;
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine that is asked so many times and no more: beyond that, a search is [`SearchError::BudgetSpent`].
///
/// Each query counts, answered or failed, since a service may charge for both. With a [file](Self::with_file) the count goes on
/// when a run is resumed. Calls are written down before they are made, so that a process that is killed has counted too many
/// rather than too few.
///
/// ```
/// use zerosearch_search::{Bm25Index, Budgeted, Document, Query, SearchEngine};
///
/// let folder = tempfile::tempdir()?;
/// let engine = Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?;
/// // Five dollars at a cent each.
/// let engine = Budgeted::with_file(engine, Budgeted::calls_for(5.0, 0.01)?, folder.path().join("budget.jsonl"))?;
/// engine.search(&Query { text: "fox", top_k: 1, context: None })?;
/// assert_eq!(engine.calls_left(), 499);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Budgeted<E> {
    engine: E,
    calls: u64,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    calls: u64,
    file: Option<(PathBuf, File)>,
    /// Calls that are not in the file yet.
    unwritten: u64,
    has_warned: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    calls: u64,
}

impl Budgeted<()> {
    /// The queries that an amount of money pays for, at a price for each in the same currency.
    ///
    /// # Errors
    /// [`SearchError::Setting`] unless the amount is a number and the price a positive one.
    pub fn calls_for(amount: f64, price: f64) -> Result<u64, SearchError> {
        let refused = |name, value: f64, expected| SearchError::Setting { name, value: value.to_string(), expected };
        if !(amount.is_finite() && amount >= 0.0) {
            return Err(refused("budget", amount, "an amount of money, 0 or more"));
        }
        if !(price.is_finite() && price > 0.0) {
            return Err(refused("price", price, "the price of a query, more than 0"));
        }
        // Five dollars are five hundred cents, and not 499 for want of a last bit.
        Ok((amount / price * (1.0 + 1e-12)).floor() as u64)
    }
}

impl<E> Budgeted<E> {
    /// At most `calls` queries, counted in memory.
    pub fn new(engine: E, calls: u64) -> Self {
        Self { engine, calls, spent: Mutex::default() }
    }

    /// At most `calls` queries together with those of earlier processes, which the file tells; a missing file is begun. A last
    /// line that was cut short is left out with a warning.
    ///
    /// # Errors
    /// [`SearchError::File`] when the file cannot be opened or a line of it is not a count.
    pub fn with_file(engine: E, calls: u64, path: impl AsRef<Path>) -> Result<Self, SearchError> {
        let path = path.as_ref();
        let (file, spent) = open_rows(path, "budget's file", |bytes| parse(path, bytes))?;
        let spent = Spent { calls: spent, file: Some((path.to_path_buf(), file)), ..Spent::default() };
        Ok(Self { engine, calls, spent: Mutex::new(spent) })
    }

    /// Queries that may still be asked.
    pub fn calls_left(&self) -> u64 {
        self.calls.saturating_sub(self.spent.lock().unwrap_or_else(PoisonError::into_inner).calls)
    }

    /// Takes up to `wanted` queries out of what is left.
    fn take(&self, wanted: usize) -> usize {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.calls.saturating_sub(spent.calls).min(wanted as u64);
        spent.calls += taken;
        spent.unwritten += taken;
        spent.write();
        taken as usize
    }

    fn over(&self) -> SearchError {
        SearchError::BudgetSpent { calls: self.calls }
    }
}

/// The calls of all rows, and the length in bytes up to the end of the last whole one.
fn parse(path: &Path, bytes: &[u8]) -> Result<(u64, usize), SearchError> {
    let rows = parse_rows(path, bytes, serde_json::from_slice::<Row>).map_err(|error| {
        let message =
            format!("not a count of calls: {}; expected `{{\"calls\": 1}}`, or delete the file", error.message);
        SearchError::File { path: format!("{}:{}", path.display(), error.line), message }
    })?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let last_is_whole = serde_json::from_slice::<Row>(bytes[end..].trim_ascii()).is_ok();
    let calls = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.calls));
    Ok((calls, if last_is_whole { bytes.len() } else { end }))
}

impl Spent {
    fn write(&mut self) {
        let Self { file: Some((path, file)), unwritten: calls @ 1.., has_warned, .. } = self else { return };
        let row = format!("{{\"calls\": {calls}}}\n");
        match zerosearch_files::append(file, path, row.as_bytes()) {
            Ok(()) => *calls = 0,
            Err(error) if !std::mem::replace(has_warned, true) => {
                tracing::warn!("{error}; searches go on, and what is not counted there is tried again");
            }
            Err(_) => {}
        }
    }
}

impl<E: SearchEngine> SearchEngine for Budgeted<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        if self.take(1) == 0 { Err(self.over()) } else { self.engine.search(query) }
    }

    /// The first queries of the batch are asked where there is not enough for all.
    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let (paid, unpaid) = queries.split_at(self.take(queries.len()));
        let answers = if paid.is_empty() { Vec::new() } else { self.engine.search_batch(paid) };
        answers.into_iter().chain(unpaid.iter().map(|_| Err(self.over()))).collect()
    }

    forward_to_the_engine_inside!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counted, Replay};

    /// Fails on every query, which costs as well.
    fn failing(folder: &Path) -> Counted<Replay> {
        let path = folder.join("empty.jsonl");
        std::fs::write(&path, "").unwrap();
        Counted::new(Replay::read(path).unwrap())
    }

    fn is_over(found: &Result<Vec<Document>, SearchError>) -> bool {
        matches!(found, Err(SearchError::BudgetSpent { .. }))
    }

    #[test]
    fn the_count_goes_on_with_the_file_and_ends_with_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budget.jsonl");
        let query = Query { text: "x", top_k: 1, context: None };
        let open = |calls| {
            let engine = failing(folder.path());
            let asked = engine.calls();
            (Budgeted::with_file(engine, calls, &path).unwrap(), asked)
        };
        let (engine, asked) = open(5);
        assert!(!is_over(&engine.search(&query)));
        assert_eq!(engine.search_batch(&[query; 2]).len(), 2);
        assert_eq!((engine.calls_left(), asked.total()), (2, 3));
        drop(engine);

        // Killed while it wrote a further line.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"cal"].concat()).unwrap();
        let (engine, asked) = open(5);
        let found: Vec<bool> = engine.search_batch(&[query; 4]).iter().map(is_over).collect();
        assert_eq!(found, [false, false, true, true]);
        let error = engine.search(&query).unwrap_err().to_string();
        assert!(error.contains("5 calls"), "{error}");
        assert_eq!((engine.calls_left(), asked.total()), (0, 2));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        // More money.
        assert_eq!(open(7).0.calls_left(), 2);

        std::fs::write(&path, "{\"calls\": 1}\nnotes\n").unwrap();
        let error = Budgeted::with_file((), 5, &path).unwrap_err().to_string();
        assert!(error.contains("budget.jsonl:2: not a count of calls"), "{error}");
    }

    #[test]
    fn threads_share_a_budget() {
        let folder = tempfile::tempdir().unwrap();
        let engine = failing(folder.path());
        let asked = engine.calls();
        let engine = Budgeted::new(engine, 100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let query = Query { text: "x", top_k: 1, context: None };
                let engine = &engine;
                scope.spawn(move || (0..30).for_each(|_| drop(engine.search_batch(&[query; 2]))));
            }
        });
        assert_eq!((asked.total(), engine.calls_left()), (100, 0));
    }

    #[test]
    fn money_buys_calls() {
        let calls = |amount, price| Budgeted::calls_for(amount, price);
        for (amount, price, expected) in
            [(5.0, 0.01, 500), (0.3, 0.1, 3), (1.0, 0.3, 3), (0.0, 0.1, 0), (586.7, 586.7 / 64_000.0, 64_000)]
        {
            assert_eq!(calls(amount, price).unwrap(), expected, "{amount} at {price}");
        }
        assert!(calls(f64::NAN, 0.1).unwrap_err().to_string().contains("budget"));
        assert!(calls(1.0, 0.0).unwrap_err().to_string().contains("price"));
    }
}
