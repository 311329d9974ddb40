//! Files that are read, and files that are refused with a message that says what to do.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use zerosearch_data::{
    CorpusRow, DataError, Position, Question, SftRow, fingerprint, read_corpus, read_questions, read_sft,
    write_questions, write_sft,
};

/// A file of this content in a folder of its own, which lives as long as the first part.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn questions(lines: &str) -> Result<Vec<Question>, DataError> {
    let (_folder, path) = file("q.jsonl", lines);
    read_questions(&path)
}

/// The message of an error on `q.jsonl`, without the folder.
fn refusal(lines: impl AsRef<[u8]>) -> String {
    let (folder, path) = file("q.jsonl", lines);
    let message = read_questions(&path).unwrap_err().to_string();
    message.replace(&format!("{}/", folder.path().display()), "")
}

const GOOD: &str = r#"{"id": "q1", "question": "Capital of Peru?", "golden_answers": ["Lima"]}"#;

#[test]
fn every_documented_form_of_a_row_is_read() {
    let lines = [
        r#"{"id": "a", "question": "A?", "golden_answers": ["1", "one"], "data_source": "nq", "hops": 2, "type": "x"}"#,
        r#"{"id": 7, "question": "A?", "golden_answers": "1"}"#,
        r#"{"question": "A?", "reward_model": {"ground_truth": {"target": ["1"]}}, "extra_info": {"split": "test", "index": 3}}"#,
        r#"{"question": "A?", "reward_model": {"ground_truth": {"target": "1"}}, "extra_info": {"index": 4}}"#,
        r#"{"prompt": "A?", "reward_model": {"ground_truth": "1"}}"#,
        r#"{"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "A?"}], "golden_answers": [1, " "], "hops": null}"#,
    ];
    let read = questions(&lines.join("\n")).unwrap();
    assert!(read.iter().all(|question| question.question == "A?" && question.golden_answers[0] == "1"));
    let ids: Vec<_> = read.iter().map(|question| question.id.as_str()).collect();
    assert_eq!(ids, ["a", "7", "test_3", "4", "row-5", "row-6"]);
    assert_eq!(read[0].golden_answers, ["1", "one"]);
    assert_eq!((read[0].data_source.as_deref(), read[0].hops), (Some("nq"), Some(2)));
    assert_eq!(read[0].extra, *json!({"type": "x"}).as_object().unwrap());
    assert_eq!(read[2].extra["extra_info"]["split"], "test");
    assert_eq!(read[5].golden_answers, ["1"], "a blank golden answer would be contained in everything");
    assert_eq!((read[5].data_source.as_deref(), read[5].hops), (None, None));
}

#[test]
fn a_byte_order_mark_blank_lines_and_carriage_returns_are_let_pass() {
    let read = questions(&format!("\u{feff}{GOOD}\r\n\r\n  \n{}", GOOD.replace("q1", "q2"))).unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].id, "q1");
}

#[test]
fn verl_parquet_is_read_as_pyarrow_wrote_it() {
    let read = read_questions(golden("verl.parquet")).unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(read[1].id, "train_1");
    assert_eq!(read[1].question, "¿Qué río pasa por Zürich?");
    assert_eq!(read[1].golden_answers, ["Limmat", "the Limmat"]);
    assert_eq!(read[1].data_source.as_deref(), Some("nq"));
    assert_eq!(read[1].extra["extra_info"], json!({"index": 1, "split": "train"}));
    assert_eq!(read[1].extra["prompt"][0]["role"], "user");
    assert_eq!(read[1].extra["reward_model"]["ground_truth"]["target"], json!(["Limmat", "the Limmat"]));
    assert_eq!((read[2].id.as_str(), read[2].data_source.as_deref()), ("train_0", Some("hotpotqa")));
}

#[test]
fn flat_parquet_with_gaps_numbers_and_unmarked_text_is_read() {
    let read = read_questions(golden("flat.parquet")).unwrap();
    let summary: Vec<_> = read.iter().map(|q| (q.id.as_str(), q.question.as_str(), q.hops)).collect();
    assert_eq!(summary, [("7", "a?", Some(1)), ("8", "b?", None), ("9", "c?", Some(2))]);
    assert_eq!(read[1].golden_answers, ["2", "zwei"]);
    let scores: Vec<_> = read.iter().map(|question| question.extra["score"].clone()).collect();
    assert_eq!(scores, [json!(0.5), json!(null), json!(null)]);
}

#[test]
fn a_missing_file_says_so() {
    type Reader = fn(&Path) -> Result<(), DataError>;
    let readers: [Reader; 3] =
        [|path| read_questions(path).map(drop), |path| read_corpus(path).map(drop), |path| read_sft(path).map(drop)];
    for read in readers {
        for name in ["none/such.jsonl", "none/such.parquet"] {
            let error = read(Path::new(name)).unwrap_err();
            assert!(matches!(error, DataError::Missing { .. }), "{error:?}");
            assert!(error.to_string().starts_with(&format!("{name}: no such file; check the path")), "{error}");
        }
    }
}

