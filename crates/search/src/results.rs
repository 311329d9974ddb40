//! The answers of retrieval servers, in the forms that are in use.

use serde::Deserialize;
use serde_json::{Value, json};
use zerosearch_http::excerpt;

use crate::Document;

/// The names under which a list of results stands.
const LISTS: [&str; 4] = ["result", "results", "documents", "docs"];

/// The names under which a document's text stands.
const TEXTS: [&str; 5] = ["contents", "text", "content", "passage", "page_content"];

/// The results of an answer, not yet told apart by query.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Results(Vec<Value>);

impl TryFrom<Value> for Results {
    type Error = &'static str;

    fn try_from(answer: Value) -> Result<Self, Self::Error> {
        let list = if answer.is_object() {
            named_list(&answer).cloned().ok_or("an object without `result`, `results`, `documents` or `docs`")?
        } else {
            answer.clone()
        };
        match list {
            Value::Array(mut items) => {
                // Beside the empty list of a query that failed, our own server says why.
                if let Some(errors) = answer["errors"].as_array().filter(|errors| errors.len() == items.len()) {
                    let failed = items.iter_mut().zip(errors).filter(|(_, error)| !error.is_null());
                    failed.for_each(|(item, error)| *item = json!({"error": error}));
                }
                Ok(Self(items))
            }
            _ => Err("the results are not a list"),
        }
    }
}

impl Results {
    /// The documents of each query. What is wrong with one query's results stands in its place.
    ///
    /// # Errors
    /// When it cannot be said which results belong to which query.
    pub(crate) fn lists(self, queries: usize) -> Result<Vec<Result<Vec<Document>, String>>, String> {
        let Self(items) = self;
        let nested = items.iter().any(|item| item.is_array() || named_list(item).is_some())
            || queries > 1 && items.len() == queries && items.iter().all(Value::is_null);
        match (nested, queries) {
            (true, _) if items.len() != queries => {
                Err(format!("{} lists of results for {queries} queries", items.len()))
            }
            (true, _) => Ok(items.iter().map(list).collect()),
            // One query may be answered without the outer list, and with nothing at all.
            (false, 1) => Ok(vec![documents(&items)]),
            (false, 0) if items.is_empty() => Ok(Vec::new()),
            (false, _) => Err(format!("one list of results for {queries} queries")),
        }
    }
}

fn named_list(object: &Value) -> Option<&Value> {
    LISTS.iter().filter_map(|name| object.get(name)).find(|list| !list.is_null())
}

fn list(value: &Value) -> Result<Vec<Document>, String> {
    match named_list(value).unwrap_or(value) {
        Value::Array(items) => documents(items),
        other => Err(format!("`{}` in place of this query's list of results", excerpt(&other.to_string()))),
    }
}

/// The documents of one query. Those without text are left out, unless there are no others.
fn documents(items: &[Value]) -> Result<Vec<Document>, String> {
    let (mut found, mut textless) = (Vec::new(), Vec::new());
    for item in items {
        // A list that was filled up to the wanted length has nulls at its end.
        match item.get("document").unwrap_or(item) {
            Value::Null => {}
            inner => match document(item, inner) {
                Some(document) => found.push(document),
                None => textless.push(item),
            },
        }
    }
    if let Some(first) = textless.first() {
        let first = excerpt(&first.to_string());
        let missing = format!("a result without text under `{}`: {first}", TEXTS.join("`, `"));
        if found.is_empty() {
            return Err(missing);
        }
        tracing::warn!("{} of {} results are left out: {missing}", textless.len(), items.len());
    }
    Ok(found)
}

