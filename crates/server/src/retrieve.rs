//! The requests and answers of `POST /retrieve`.

use serde_json::{Map, Value, json};
use zerosearch_search::Document;

use crate::config::ServerConfig;
use crate::refusal::Refusal;

/// Shown where neither form is recognised.
const EXPECTED: &str = r#"expected {"queries": ["…"], "topk": 3, "return_scores": true} or {"query": "…", "top_k": 3}"#;

/// A request, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Retrieval {
    pub(crate) form: Form,
    pub(crate) top_k: usize,
    pub(crate) searches: Vec<Asked>,
}

/// Which of the two forms, told apart by the key of the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// `queries`, in one list of documents each.
    SearchR1 {
        /// Whether a document is wrapped with its score.
        scores: bool,
    },
    /// `query`, in one list.
    ZeroSearch,
}

/// One query with the optional fields that belong to it.
#[derive(Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) query: String,
    pub(crate) question: Option<String>,
    pub(crate) answers: Vec<String>,
    pub(crate) noise_probability: Option<f64>,
    pub(crate) seed: Option<u64>,
}

impl Retrieval {
    /// # Errors
    /// Names the key and what was expected. Unknown keys are ignored, as FastAPI does.
    pub(crate) fn read(body: &Value, config: &ServerConfig) -> Result<Self, Refusal> {
        let body = body.as_object().ok_or_else(|| wrong("the body", "is no object", EXPECTED))?;
        let value = |key: &str| body.get(key).filter(|value| !value.is_null());
        let (form, queries) = match (value("queries"), value("query")) {
            (Some(queries), None) => {
                let scores = match value("return_scores") {
                    None => false,
                    Some(scores) => scores.as_bool().ok_or_else(|| unlike("return_scores", scores, "true or false"))?,
                };
                (Form::SearchR1 { scores }, texts("queries", queries)?)
            }
            (None, Some(Value::String(query))) => (Form::ZeroSearch, vec![query.clone()]),
            (None, Some(query)) => return Err(unlike("query", query, "a string")),
            (Some(_), Some(_)) => return Err(wrong("the body", "has `queries` and `query`", EXPECTED)),
            (None, None) => return Err(wrong("the body", "has neither `queries` nor `query`", EXPECTED)),
        };
        let count = queries.len();
        let top_k = ["topk", "top_k"].into_iter().find_map(|key| Some((key, value(key)?)));
        let top_k = match top_k {
            None => config.top_k,
            Some((key, given)) => match given.as_u64().and_then(|given| usize::try_from(given).ok()) {
                // As Search-R1's server takes it.
                Some(0) => config.top_k,
                Some(given) if given <= config.max_top_k => given,
                _ => return Err(unlike(key, given, &format!("a whole number up to {}", config.max_top_k))),
            },
        };
        let questions = match (value("questions"), value("question")) {
            (Some(questions), None) => as_many("questions", texts("questions", questions)?, count)?,
            (None, Some(Value::String(question))) if count == 1 => vec![question.clone()],
            (None, None) => Vec::new(),
            (_, Some(question)) => {
                return Err(unlike("question", question, "a string beside one query, or `questions` in its place"));
            }
        };
        let answers = value("golden_answers").map(|answers| golden_answers(answers, count)).transpose()?;
        let noise = value("noise_probability").map(|noise| {
            each("noise_probability", noise, count, "a number in [0, 1]", |value| {
                value.as_f64().filter(|noise| (0.0..=1.0).contains(noise))
            })
        });
        let seeds = value("seed").map(|seed| {
            each("seed", seed, count, "a whole number", |value| {
                value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
            })
        });
        let (noise, seeds) = (noise.transpose()?, seeds.transpose()?);
        let searches = queries.into_iter().enumerate().map(|(index, query)| Asked {
            query,
            question: questions.get(index).cloned(),
            answers: answers.as_ref().map(|answers| answers[index].clone()).unwrap_or_default(),
            noise_probability: noise.as_ref().map(|noise| *noise.of(index)),
            seed: seeds.as_ref().map(|seeds| seeds.for_query(index)),
        });
        Ok(Self { form, top_k, searches: searches.collect() })
    }

    /// The answer to the request: an empty list for a query that failed, with the reason in `errors`.
    pub(crate) fn answer(&self, seeds: &[u64], results: &[Result<Vec<Document>, String>]) -> Map<String, Value> {
        let mut lists = results.iter().zip(seeds).map(|(result, seed)| {
            let documents = result.as_deref().unwrap_or_default().iter().enumerate();
            documents.map(|(rank, document)| found(document, self.form, *seed, rank)).collect::<Vec<Value>>()
        });
        let mut answer = Map::new();
        match self.form {
            Form::SearchR1 { .. } => answer.insert("result".into(), lists.collect()),
            Form::ZeroSearch => answer.insert("results".into(), lists.next().unwrap_or_default().into()),
        };
        if results.iter().any(Result::is_err) {
            let errors = results.iter().map(|result| result.as_ref().err());
            answer.insert("errors".into(), json!(errors.collect::<Vec<_>>()));
        }
        answer
    }
}