#[test]
fn a_folder_is_no_file() {
    let folder = tempfile::Builder::new().suffix(".jsonl").tempdir().unwrap();
    assert!(matches!(read_questions(folder.path()).unwrap_err(), DataError::Read { .. }));
}

#[test]
fn an_unknown_ending_names_the_known_ones() {
    let (_folder, path) = file("q.csv", "id,question\n");
    let error = read_questions(&path).unwrap_err().to_string();
    assert!(error.ends_with("q.csv: unknown file type, expected a name that ends in .jsonl or .parquet"), "{error}");
    let error = write_questions(path.with_extension("parquet"), &[]).unwrap_err().to_string();
    assert!(error.ends_with("q.parquet: unknown file type, expected a name that ends in .jsonl"), "{error}");
}

#[test]
fn a_broken_line_is_named() {
    let cut = &GOOD[..GOOD.len() - 8];
    assert_eq!(
        refusal(format!("{GOOD}\n\n{cut}\n")),
        format!(
            "q.jsonl, line 3: expected one JSON object per line: EOF while parsing a list at column {}; \
             correct or delete the line",
            cut.len()
        )
    );
    let list = refusal(format!("{GOOD}\n[1, 2]\n"));
    assert!(list.starts_with("q.jsonl, line 2: expected one JSON object per line: invalid type: sequence"), "{list}");
    assert!(!list.contains("line 1"), "the parser's own count contradicts the position: {list}");
}

#[test]
fn bytes_that_are_not_utf_8_are_named_by_line() {
    let mut bytes = format!("{GOOD}\n").into_bytes();
    bytes.extend(b"{\"id\": \"Z\xfcrich\"}\n");
    assert_eq!(refusal(bytes), "q.jsonl, line 2: not UTF-8; convert the file to UTF-8 (`iconv -t UTF-8`)");
}

