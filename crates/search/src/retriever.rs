//! Retrieval servers: an index behind HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, in_parallel};

use crate::{Document, Query, SearchEngine, SearchError};

/// Requests under way at once, unless told otherwise.
const CONCURRENCY: usize = 16;

/// A retrieval server as Search-R1 and ZeroSearch run it over Wikipedia.
///
/// Two forms of request are in use, see [`Dialect`].
/// Answers of both servers, and of the usual variants, are understood: a list of results, bare or under
/// `result`, `results`, `documents` or `docs`, one such list or one for each query; a result is a
/// document, a text, or `{document, score}`; a document has its text under `contents`, `text`, `content`
/// or `passage`, and may have `title`, `id` and `score`.
pub struct RetrieverServer {
    client: JsonClient,
    url: String,
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
        let url = url.into();
        let url = match url.trim_end_matches('/') {
            host if host.splitn(4, '/').count() < 4 => format!("{host}/retrieve"),
            _ => url,
        };
        Self { client: JsonClient::new(RetryPolicy::default()), url, dialect, concurrency: CONCURRENCY }
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
        self.client = JsonClient::new(retry);
        self
    }

    /// With at most this many requests under way at once (16 by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    fn ask_one(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let body = json!({"query": query.text, "top_k": query.top_k});
        let mut lists = self.ask(&body, 1, query.top_k)?;
        Ok(lists.pop().unwrap_or_default())
    }

    fn ask_together(&self, texts: &[&str], top_k: usize) -> Result<Vec<Vec<Document>>, HttpError> {
        self.ask(&json!({"queries": texts, "topk": top_k, "return_scores": true}), texts.len(), top_k)
    }

    fn ask(&self, body: &Value, queries: usize, top_k: usize) -> Result<Vec<Vec<Document>>, HttpError> {
        let answer: Value = self.client.post(&self.url, body)?;
        let mut lists = result_lists(answer, queries).map_err(|message| HttpError {
            endpoint: self.url.clone(),
            message: format!("unexpected answer: {message}"),
        })?;
        lists.iter_mut().for_each(|documents| documents.truncate(top_k));
        Ok(lists)
    }
}

impl SearchEngine for RetrieverServer {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        match self.dialect {
            Dialect::SearchR1 => Ok(self.ask_together(&[query.text], query.top_k)?.pop().unwrap_or_default()),
            Dialect::ZeroSearch => self.ask_one(query),
        }
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        match self.dialect {
            Dialect::ZeroSearch => in_parallel(queries, self.concurrency, |query| self.ask_one(query)),
            Dialect::SearchR1 => {
                // One request has one `topk`; in practice all queries of a batch want as many documents.
                let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
                for (index, query) in queries.iter().enumerate() {
                    groups.entry(query.top_k).or_default().push(index);
                }
                let groups: Vec<_> = groups.into_iter().collect();
                let answers = in_parallel(&groups, self.concurrency, |(top_k, members)| {
                    let texts: Vec<&str> = members.iter().map(|index| queries[*index].text).collect();
                    match self.ask_together(&texts, *top_k) {
                        Ok(lists) => lists.into_iter().map(Ok).collect(),
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
}

/// The list of results of each query.
fn result_lists(answer: Value, queries: usize) -> Result<Vec<Vec<Document>>, String> {
    let answer = match answer {
        Value::Object(mut fields) => ["result", "results", "documents", "docs"]
            .iter()
            .find_map(|name| fields.remove(*name))
            .ok_or("an object without `result`, `results`, `documents` or `docs`")?,
        other => other,
    };
    let Value::Array(items) = answer else { return Err("the results are not a list".into()) };
    let nested = items.first().is_some_and(Value::is_array);
    let lists = match (nested, queries) {
        (true, _) => items,
        // One query may be answered without the outer list, and with nothing at all.
        (false, 1) => vec![Value::Array(items)],
        (false, 0) if items.is_empty() => items,
        (false, _) => return Err(format!("one list of results for {queries} queries")),
    };
    if lists.len() != queries {
        return Err(format!("{} lists of results for {queries} queries", lists.len()));
    }
    lists
        .into_iter()
        .map(|list| list.as_array().ok_or("a list of results is not a list")?.iter().map(document).collect())
        .collect()
}

fn document(item: &Value) -> Result<Document, String> {
    let inner = item.get("document").unwrap_or(item);
    let text = |name: &str| inner.get(name).and_then(Value::as_str).map(String::from);
    let contents = inner
        .as_str()
        .map(String::from)
        .or_else(|| ["contents", "text", "content", "passage"].iter().find_map(|name| text(name)));
    let contents = contents
        .ok_or_else(|| format!("a result without text under `contents`, `text`, `content` or `passage`: {item}"))?;
    let id = inner.get("id").and_then(|id| match id {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let score = item.get("score").or_else(|| inner.get("score"));
    let score = score.and_then(|score| score.as_f64().or_else(|| score.as_str()?.parse().ok()));
    Ok(Document { id, title: text("title"), contents, score: score.map(|score| score as f32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_answers() {
        let expected =
            Document { id: Some("7".into()), title: Some("T".into()), contents: "words".into(), score: Some(0.5) };
        let plain = json!({"id": 7, "title": "T", "contents": "words", "score": 0.5});
        let wrapped = json!({"document": {"id": "7", "title": "T", "text": "words"}, "score": "0.5"});
        for item in [&plain, &wrapped] {
            for answer in [
                json!([item]),
                json!([[item]]),
                json!({"result": [[item]]}),
                json!({"results": [item]}),
                json!({"docs": [item]}),
            ] {
                assert_eq!(result_lists(answer.clone(), 1).unwrap(), [[expected.clone()]], "{answer}");
            }
        }
        assert_eq!(result_lists(json!(["words"]), 1).unwrap()[0][0].contents, "words");
        assert!(result_lists(json!({"result": []}), 1).unwrap()[0].is_empty());
        assert_eq!(result_lists(json!({"result": [[], ["b"]]}), 2).unwrap()[1][0].contents, "b");
    }

    #[test]
    fn other_answers_are_refused() {
        for (answer, queries, why) in [
            (json!({"detail": "x"}), 1, "without `result`"),
            (json!({"result": "x"}), 1, "not a list"),
            (json!({"result": [["a"]]}), 2, "1 lists of results for 2 queries"),
            (json!({"result": ["a", "b"]}), 2, "one list of results for 2 queries"),
            (json!([{"url": "x"}]), 1, "a result without text"),
            (json!([["a"], "b"]), 2, "is not a list"),
        ] {
            let error = result_lists(answer, queries).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_address_without_a_path_means_retrieve() {
        for (given, expected) in [
            ("http://h:8000", "http://h:8000/retrieve"),
            ("http://h:8000/", "http://h:8000/retrieve"),
            ("http://h:8000/retrieve", "http://h:8000/retrieve"),
            ("http://h/v1/search/", "http://h/v1/search/"),
        ] {
            assert_eq!(RetrieverServer::search_r1(given).url, expected);
        }
    }
}
