//! Files as the scripts and libraries of the field write them. `golden/make_parquet.py` made the Parquet files.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use zerosearch_data::{DataError, Question, read_corpus, read_questions};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A file of this content in a folder of its own, which lives as long as the first part.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn questions(name: &str, content: impl AsRef<[u8]>) -> Result<Vec<Question>, DataError> {
    let (_folder, path) = file(name, content);
    read_questions(&path)
}

fn one(row: Value) -> Question {
    questions("q.jsonl", row.to_string()).unwrap().remove(0)
}

#[test]
fn rows_of_verl_s_script_have_the_bare_question() {
    let read = read_questions(golden("tools.parquet")).unwrap();
    let summary: Vec<_> = read.iter().map(|q| (q.id.as_str(), q.question.as_str(), &q.golden_answers[..])).collect();
    assert_eq!(
        summary,
        [
            ("test_0", "What is the capital of Chad?", &["N'Djamena".to_owned(), "Ndjamena".to_owned()][..]),
            ("test_1", "What is the capital of Niger?", &["Niamey".to_owned()]),
        ]
    );
    assert_eq!(read[1].extra["metadata"], Value::Null);
}

#[test]
fn the_bare_question_counts_wherever_it_is() {
    let order = "Think first. For example, <answer> Beijing </answer>. Question: ";
    for row in [
        json!({"question": "Why?", "extra_info": {"question": "How?"}}),
        json!({"question": null, "extra_info": {"question": "Why?"}, "prompt": "Say why."}),
        json!({"extra_info": "{'question': 'Why?', 'index': 3.0, 'split': 'dev'}", "prompt": "Say why."}),
        json!({"prompt": format!("{order}Why?\n")}),
        json!({"prompt": [{"role": "user", "content": format!("{order}Why?")}]}),
        json!({"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]}),
        json!({"prompt": r#"[{"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}]"#}),
    ] {
        let mut row = row;
        row["golden_answers"] = json!("x");
        assert_eq!(one(row.clone()).question, "Why?", "{row}");
    }
    // A question mark is neither added nor taken away.
    assert_eq!(one(json!({"question": "who wrote it", "golden_answers": "x"})).question, "who wrote it");
}

#[test]
fn numbers_that_became_floats_are_whole_again() {
    for (id, expected) in [(json!(12.0), "12"), (json!(7), "7"), (json!(2.5), "2.5"), (json!("1.0"), "1.0")] {
        assert_eq!(one(json!({"id": id, "question": "?", "golden_answers": [1960.0]})).id, expected);
    }
    let row = json!({"question": "?", "golden_answers": [1960.0, 2.5], "extra_info": {"split": "test", "index": 3.0}});
    assert_eq!(one(row.clone()).id, "test_3");
    assert_eq!(one(row).golden_answers, ["1960", "2.5"]);
    let (_folder, path) = file("c.jsonl", r#"{"id": 12.0, "contents": "x"}"#);
    assert_eq!(read_corpus(&path).unwrap()[0].id.as_deref(), Some("12"));
}

#[test]
fn every_codec_of_pyarrow_is_read() {
    let read = read_questions(golden("codecs.parquet")).unwrap();
    assert_eq!(read.len(), 40);
    assert_eq!((read[39].id.as_str(), read[39].question.as_str()), ("q39", &*"a?".repeat(20)));
    assert_eq!(read[39].golden_answers, ["x".repeat(20)]);
    assert_eq!((read[39].data_source.as_deref(), read[39].hops), (Some("nq"), Some(1)));
    assert_eq!(read[39].extra["note"], "n");
}

#[test]
fn every_type_of_pyarrow_is_read() {
    let read = read_questions(golden("types.parquet")).unwrap();
    let expected = json!({
        "null": null, "u64": u64::MAX, "f16": 0.5, "f32": 0.1, "inf": null,
        "day": "2008-08-08", "no_day": i32::MAX, "midnight": "1960-08-11",
        "s": "2008-08-08 20:08:00", "us": "2008-08-08 20:08:00.500", "ns": "2008-08-08 20:08:00.500",
        "utc": "2008-08-08 20:08:00.500+00:00", "never": i64::MAX,
        "time": "01:02:03", "time_ns": "01:02:03.000004", "duration": 1_000_000,
        "dec": "-1960", "dec256": "2.5", "dec_int": "1900",
        "uuid": "12345678-90ab-cdef-1234-567890abcdef", "blob": {"bytes": [255, 0]}, "text": "text",
        "fixed": [1.5, 2.5], "views": ["a"],
        "deep": [{"days": ["2008-08-08"], "one": {"at": "2008-08-08 20:08:00.500"}}, null],
        "map": {"2008-08-08": {"k": "2008-08-08"}},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&read[0].extra[key], value, "{key}");
    }
    assert_eq!(read[0].extra.len(), expected.as_object().unwrap().len());
}

#[test]
fn a_column_that_cannot_be_read_stops_no_other() {
    let read = read_questions(golden("intervals.parquet")).unwrap();
    assert_eq!((read[0].id.as_str(), &read[0].golden_answers[..]), ("q1", &["x".to_owned(), "y".to_owned()][..]));
    assert!(read[0].extra.is_empty());
}

const ROWS: &str = r#"{"id": "a", "question": "A?", "golden_answers": "1"}
{"id": "b", "question": "B?", "golden_answers": "2"}
"#;

#[test]
fn a_list_of_objects_is_read_as_one_object_a_line_is() {
    let expected = questions("q.jsonl", ROWS).unwrap();
    let list = format!("[{}]", ROWS.trim().replace('\n', ",\r\n"));
    for (name, content) in [
        ("q.json", ROWS.to_owned()),
        ("q.ndjson", ROWS.to_owned()),
        ("q.json", list.clone()),
        ("Q.JSONL", format!("\u{feff}\r\n{list}\r\n\r\n")),
        ("q.json", format!("[\n{}\n]", &list[1..list.len() - 1])),
    ] {
        assert_eq!(questions(name, &content).unwrap(), expected, "{name}: {content}");
    }
    let refused = |content: &str| questions("q.json", content).unwrap_err().to_string();
    assert!(refused("\n[\n{\"id\": }\n]").contains("q.json, line 3: "), "{}", refused("\n[\n{\"id\": }\n]"));
    let missing = refused(r#"[{"id": "a", "question": "A?", "golden_answers": "1"}, {"id": "b"}]"#);
    assert!(missing.contains("q.json, row 2: `question` is missing"), "{missing}");
    assert!(refused("[]").contains("holds no rows"));
}

#[test]
fn compressed_text_is_read() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(ROWS.as_bytes()).unwrap();
    let bytes = encoder.finish().unwrap();
    assert_eq!(questions("q.jsonl.gz", &bytes).unwrap(), questions("q.jsonl", ROWS).unwrap());
    // Several members one after the other, as `cat a.gz b.gz` leaves them.
    let (_folder, path) = file("c.jsonl.gz", [&bytes[..], &bytes[..]].concat());
    assert!(read_corpus(&path).unwrap_err().to_string().contains("line 1: `contents` is missing"));
    let cut = questions("q.jsonl.gz", &bytes[..bytes.len() / 2]).unwrap_err();
    assert!(matches!(cut, DataError::Read { .. }), "{cut}");
}

#[test]
fn what_python_writes_for_gaps_is_a_gap() {
    let row = r#"{"id": NaN, "question": "Is NaN a number?", "golden_answers": ["no", NaN], "score": -Infinity}"#;
    let read = questions("q.jsonl", row).unwrap().remove(0);
    assert_eq!((read.id.as_str(), read.question.as_str()), ("row-1", "Is NaN a number?"));
    assert_eq!(read.golden_answers, ["no"]);
    assert_eq!(read.extra["score"], Value::Null);
    let broken = questions("q.jsonl", r#"{"id": NaN, "question": "#).unwrap_err().to_string();
    assert!(broken.contains("q.jsonl, line 1: expected one JSON object per line"), "{broken}");
}

#[test]
fn utf_16_is_refused_by_name() {
    let little: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [&little, &big, &little[2..], &big[2..]] {
        let message = questions("q.jsonl", bytes).unwrap_err().to_string();
        assert!(message.contains("q.jsonl: UTF-16, expected UTF-8; convert the file (`iconv -f UTF-16"), "{message}");
    }
}

#[test]
fn other_names_of_parquet_files_are_known() {
    let bytes = std::fs::read(golden("flat.parquet")).unwrap();
    for name in ["q.parq", "q.pq", "train-00000-of-00001.PARQUET"] {
        assert_eq!(questions(name, &bytes).unwrap().len(), 3, "{name}");
    }
}