#[test]
fn a_question_without_answers_is_refused() {
    let expected = "expected at least one answer that is not blank, as a string or a list \
                    (or `reward_model.ground_truth.target`); correct or delete the row";
    for (answers, found) in [
        ("", "`golden_answers` is missing"),
        (r#", "golden_answers": null"#, "`golden_answers` is missing"),
        (r#", "golden_answers": []"#, "`golden_answers` is []"),
        (r#", "golden_answers": ["", " "]"#, r#"`golden_answers` is [""," "]"#),
        (r#", "golden_answers": [["x"]]"#, r#"`golden_answers` is [["x"]]"#),
        (r#", "golden_answers": {"x": 1}"#, r#"`golden_answers` is {"x":1}"#),
        (r#", "reward_model": {"ground_truth": {"target": []}}"#, "`reward_model.ground_truth.target` is []"),
        (r#", "reward_model": {"ground_truth": {}}"#, "`reward_model.ground_truth.target` is {}"),
        (r#", "reward_model": {}"#, "`golden_answers` is missing"),
    ] {
        let line = format!(r#"{{"id": "q", "question": "A?"{answers}}}"#);
        assert_eq!(refusal(format!("{GOOD}\n{line}")), format!("q.jsonl, line 2: {found}; {expected}"));
    }
}

#[test]
fn a_row_without_a_question_is_refused() {
    let expected = "expected a text that is not blank (or `prompt`, a text or messages); correct or delete the row";
    for (question, found) in [
        ("", "missing"),
        (r#", "question": " ""#, r#"" ""#),
        (r#", "question": 3"#, "3"),
        (r#", "prompt": []"#, "missing"),
        (r#", "prompt": [{"role": "system", "content": "S"}]"#, "missing"),
    ] {
        let line = format!(r#"{{"id": "q", "golden_answers": ["x"]{question}}}"#);
        assert_eq!(refusal(line), format!("q.jsonl, line 1: `question` is {found}; {expected}"));
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_key() {
    for (key, value, message) in [
        ("id", "[1]", "`id` is [1]; expected a string or a number"),
        ("id", r#""""#, r#"`id` is ""; expected a string or a number"#),
        ("data_source", "3", "`data_source` is 3; expected a string"),
        ("hops", "-1", "`hops` is -1; expected a whole number, 0 or more"),
        ("hops", "1.5", "`hops` is 1.5; expected a whole number, 0 or more"),
        ("hops", r#""two""#, r#"`hops` is "two"; expected a whole number, 0 or more"#),
    ] {
        let line = format!(r#"{{"question": "A?", "golden_answers": ["x"], "{key}": {value}}}"#);
        assert_eq!(refusal(line), format!("q.jsonl, line 1: {message}; correct or delete the row"));
    }
    let long = format!(r#"{{"question": "A?", "golden_answers": ["x"], "id": ["{}"]}}"#, "é".repeat(500));
    assert!(refusal(long).len() < 250, "a long value is shortened");
}

#[test]
fn an_id_is_used_once_within_a_data_source() {
    assert_eq!(
        refusal(format!("{GOOD}\n\n{GOOD}")),
        "q.jsonl, line 3: id `q1` was already used at line 1; give each row its own id"
    );
    let of = |source: &str| GOOD.replace("}", &format!(r#", "data_source": "{source}"}}"#));
    assert_eq!(questions(&[of("nq"), of("popqa"), GOOD.to_owned()].join("\n")).unwrap().len(), 3);
}

#[test]
fn a_file_without_rows_is_refused() {
    for content in ["", "\n \n", "\u{feff}"] {
        assert_eq!(refusal(content), "q.jsonl: holds no rows; was it written completely?");
    }
}

#[test]
fn a_parquet_file_cut_short_is_refused() {
    let whole = fs::read(golden("verl.parquet")).unwrap();
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        let (_folder, path) = file("q.parquet", &whole[..length]);
        let error = read_questions(&path).unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }), "{length} bytes: {error:?}");
        assert!(error.to_string().contains("q.parquet: not a readable Parquet file"), "{error}");
    }
}

#[test]
fn a_bad_row_of_a_parquet_file_is_named_by_row() {
    // The same file, read as a corpus, has no contents.
    let error = read_corpus(golden("flat.parquet")).unwrap_err();
    assert!(matches!(error, DataError::Row { position: Position::Row(1), .. }), "{error:?}");
    assert!(error.to_string().contains("flat.parquet, row 1: `contents` is missing"), "{error}");
}

#[test]
fn a_corpus_is_read_and_its_errors_name_the_line() {
    let good = r#"{"id": "d1", "title": "Peru", "contents": "Lima is the capital.", "source": "x"}"#;
    let others = ["", r#"{"id": 2, "title": null, "contents": "Two."}"#, r#"{"contents": "No name."}"#];
    let (_folder, path) = file("c.jsonl", format!("\u{feff}{good}\r\n{}", others.join("\n")));
    let row = |id: Option<&str>, title: Option<&str>, contents: &str| {
        let (id, title) = (id.map(str::to_owned), title.map(str::to_owned));
        CorpusRow { id, title, contents: contents.into() }
    };
    let expected = [
        row(Some("d1"), Some("Peru"), "Lima is the capital."),
        row(Some("2"), None, "Two."),
        row(None, None, "No name."),
    ];
    assert_eq!(read_corpus(&path).unwrap(), expected);
    for (line, message) in [
        (r#"{"id": "d2"}"#, "`contents` is missing; expected the passage, a text that is not blank"),
        (r#"{"id": "d2", "contents": ""}"#, r#"`contents` is ""; expected the passage, a text that is not blank"#),
        (r#"{"id": [1], "contents": "x"}"#, "`id` is [1]; expected a string, a number, or no such key"),
        (r#"{"id": "d2", "title": 3, "contents": "x"}"#, "`title` is 3; expected a string, or no such key"),
        (r#"{"id": "d1", "contents": "x"}"#, "id `d1` was already used at line 1; give each row its own id"),
    ] {
        let (_folder, path) = file("c.jsonl", format!("{good}\n{line}"));
        let error = read_corpus(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("c.jsonl, line 2: {message}")), "{error}");
    }
}

#[test]
fn sft_rows_are_read_and_their_errors_name_the_line() {
    let (_folder, path) = file("s.jsonl", "{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"prompt\": \"p\"}");
    let error = read_sft(&path).unwrap_err().to_string();
    assert!(error.contains("s.jsonl, line 2: `completion` is missing; expected a text that is not blank"), "{error}");
    let rows = [SftRow { prompt: "Query: \"a\"\n".into(), completion: " Doc 1: é\n".into() }];
    write_sft(&path, &rows).unwrap();
    assert_eq!(read_sft(&path).unwrap(), rows);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none/q.jsonl");
    let error = write_questions(&missing, &[]).unwrap_err();
    assert!(matches!(error, DataError::Write { .. }), "{error:?}");
    assert!(error.to_string().contains("none/q.jsonl: cannot be written"), "{error}");
    assert!(error.to_string().contains("check free space and permissions"), "{error}");

    // The target is a folder: everything is written, and the last step fails.
    let taken = folder.path().join("taken.jsonl");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("inside"), "").unwrap();
    assert!(write_questions(&taken, &[]).is_err());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["taken.jsonl"]);
}

#[test]
fn writing_replaces_a_file() {
    let (folder, path) = file("q.jsonl", "old");
    let new = [Question::new("a", "A?", vec!["x".to_owned()])];
    write_questions(&path, &new).unwrap();
    assert_eq!(read_questions(&path).unwrap(), new);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_fingerprint_is_fixed() {
    let mut question = Question::new("q1", "Capital of Peru?", vec!["Lima".to_owned()]);
    question.data_source = Some("nq".to_owned());
    question.hops = Some(1);
    // Written down, because checkpoints of earlier versions hold it.
    assert_eq!(fingerprint(&[question]), "1-2a3a1771c85f32b9");
    assert_eq!(fingerprint(&[]), "0-cbf29ce484222325");
}
