//! How much of a question's evidence its searches find.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use zerosearch_data::Question;
use zerosearch_reward::normalize_answer;
use zerosearch_search::{Document, Query, SearchEngine, SearchError};

use crate::Evidence;

/// An engine that remembers which documents each query found.
pub(crate) struct Remembering<'e> {
    engine: &'e dyn SearchEngine,
    found: Mutex<BTreeMap<String, Vec<Name>>>,
}

/// A document's id and title, the title normalised.
type Name = (Option<String>, Option<String>);

impl<'e> Remembering<'e> {
    pub(crate) fn new(engine: &'e dyn SearchEngine) -> Self {
        Self { engine, found: Mutex::default() }
    }

    /// How much of a question's evidence these queries found; `None` where the question names none.
    pub(crate) fn evidence(&self, question: &Question, queries: &[String]) -> Option<Evidence> {
        let evidence = question.evidence();
        if evidence.is_empty() {
            return None;
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&Name> = queries.iter().filter_map(|query| found.get(query)).flatten().collect();
        let is_found = |wanted: &String| {
            let title = normalize_answer(wanted);
            names.iter().any(|(id, name)| id.as_ref() == Some(wanted) || name.as_ref() == Some(&title))
        };
        Some(Evidence { found: evidence.iter().filter(|wanted| is_found(wanted)).count(), of: evidence.len() })
    }

    /// Forgets all queries.
    pub(crate) fn clear(&self) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn remember(&self, query: &Query<'_>, found: &Result<Vec<Document>, SearchError>) {
        let Ok(documents) = found else { return };
        let names = documents.iter().take(query.top_k).map(|document| (document.id.clone(), title(document)));
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(query.text.to_owned(), names.collect());
    }
}

/// Search-R1's corpora have the title in the first line of the contents, in quotation marks.
fn title(document: &Document) -> Option<String> {
    let first = document.contents.lines().next().filter(|line| line.starts_with('"') && line.ends_with('"'));
    let title = document.title.as_deref().or(first)?;
    Some(normalize_answer(title)).filter(|title| !title.is_empty())
}

impl SearchEngine for Remembering<'_> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let found = self.engine.search(query);
        self.remember(query, &found);
        found
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let found = self.engine.search_batch(queries);
        if found.len() == queries.len() {
            queries.iter().zip(&found).for_each(|(query, found)| self.remember(query, found));
        }
        found
    }

    fn concurrency(&self) -> usize {
        self.engine.concurrency()
    }

    fn counters(&self) -> Vec<(String, f64)> {
        self.engine.counters()
    }
}
