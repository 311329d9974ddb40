//! Rows survive being written and read, and different questions have different fingerprints.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};
use zerosearch_data::{Question, SftRow, fingerprint, read_questions, read_sft, write_questions, write_sft};

fn text() -> impl Strategy<Value = String> {
    // Control characters, quotes, separators that end a line elsewhere, and a byte order mark.
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec!["\n", "\r\n", "\u{2028}", "\u{feff}", "\"", "\\", "\0", "é"]).prop_map(str::to_owned),
    ];
    (vec(piece.clone(), 0..6), "[a-z]", vec(piece, 0..6)).prop_map(|(a, b, c)| a.concat() + &b + &c.concat())
}

fn extra() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
        vec(text(), 0..3).prop_map(Value::from),
    ];
    vec(("extra_[a-z]{1,8}", value), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn question() -> impl Strategy<Value = Question> {
    (text(), text(), vec(text(), 1..4), option::of(text()), option::of(0usize..9), extra()).prop_map(
        |(id, question, golden_answers, data_source, hops, extra)| Question {
            id,
            question,
            golden_answers,
            data_source,
            hops,
            extra,
        },
    )
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    vec(question(), 1..6).prop_map(|mut questions| {
        for (index, question) in questions.iter_mut().enumerate() {
            question.id.push_str(&index.to_string());
        }
        questions
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn questions_survive_a_file(questions in questions()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        write_questions(&path, &questions).unwrap();
        let read = read_questions(&path).unwrap();
        prop_assert_eq!(fingerprint(&read), fingerprint(&questions));
        prop_assert_eq!(read, questions);
    }

    #[test]
    fn sft_rows_survive_a_file(texts in vec((text(), text()), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        let rows: Vec<_> = texts.into_iter().map(|(prompt, completion)| SftRow { prompt, completion }).collect();
        write_sft(&path, &rows).unwrap();
        prop_assert_eq!(read_sft(&path).unwrap(), rows);
    }

    #[test]
    fn any_change_of_content_changes_the_fingerprint(questions in questions(), which in any::<prop::sample::Index>()) {
        let index = which.index(questions.len());
        let original = fingerprint(&questions);
        let edits: [fn(&mut Question); 7] = [
            |question| question.id.push('x'),
            |question| question.question.push('x'),
            |question| question.golden_answers.push("x".to_owned()),
            |question| question.golden_answers[0].push('x'),
            |question| question.golden_answers.reverse(),
            |question| question.data_source = question.data_source.take().map_or(Some(String::new()), |_| None),
            |question| question.hops = Some(question.hops.map_or(0, |hops| hops + 1)),
        ];
        for edit in edits {
            let mut changed = questions.clone();
            edit(&mut changed[index]);
            prop_assert_eq!(fingerprint(&changed) == original, changed == questions);
        }
        let mut reordered = questions.clone();
        reordered.reverse();
        prop_assert_eq!(fingerprint(&reordered) == original, reordered == questions);
        let mut annotated = questions.clone();
        annotated[index].extra.insert("extra_note".to_owned(), Value::Null);
        prop_assert_eq!(fingerprint(&annotated), original);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["q.jsonl", "q.parquet"] {
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            prop_assert!(read_questions(&path).is_err(), "random bytes are no questions");
        }
    }
}

#[test]
fn keys_of_a_question_in_extra_do_not_displace_its_own() {
    let mut question = Question::new("a", "A?", vec!["x".to_owned()]);
    question.extra.insert("question".to_owned(), "B?".into());
    let json = serde_json::to_string(&question).unwrap();
    assert_eq!(json, r#"{"id":"a","question":"A?","golden_answers":["x"]}"#);
}