/// A document as clients expect it. They want an identifier, a score, and (Search-R1's, which splits at the first line break) a title
/// in a line of its own; whatever the engine does not have is put there and named in `added`, so that it can be taken off again.
fn found(document: &Document, form: Form, seed: u64, rank: usize) -> Value {
    let mut added = Vec::new();
    let mut or_added = |name: &'static str, value: Option<Value>, instead: Value| {
        value.unwrap_or_else(|| {
            added.push(name);
            instead
        })
    };
    let id = or_added("id", document.id.clone().map(Value::from), json!(format!("{seed:016x}-{rank}")));
    let score = or_added("score", document.score.map(Value::from), json!(1.0 / (rank + 1) as f64));
    let mut contents = document.contents.clone();
    if form != Form::ZeroSearch && !has_title_line(&contents) {
        let title = document.title.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        // The words of Search-R1's own servers for a page without one.
        let title = if title.is_empty() { "No title." } else { &title };
        contents = format!("\"{title}\"\n{contents}");
        added.push("title_line");
    }
    let mut fields = Map::from_iter([("id".to_string(), id), ("contents".to_string(), contents.into())]);
    if let Some(title) = &document.title {
        fields.insert("title".into(), title.as_str().into());
    }
    if !added.is_empty() {
        fields.insert("added".into(), json!(added));
    }
    match form {
        Form::SearchR1 { scores: true } => json!({"document": fields, "score": score}),
        Form::SearchR1 { scores: false } | Form::ZeroSearch => {
            fields.insert("score".into(), score);
            Value::Object(fields)
        }
    }
}

/// Whether the first of several lines is in quotes: the form of Search-R1's corpora.
fn has_title_line(contents: &str) -> bool {
    contents.split_once('\n').is_some_and(|(line, _)| {
        let line = line.trim();
        line.len() > 1 && line.starts_with('"') && line.ends_with('"')
    })
}

/// One value for all queries, or one for each.
enum Each<T> {
    All(T),
    Own(Vec<T>),
}

impl<T> Each<T> {
    fn of(&self, index: usize) -> &T {
        match self {
            Each::All(value) => value,
            Each::Own(values) => &values[index],
        }
    }
}

impl Each<u64> {
    /// A seed of one's own is taken as it is. One for all is made another for each place, or all of a request's queries would draw
    /// the same quality.
    fn for_query(&self, index: usize) -> u64 {
        match self {
            Each::All(seed) if index > 0 => zerosearch_generate::stream_seed(&[*seed, index as u64]),
            seeds => *seeds.of(index),
        }
    }
}

