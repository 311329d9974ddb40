//! Hops, type and evidence of questions in the data sets of the field.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::Question;
use crate::literal;
use crate::rows::nested;

/// The data sets of the paper, by the names that Search-R1 and FlashRAG give them.
const SETS: [&str; 7] = ["nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"];

/// The data set that a file is named after, by its own name or its folder's: `nq/test.jsonl` as in FlashRAG, whose rows do not
/// say it, or `hotpotqa_dev.parquet`. One of NQ, TriviaQA, PopQA, HotpotQA, 2WikiMultiHopQA, Musique and Bamboogle.
///
/// ```
/// assert_eq!(zerosearch_data::source_of_path("flashrag/nq/test.jsonl"), Some("nq"));
/// assert_eq!(zerosearch_data::source_of_path("questions.jsonl"), None);
/// ```
pub fn source_of_path(path: impl AsRef<Path>) -> Option<&'static str> {
    let path = path.as_ref();
    let named = |name: &OsStr| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        let parts: Vec<&str> = name.split(['_', '-', '.']).collect();
        SETS.into_iter().find(|set| parts.contains(set))
    };
    path.file_name().and_then(named).or_else(|| path.parent()?.file_name().and_then(named))
}

impl Question {
    /// How many facts the question joins: what the row says, else what is known of its data set, by the names that Search-R1, verl
    /// and FlashRAG give them.
    ///
    /// NQ, TriviaQA and PopQA have one; HotpotQA, 2WikiMultiHopQA and Bamboogle two, and 2WikiMultiHopQA's `bridge_comparison`
    /// four; Musique as many as its ids say (`3hop1__…`).
    pub fn known_hops(&self) -> Option<usize> {
        let source = self.data_source.as_deref().unwrap_or_default().to_ascii_lowercase();
        let name = source.strip_prefix("searchr1_").unwrap_or(&source);
        let known = || match name {
            "nq" | "natural_questions" | "triviaqa" | "trivia_qa" | "popqa" => Some(1),
            "hotpotqa" | "bamboogle" => Some(2),
            "2wikimultihopqa" | "2wikimultihop" | "2wiki" if self.kind() == Some("bridge_comparison") => Some(4),
            "2wikimultihopqa" | "2wikimultihop" | "2wiki" => Some(2),
            "musique" => hops_of_id(&self.id).or_else(|| self.decomposition().map(<[Value]>::len)),
            _ => hops_of_id(&self.id),
        };
        self.hops.or_else(known)
    }

    /// The question's type, if the row says: `type`, else `metadata.type`, such as `bridge`, `comparison` or `compositional`.
    pub fn kind(&self) -> Option<&str> {
        let own = self.extra.get("type").and_then(Value::as_str);
        own.or_else(|| self.extra.get("metadata")?.get("type")?.as_str()).filter(|kind| !kind.is_empty())
    }

    /// The ids or titles of the documents that the answer rests on, each once, in their order; empty where the row names none.
    ///
    /// Read from the row or from its `metadata`: `evidence` (a list of ids), `supporting_facts` (HotpotQA and 2WikiMultiHopQA, as
    /// pairs or as columns), `paragraphs` with `is_supporting`, and `question_decomposition` (Musique).
    pub fn evidence(&self) -> Vec<String> {
        let lists: [Vec<String>; 4] = [
            texts(self.said("evidence").as_deref()),
            supporting_facts(self.said("supporting_facts").as_deref()),
            paragraphs(self.said("paragraphs").as_deref()),
            decomposition(self.said("question_decomposition").as_deref()),
        ];
        let mut seen = BTreeSet::new();
        let named = lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
        named.into_iter().filter(|name| !name.trim().is_empty() && seen.insert(name.clone())).collect()
    }

    /// A value of the row, else of its metadata, which may be written into a text.
    fn said(&self, key: &str) -> Option<Box<Value>> {
        let paths: [&[&str]; 3] = [&[key], &["metadata", key], &["extra_info", "metadata", key]];
        let value = paths.into_iter().find_map(|path| nested(&self.extra, path).filter(|value| !value.is_null()))?;
        let parsed = value.as_str().and_then(literal::parse);
        Some(Box::new(parsed.unwrap_or_else(|| value.into_owned())))
    }

