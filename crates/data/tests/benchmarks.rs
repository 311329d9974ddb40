//! The data sets of the paper in the shapes that Search-R1, ZeroSearch and FlashRAG publish: small literal rows of each.

use serde_json::{Value, json};
use zerosearch_data::{Question, read_questions, source_of_path};

/// Hops, type and evidence of a row.
type Known = (Option<usize>, Option<&'static str>, &'static [&'static str]);

/// Each set: name, a row of FlashRAG, and what is known of it.
fn sets() -> Vec<(&'static str, Value, Known)> {
    let facts = json!({"title": ["A", "B", "A"], "sent_id": [0, 1, 2]});
    let context = json!({"title": ["A", "B", "C"], "sentences": [["a."], ["b."], ["c."]]});
    let row = |id: &str, metadata: Value| json!({"id": id, "question": "Who?", "golden_answers": ["x", "y"], "metadata": metadata});
    let steps = json!([
        {"id": 1, "question": "q1", "answer": "a", "support_paragraph": {"title": "A", "paragraph_text": "…"}},
        {"id": 2, "question": "q2", "answer": "b", "support_paragraph": {"title": "B", "paragraph_text": "…"}},
        {"id": 3, "question": "q3", "answer": "c", "support_paragraph": {"title": "A", "paragraph_text": "…"}},
    ]);
    let mut nq = row("test_0", Value::Null);
    nq.as_object_mut().unwrap().remove("metadata");
    vec![
        ("nq", nq, (Some(1), None, &[])),
        ("triviaqa", row("test_0", json!({})), (Some(1), None, &[])),
        ("popqa", row("test_0", json!({"prop": "occupation", "s_pop": 142})), (Some(1), None, &[])),
        (
            "hotpotqa",
            row("dev_0", json!({"type": "comparison", "level": "hard", "supporting_facts": facts, "context": context})),
            (Some(2), Some("comparison"), &["A", "B"]),
        ),
        (
            "2wikimultihopqa",
            row("dev_0", json!({"type": "bridge_comparison", "supporting_facts": facts, "context": context})),
            (Some(4), Some("bridge_comparison"), &["A", "B"]),
        ),
        ("musique", row("3hop1__1_2_3", json!({"question_decomposition": steps})), (Some(3), None, &["A", "B"])),
        ("bamboogle", row("test_0", json!({})), (Some(2), None, &[])),
    ]
}

/// The row as Search-R1's script, and ZeroSearch after it, wrap it; without `bare` the question stands in the prompt alone.
fn wrapped(source: &str, index: usize, row: &Value, bare: bool) -> Value {
    let content = format!(
        "Answer the given question. For example, <answer> Beijing </answer>. Question: {}\n",
        row["question"].as_str().unwrap()
    );
    let mut wrapped = json!({
        "data_source": source,
        "prompt": [{"role": "user", "content": content}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": row["golden_answers"]}},
        "extra_info": {"split": "test", "index": index},
        "metadata": row["metadata"],
    });
    if bare {
        for key in ["id", "question", "golden_answers"] {
            wrapped[key] = row[key].clone();
        }
    }
    wrapped
}

fn read(name: &str, rows: &[Value]) -> Result<Vec<Question>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    read_questions(&path).map_err(|error| error.to_string())
}

fn check(question: &Question, name: &str, (hops, kind, evidence): Known) {
    assert_eq!(
        (question.question.as_str(), &question.golden_answers[..]),
        ("Who?", &["x".to_owned(), "y".to_owned()][..])
    );
    assert_eq!(
        (question.known_hops(), question.kind(), &question.evidence()[..]),
        (hops, kind, &evidence.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>()[..]),
        "{name}"
    );
}

#[test]
fn rows_of_flashrag_are_read_whole() {
    for (name, row, known) in sets() {
        let mut questions = read("test.jsonl", std::slice::from_ref(&row)).unwrap();
        assert_eq!(questions[0].data_source, None, "the rows do not say it");
        questions[0].data_source = source_of_path(format!("flashrag/{name}/test.jsonl")).map(str::to_owned);
        check(&questions[0], name, known);
    }
}

#[test]
fn rows_of_search_r1_and_zerosearch_are_read_whole_and_none_is_dropped() {
    for prefix in ["", "searchR1_"] {
        for bare in [true, false] {
            let sets = sets();
            let rows: Vec<Value> = sets
                .iter()
                .enumerate()
                .map(|(index, (name, row, _))| wrapped(&format!("{prefix}{name}"), index, row, bare))
                .collect();
            let questions = read("test.jsonl", &rows).unwrap();
            assert_eq!(questions.len(), rows.len());
            for (question, (name, _, known)) in questions.iter().zip(sets) {
                assert_eq!(question.data_source.as_deref(), Some(&*format!("{prefix}{name}")));
                check(question, name, known);
            }
        }
    }
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_with_file_and_line() {
    let mut rows: Vec<Value> = sets().iter().map(|(name, row, _)| wrapped(name, 0, row, true)).collect();
    rows[4]["golden_answers"] = json!([]);
    rows[4]["reward_model"] = json!({"ground_truth": {"target": []}});
    let message = read("test.jsonl", &rows).unwrap_err();
    assert!(message.contains("test.jsonl, line 5") && message.contains("answer"), "{message}");
}

#[test]
fn files_are_named_after_their_set() {
    for (path, expected) in [
        ("data/2wikimultihopqa/dev.jsonl", Some("2wikimultihopqa")),
        ("hotpotqa_dev.parquet", Some("hotpotqa")),
        ("nq/bamboogle.jsonl", Some("bamboogle")),
        ("nq.jsonl.gz", Some("nq")),
        ("enquiry/test.jsonl", None),
        ("test.jsonl", None),
    ] {
        assert_eq!(source_of_path(path), expected, "{path}");
    }
}
