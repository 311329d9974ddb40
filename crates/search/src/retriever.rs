//! Retrieval servers: an index behind HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zerosearch_http::{AttemptError, EndpointCounts, Fleet, HttpError, JsonClient, RetryPolicy, address, in_parallel};

use crate::results::Results;
use crate::{Document, Query, SearchEngine, SearchError};

/// Requests under way at once, unless told otherwise.
const CONCURRENCY: usize = 16;

/// A retrieval server as Search-R1 and ZeroSearch run it over Wikipedia.
///
/// Two forms of request are in use, see [`Dialect`].
/// Answers of both servers, and of the usual variants, are understood: a list of results, bare or under
/// `result`, `results`, `documents` or `docs`, one such list or one for each query; a result is a
/// document, a text, or `{document, score}`; a document has its text under `contents`, `text`, `content`,
/// `passage` or `page_content`, and may have `title`, `id` and `score`. A query whose results cannot be read fails
/// and costs the others of its batch nothing; a document without text is left out where its list has others.
pub struct RetrieverServer {
    fleet: Fleet,
    dialect: Dialect,
    concurrency: usize,
}

/// The form of a retrieval server's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// Search-R1's `{queries, topk, return_scores}`: a batch is one request.
    #[default]
    #[serde(rename = "search_r1")]
    SearchR1,
    /// ZeroSearch's `{query, top_k}`: a batch is several requests at once.
    #[serde(rename = "zerosearch")]
    ZeroSearch,
}

impl RetrieverServer {
    /// A server that takes requests of this form.
    ///
    /// An address without a path (`http://127.0.0.1:8000`) means its `/retrieve`.
    pub fn new(url: impl Into<String>, dialect: Dialect) -> Self {
        Self::at(&[url.into()], dialect)
    }

    /// Several servers with the same index, which take requests of this form. A request goes to the least busy one, and to
    /// another where that one fails; a batch of Search-R1's form is divided among them.
    ///
    /// ```
    /// use zerosearch_search::{Dialect, RetrieverServer};
    ///
    /// let engine = RetrieverServer::at(&["node1:8000", "node2:8000"], Dialect::SearchR1);
    /// assert_eq!(engine.endpoints()[1].endpoint, "http://node2:8000/retrieve");
    /// ```
    pub fn at(urls: &[impl AsRef<str>], dialect: Dialect) -> Self {
        let urls = urls.iter().map(|url| {
            address(url.as_ref(), |path| match path {
                "/" => "/retrieve".into(),
                path => path.into(),
            })
        });
        let fleet = Fleet::new(urls, JsonClient::new(RetryPolicy::default()));
        let concurrency = CONCURRENCY * fleet.addresses().len().max(1);
        Self { fleet, dialect, concurrency }
    }

    /// A server that takes [`Dialect::SearchR1`].
    pub fn search_r1(url: impl Into<String>) -> Self {
        Self::new(url, Dialect::SearchR1)
    }

    /// A server that takes [`Dialect::ZeroSearch`].
    pub fn zerosearch(url: impl Into<String>) -> Self {
        Self::new(url, Dialect::ZeroSearch)
    }

    /// With other time-outs and retries than the default.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.fleet = self.fleet.with_client(JsonClient::new(retry));
        self
    }

    /// With at most this many requests under way at once (16 for each server by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Counts of each server so far, in the order of the addresses.
    pub fn endpoints(&self) -> Vec<EndpointCounts> {
        self.fleet.counts()
    }

    fn ask_one(&self, query: &Query<'_>) -> Result<Vec<Document>, HttpError> {
        let body = match self.dialect {
            Dialect::SearchR1 => return self.ask_together(&[query.text], query.top_k)?.pop().unwrap_or(Ok(Vec::new())),
            Dialect::ZeroSearch => json!({"query": query.text, "top_k": query.top_k}),
        };
        self.ask(&body, 1, query.top_k)?.pop().unwrap_or(Ok(Vec::new()))
    }

    fn ask_together(&self, texts: &[&str], top_k: usize) -> Result<Vec<Result<Vec<Document>, HttpError>>, HttpError> {
        self.ask(&json!({"queries": texts, "topk": top_k, "return_scores": true}), texts.len(), top_k)
    }

    fn ask(
        &self,
        body: &Value,
        queries: usize,
        top_k: usize,
    ) -> Result<Vec<Result<Vec<Document>, HttpError>>, HttpError> {
        let unexpected = |message: String| format!("unexpected answer: {message}");
        let (url, mut lists) = self.fleet.ask(|server| {
            let url = server.address();
            let results: Results = server.post(url, body)?;
            let lists = results.lists(queries).map_err(|message| AttemptError::lasting(url, unexpected(message)))?;
            Ok((url.to_string(), lists))
        })?;
        lists.iter_mut().flatten().for_each(|documents| documents.truncate(top_k));
        let named = |message| HttpError::new(&url, unexpected(message));
        Ok(lists.into_iter().map(|list| list.map_err(named)).collect())
    }
}

impl SearchEngine for RetrieverServer {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Ok(self.ask_one(query)?)
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        match self.dialect {
            Dialect::ZeroSearch => in_parallel(queries, self.concurrency, |query| self.search(query)),
            Dialect::SearchR1 => {
                // One request has one `topk`; in practice all queries of a batch want as many documents.
                let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
                for (index, query) in queries.iter().enumerate() {
                    groups.entry(query.top_k).or_default().push(index);
                }
                let servers = self.fleet.addresses().len().max(1);
                let divided = groups.into_iter().flat_map(|(top_k, members)| {
                    let share = members.len().div_ceil(servers).max(1);
                    members.chunks(share).map(|members| (top_k, members.to_vec())).collect::<Vec<_>>()
                });
                let groups: Vec<(usize, Vec<usize>)> = divided.collect();
                let answers = in_parallel(&groups, self.concurrency, |(top_k, members)| {
                    let texts: Vec<&str> = members.iter().map(|index| queries[*index].text).collect();
                    match self.ask_together(&texts, *top_k) {
                        Ok(lists) => lists,
                        Err(error) => vec![Err(error); members.len()],
                    }
                });
                let mut placed: Vec<_> =
                    groups.into_iter().flat_map(|(_, members)| members).zip(answers.into_iter().flatten()).collect();
                placed.sort_by_key(|(index, _)| *index);
                placed.into_iter().map(|(_, answer)| answer.map_err(SearchError::from)).collect()
            }
        }
    }

    /// Search-R1's servers answer many queries in one request.
    fn concurrency(&self) -> usize {
        match self.dialect {
            Dialect::SearchR1 => 1,
            Dialect::ZeroSearch => self.concurrency,
        }
    }

    fn counters(&self) -> Vec<(String, f64)> {
        EndpointCounts::counters(&self.endpoints())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_means_retrieve() {
        for (given, expected) in [
            ("http://h:8000", "http://h:8000/retrieve"),
            ("http://h:8000/", "http://h:8000/retrieve"),
            ("http://h:8000/retrieve", "http://h:8000/retrieve"),
            ("http://h/v1/search/", "http://h/v1/search/"),
            ("http://h:8000?corpus=wiki", "http://h:8000/retrieve?corpus=wiki"),
            (" localhost:8000 ", "http://localhost:8000/retrieve"),
            ("http://[::1]:8000", "http://[::1]:8000/retrieve"),
        ] {
            assert_eq!(RetrieverServer::search_r1(given).fleet.addresses(), [expected]);
        }
    }
}