    fn decomposition(&self) -> Option<&[Value]> {
        let own = self.extra.get("question_decomposition");
        let list = own.or_else(|| self.extra.get("metadata")?.get("question_decomposition"))?.as_array()?;
        Some(list).filter(|list| !list.is_empty()).map(Vec::as_slice)
    }
}

/// `2hop__482757_12019`, `3hop1__…`
fn hops_of_id(id: &str) -> Option<usize> {
    let (digits, rest) = id.split_at(id.find("hop")?);
    rest.contains("__").then(|| digits.parse().ok()).flatten()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).map(|list| list.iter().filter_map(text).collect()).unwrap_or_default()
}

/// `[["Title", 0], …]` or `{"title": ["Title", …], "sent_id": [0, …]}`.
fn supporting_facts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Object(columns)) => texts(columns.get("title")),
        Some(Value::Array(facts)) => facts.iter().filter_map(|fact| text(fact.get(0)?)).collect(),
        _ => Vec::new(),
    }
}

/// `[{"title": "Title", "is_supporting": true, …}, …]`
fn paragraphs(value: Option<&Value>) -> Vec<String> {
    let supports = |paragraph: &&Value| paragraph.get("is_supporting").and_then(Value::as_bool) == Some(true);
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter(supports).filter_map(|paragraph| text(paragraph.get("title")?)).collect()
}

/// `[{"question": …, "support_paragraph": {"title": "Title", …}}, …]`
fn decomposition(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|step| text(step.get("support_paragraph")?.get("title")?)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn question(row: Value) -> Question {
        let mut row: Map<String, Value> = row.as_object().unwrap().clone();
        row.entry("id").or_insert("x".into());
        row.entry("question").or_insert("?".into());
        row.entry("golden_answers").or_insert("y".into());
        Question::try_from(row).unwrap()
    }

    #[test]
    fn hops_are_those_of_the_row_or_of_the_set() {
        for (row, expected) in [
            (json!({"data_source": "nq"}), Some(1)),
            (json!({"data_source": "searchR1_popqa"}), Some(1)),
            (json!({"data_source": "triviaqa", "hops": 3}), Some(3)),
            (json!({"data_source": "hotpotqa", "metadata": {"type": "bridge"}}), Some(2)),
            (json!({"data_source": "2wikimultihopqa", "metadata": {"type": "bridge_comparison"}}), Some(4)),
            (json!({"data_source": "2wikimultihopqa", "type": "comparison"}), Some(2)),
            (json!({"data_source": "bamboogle"}), Some(2)),
            (json!({"data_source": "musique", "id": "3hop1__1_2_3"}), Some(3)),
            (json!({"data_source": "musique", "id": "test_0"}), None),
            (json!({"data_source": "musique", "metadata": {"question_decomposition": [{}, {}]}}), Some(2)),
            (json!({"id": "4hop2__1"}), Some(4)),
            (json!({"id": "shop__1"}), None),
            (json!({}), None),
        ] {
            assert_eq!(question(row.clone()).known_hops(), expected, "{row}");
        }
    }

    #[test]
    fn evidence_is_found_wherever_a_set_has_it() {
        for row in [
            json!({"evidence": ["A", "B", "A"]}),
            json!({"supporting_facts": [["A", 0], ["B", 3], ["A", 1]]}),
            json!({"metadata": {"supporting_facts": {"title": ["A", "B", "A"], "sent_id": [0, 3, 1]}}}),
            json!({"metadata": "{'supporting_facts': {'title': array(['A', 'B'], dtype=object), 'sent_id': [0, 1]}}"}),
            json!({"paragraphs": [
                {"title": "A", "is_supporting": true}, {"title": "C", "is_supporting": false}, {"title": "B", "is_supporting": true},
            ]}),
            json!({"metadata": {"question_decomposition": [
                {"support_paragraph": {"title": "A"}}, {"support_paragraph": {"title": "B"}},
            ]}}),
        ] {
            assert_eq!(question(row.clone()).evidence(), ["A", "B"], "{row}");
        }
        for row in [json!({}), json!({"metadata": null}), json!({"evidence": []}), json!({"evidence": 1})] {
            assert!(question(row.clone()).evidence().is_empty(), "{row}");
        }
    }
}