fn document(item: &Value, inner: &Value) -> Option<Document> {
    let text = |name: &str| inner.get(name).and_then(Value::as_str).map(String::from);
    // Our own server names whatever it put in for the sake of other clients.
    let is_added = |name: &str| inner["added"].as_array().is_some_and(|added| added.iter().any(|it| it == name));
    let title = text("title");
    let contents = inner.as_str().map(String::from).or_else(|| TEXTS.iter().find_map(|name| text(name)));
    let contents = match contents {
        Some(contents) if is_added("title_line") => {
            contents.split_once('\n').map_or(contents.clone(), |(_, text)| text.to_string())
        }
        Some(contents) => contents,
        // A title alone is a result.
        None if title.as_ref().is_some_and(|title| !title.trim().is_empty()) => String::new(),
        None => return None,
    };
    let id = inner.get("id").and_then(|id| match id {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let id = id.filter(|_| !is_added("id"));
    let score = item.get("score").or_else(|| inner.get("score"));
    let score = score.and_then(|score| score.as_f64().or_else(|| score.as_str()?.parse().ok()));
    let score = score.map(|score| score as f32).filter(|score| score.is_finite() && !is_added("score"));
    Some(Document { id, title, contents, score })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(answer: Value, queries: usize) -> Result<Vec<Result<Vec<Document>, String>>, String> {
        Results::try_from(answer).map_err(String::from)?.lists(queries)
    }

    #[test]
    fn shapes_of_answers() {
        let expected =
            Document { id: Some("7".into()), title: Some("T".into()), contents: "words".into(), score: Some(0.5) };
        let plain = json!({"id": 7, "title": "T", "contents": "words", "score": 0.5});
        let wrapped = json!({"document": {"id": "7", "title": "T", "text": "words", "url": null}, "score": "0.5"});
        for item in [&plain, &wrapped] {
            for answer in [
                json!([item]),
                json!([[item]]),
                json!({"result": [[item]]}),
                json!({"result": null, "results": [item], "took": 3}),
                json!({"docs": [item]}),
                json!([{"query": "q", "documents": [item]}]),
            ] {
                assert_eq!(lists(answer.clone(), 1), Ok(vec![Ok(vec![expected.clone()])]), "{answer}");
            }
        }
        assert_eq!(lists(json!({"result": []}), 1), Ok(vec![Ok(vec![])]));
        assert_eq!(lists(json!({"result": []}), 0), Ok(vec![]));
    }

    #[test]
    fn fields_that_are_missing() {
        let plain = |contents: &str| Document { contents: contents.into(), ..Default::default() };
        let titled = Document { title: Some("T".into()), ..Default::default() };
        for (item, expected) in [
            (json!("words"), Some(plain("words"))),
            (json!({"contents": "\"T\"\nwords", "score": null}), Some(plain("\"T\"\nwords"))),
            (
                json!({"document": {"contents": "words", "title": null, "id": null}, "score": "NaN"}),
                Some(plain("words")),
            ),
            (json!({"contents": null, "text": "words"}), Some(plain("words"))),
            (json!({"page_content": "words", "metadata": {}}), Some(plain("words"))),
            (json!({"title": "T", "contents": null}), Some(titled)),
            // Nothing where a document would stand.
            (json!(null), None),
            (json!({"document": null, "score": -3.4e38}), None),
        ] {
            assert_eq!(lists(json!([[item]]), 1), Ok(vec![Ok(expected.into_iter().collect())]), "{item}");
        }
    }

    /// Our own server makes documents complete for other clients, says so, and says why a query failed.
    #[test]
    fn additions_of_our_own_server_are_taken_off_again() {
        let whole = json!({"id": "x-0", "title": "T", "contents": "\"T\"\nwords\nmore", "score": 1.0});
        let with = |added: Value| {
            let mut item = whole.clone();
            item["added"] = added;
            lists(json!({"result": [[item], []], "errors": [null, "no index"]}), 2).unwrap()
        };
        let found = with(json!(["id", "title_line", "score"]));
        let expected = Document { title: Some("T".into()), contents: "words\nmore".into(), ..Default::default() };
        assert_eq!(found[0], Ok(vec![expected]));
        assert!(found[1].as_ref().unwrap_err().contains("no index"), "{found:?}");
        assert_eq!(with(json!(null))[0], lists(json!([[whole]]), 1).unwrap()[0]);
    }

    #[test]
    fn one_bad_element_costs_nothing_else() {
        let answer = json!({"result": [
            [{"document": {"contents": "a"}, "score": 1.0}],
            null,
            {"error": "no such index"},
            [{"document": {"contents": null}}, {"document": {"contents": "b"}}, null, 7],
            [{"url": "x"}],
            [],
        ]});
        let outcomes: Vec<String> = lists(answer, 6)
            .unwrap()
            .into_iter()
            .map(|list| match list {
                Ok(documents) => documents.into_iter().map(|document| document.contents).collect::<Vec<_>>().join(" "),
                Err(error) => error,
            })
            .collect();
        let textless =
            "a result without text under `contents`, `text`, `content`, `passage`, `page_content`: {\"url\":\"x\"}";
        let instead = "in place of this query's list of results";
        assert_eq!(
            outcomes,
            [
                "a",
                &format!("`null` {instead}"),
                &format!("`{{\"error\":\"no such index\"}}` {instead}"),
                "b",
                textless,
                ""
            ]
        );
        assert!(lists(json!([null, null]), 2).unwrap().iter().all(Result::is_err));
    }

    #[test]
    fn other_answers_are_refused() {
        for (answer, queries, why) in [
            (json!({"detail": "x"}), 1, "without `result`"),
            (json!({"result": "x"}), 1, "not a list"),
            (json!("x"), 1, "not a list"),
            (json!({"result": [["a"]]}), 2, "1 lists of results for 2 queries"),
            (json!({"result": [["a"], null, []]}), 2, "3 lists of results for 2 queries"),
            (json!({"result": ["a", "b"]}), 2, "one list of results for 2 queries"),
        ] {
            let error = lists(answer, queries).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