fn each<T>(
    key: &str,
    value: &Value,
    count: usize,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Each<T>, Refusal> {
    let read = |value: &Value| read(value).ok_or_else(|| unlike(key, value, expected));
    match value {
        Value::Array(items) => {
            Ok(Each::Own(as_many(key, items.iter().map(read).collect::<Result<Vec<T>, _>>()?, count)?))
        }
        value => read(value).map(Each::All),
    }
}

/// A list of answers for each query; for a single one also a plain list.
fn golden_answers(value: &Value, count: usize) -> Result<Vec<Vec<String>>, Refusal> {
    let key = "golden_answers";
    let lists = value.as_array().ok_or_else(|| unlike(key, value, "a list of answers for each query"))?;
    if count == 1 && lists.iter().all(Value::is_string) {
        return Ok(vec![texts(key, value)?]);
    }
    as_many(key, lists.iter().map(|list| texts(key, list)).collect::<Result<_, _>>()?, count)
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    let text = |item: &Value| item.as_str().map(String::from);
    let texts = value.as_array().and_then(|items| items.iter().map(text).collect());
    texts.ok_or_else(|| unlike(key, value, "a list of strings"))
}

fn as_many<T>(key: &str, values: Vec<T>, count: usize) -> Result<Vec<T>, Refusal> {
    if values.len() == count {
        return Ok(values);
    }
    Err(Refusal::unprocessable(format!(
        "`{key}` has {} entries for {count} queries, expected one for each",
        values.len()
    )))
}

fn wrong(whose: &str, what: &str, expected: &str) -> Refusal {
    Refusal::unprocessable(format!("{whose} {what}; {expected}"))
}

fn unlike(key: &str, value: &Value, expected: &str) -> Refusal {
    let mut shown: String = value.to_string().chars().take(80).collect();
    if shown.len() < value.to_string().len() {
        shown.push('…');
    }
    Refusal::unprocessable(format!("`{key}` is {shown}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Retrieval, String> {
        Retrieval::read(&body, &ServerConfig::default()).map_err(|refusal| refusal.message)
    }

    fn plain(query: &str) -> Asked {
        Asked { query: query.into(), question: None, answers: Vec::new(), noise_probability: None, seed: None }
    }

    #[test]
    fn forms_of_requests() {
        let search_r1 = |scores, top_k, searches| Retrieval { form: Form::SearchR1 { scores }, top_k, searches };
        for (body, expected) in [
            (
                json!({"queries": ["a", "b"], "topk": 5, "return_scores": true}),
                search_r1(true, 5, vec![plain("a"), plain("b")]),
            ),
            (json!({"queries": ["a"], "topk": null, "other": 1}), search_r1(false, 3, vec![plain("a")])),
            (json!({"queries": [], "topk": 0}), search_r1(false, 3, vec![])),
            (
                json!({"query": "a", "top_k": 2}),
                Retrieval { form: Form::ZeroSearch, top_k: 2, searches: vec![plain("a")] },
            ),
            (
                json!({"query": "a", "question": "q", "golden_answers": ["x", "y"], "noise_probability": 1, "seed": 7}),
                Retrieval {
                    form: Form::ZeroSearch,
                    top_k: 3,
                    searches: vec![Asked {
                        question: Some("q".into()),
                        answers: vec!["x".into(), "y".into()],
                        noise_probability: Some(1.0),
                        seed: Some(7),
                        ..plain("a")
                    }],
                },
            ),
        ] {
            assert_eq!(read(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn fields_belong_to_their_queries() {
        let body = json!({"queries": ["a", "b"], "questions": ["p", "q"], "golden_answers": [["x"], []],
            "noise_probability": [0, 0.5], "seed": [7, -1]});
        let searches = read(body).unwrap().searches;
        let b = Asked { question: Some("q".into()), noise_probability: Some(0.5), seed: Some(u64::MAX), ..plain("b") };
        assert_eq!((&searches[0].answers, searches[0].seed, &searches[1]), (&vec!["x".to_string()], Some(7), &b));
        let seeds = |body| read(body).unwrap().searches.iter().map(|asked| asked.seed.unwrap()).collect::<Vec<_>>();
        let shared = seeds(json!({"queries": ["a", "b", "c"], "seed": 7}));
        assert!(shared[0] == 7 && shared[1] != 7 && shared[1] != shared[2], "{shared:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, expected) in [
            (json!([1]), "the body is no object; expected {\"queries\""),
            (json!({"q": "a"}), "neither `queries` nor `query`"),
            (json!({"queries": ["a"], "query": "a"}), "`queries` and `query`"),
            (json!({"queries": "a"}), "`queries` is \"a\", expected a list of strings"),
            (json!({"queries": ["a", 1]}), "`queries` is [\"a\",1]"),
            (json!({"query": ["a"]}), "`query` is [\"a\"], expected a string"),
            (json!({"query": "a", "top_k": -1}), "`top_k` is -1, expected a whole number up to 100"),
            (json!({"query": "a", "topk": 101}), "`topk` is 101"),
            (json!({"queries": ["a"], "return_scores": "yes"}), "`return_scores` is \"yes\""),
            (json!({"queries": ["a", "b"], "questions": ["q"]}), "`questions` has 1 entries for 2 queries"),
            (
                json!({"queries": ["a", "b"], "question": "q"}),
                "`question` is \"q\", expected a string beside one query",
            ),
            (json!({"queries": ["a", "b"], "golden_answers": ["x", "y"]}), "`golden_answers` is \"x\""),
            (
                json!({"query": "a", "noise_probability": 1.5}),
                "`noise_probability` is 1.5, expected a number in [0, 1]",
            ),
            (json!({"queries": ["a"], "noise_probability": [0.5, 0.5]}), "2 entries for 1 queries"),
            (json!({"query": "a", "seed": "x"}), "`seed` is \"x\", expected a whole number"),
        ] {
            let message = read(body).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    /// Search-R1's client takes the first line for the title and the others for the text.
    #[test]
    fn every_document_has_a_title_line_for_clients_that_split_at_it() {
        let form = Form::SearchR1 { scores: true };
        for (title, contents, expected, is_added) in [
            (Some("Chad"), "In Africa.", "\"Chad\"\nIn Africa.", true),
            (None, "In Africa.", "\"No title.\"\nIn Africa.", true),
            (Some("Two\nlines"), "x", "\"Two lines\"\nx", true),
            (Some("Chad"), "\"Chad\"\nIn Africa.", "\"Chad\"\nIn Africa.", false),
            (None, "\"\nx", "\"No title.\"\n\"\nx", true),
        ] {
            let document = Document { title: title.map(Into::into), contents: contents.into(), ..Default::default() };
            let shown = found(&document, form, 1, 1);
            assert_eq!(shown["document"]["contents"], expected);
            let added = shown["document"]["added"].as_array().unwrap();
            assert_eq!(added.contains(&json!("title_line")), is_added);
            assert_eq!((&shown["score"], &shown["document"]["id"]), (&json!(0.5), &json!("0000000000000001-1")));
            assert_eq!(found(&document, Form::ZeroSearch, 1, 1)["contents"], contents);
        }
    }
}
