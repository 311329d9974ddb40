//! The golden answers of a row, wherever the scripts of the field put them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::RowProblem;
use crate::literal;
use crate::rows::{nested, present, text_of};

/// The answers of the first key that has one which is not blank; blank ones are left out, since everything contains
/// them.
pub(crate) fn answers(row: &Map<String, Value>) -> Result<Vec<String>, RowProblem> {
    const EXPECTED: &str =
        "at least one answer that is not blank, as a string or a list (or `reward_model.ground_truth.target`)";
    let mut empty = None;
    for (key, value, form) in sources(row) {
        let Some(value) = value.filter(|value| !value.is_null()) else { continue };
        let answers = texts(&value, form).ok_or_else(|| RowProblem::new(key, Some(&value), EXPECTED))?;
        let answers: Vec<_> = answers.into_iter().filter(|answer| !answer.trim().is_empty()).collect();
        if !answers.is_empty() {
            return Ok(answers);
        }
        empty.get_or_insert_with(|| RowProblem::new(key, Some(&value), EXPECTED));
    }
    Err(empty.unwrap_or_else(|| RowProblem::new("golden_answers", None, EXPECTED)))
}

/// Which texts are lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of a key that holds a list: every text that is one.
    List,
    /// Of a key that may hold a single answer, such as the interval `[0, 1]`: only a list that has texts.
    Any,
}

/// The keys that hold answers, in the order in which they count.
fn sources(row: &Map<String, Value>) -> [(&'static str, Option<Cow<'_, Value>>, Form); 6] {
    let own = |key| present(row, key).map(Cow::Borrowed);
    let (truth_key, truth, truth_form) = match nested(row, &["reward_model", "ground_truth"]) {
        Some(truth) if truth.is_object() => {
            let target = truth.get("target").cloned().map_or(truth, Cow::Owned);
            ("reward_model.ground_truth.target", Some(target), Form::List)
        }
        truth => ("reward_model.ground_truth", truth, Form::Any),
    };
    let copy = nested(row, &["extra_info", "tools_kwargs", "search", "create_kwargs", "ground_truth"]);
    let aliases = present(row, "answer_aliases").and_then(Value::as_array);
    let answer = present(row, "answer").map(|answer| match (answer, aliases) {
        (Value::String(_), Some(aliases)) => Cow::Owned([std::slice::from_ref(answer), aliases].concat().into()),
        _ => Cow::Borrowed(answer),
    });
    [
        ("golden_answers", own("golden_answers"), Form::List),
        // verl and Search-R1. verl's script copies it into the arguments of the search tool, and where its source has
        // no `reward_model` the copy is all there is.
        (truth_key, truth, truth_form),
        ("extra_info.tools_kwargs.search.create_kwargs.ground_truth", copy, Form::Any),
        // As their authors publish them: PopQA; WebQuestions and SQuAD; NQ, TriviaQA, HotpotQA, 2Wiki and Musique.
        ("possible_answers", own("possible_answers"), Form::List),
        ("answers", own("answers"), Form::List),
        ("answer", answer, Form::Any),
    ]
}

/// The answers in a value: a text, a number, a truth value, a list of them, or an object around them. Nulls are left
/// out; `None` for anything else.
fn texts(value: &Value, form: Form) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Bool(value) => Some(vec![value.to_string()]),
        Value::Number(_) => text_of(value).map(|text| vec![text]),
        Value::String(text) => Some(written(text, form).unwrap_or_else(|| vec![text.clone()])),
        Value::Array(list) => {
            let element = |value: &Value| match value {
                Value::Array(_) | Value::Object(_) => None,
                _ => texts(value, Form::Any),
            };
            list.iter().map(element).collect::<Option<Vec<_>>>().map(|answers| answers.concat())
        }
        Value::Object(object) => {
            // verl; TriviaQA; SQuAD.
            let mut list = texts(object.get("target").or(object.get("value")).or(object.get("text"))?, Form::List)?;
            if let Some(aliases) = object.get("aliases") {
                list.extend(texts(aliases, Form::List)?);
            }
            Some(list)
        }
    }
}

/// The answers of a list or object that was written into a text, as PopQA's are.
fn written(text: &str, form: Form) -> Option<Vec<String>> {
    let value = literal::parse(text)?;
    let is_list = |list: &Vec<Value>| {
        // A point `(1, 2)` is an answer.
        list.iter().any(Value::is_string) || form == Form::List && !text.trim_start().starts_with('(')
    };
    if value.as_array().is_none_or(is_list) { texts(&value, Form::List) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: Value) -> Result<Vec<String>, RowProblem> {
        answers(row.as_object().unwrap())
    }

    #[test]
    fn every_form_of_golden_answers() {
        for (golden, expected) in [
            (json!("Lima"), &["Lima"][..]),
            (json!(["Lima", null, "", " ", "The City"]), &["Lima", "The City"]),
            (json!(1960), &["1960"]),
            (json!(1960.0), &["1960"]),
            (
                json!([1960.0, 2.5, -0.0, 1e21, 1e16, 0.000_01, -3.0]),
                &["1960", "2.5", "0", "1e+21", "10000000000000000", "0.00001", "-3"],
            ),
            (json!(true), &["true"]),
            (json!([false]), &["false"]),
            (json!(r#"["politician", "political leader", "pol"]"#), &["politician", "political leader", "pol"]),
            (json!("['politician', \"people's leader\"]"), &["politician", "people's leader"]),
            (json!("('a', 'b')"), &["a", "b"]),
            (json!("['a' 'b']"), &["a", "b"]),
            (json!("array(['a', 'b'], dtype=object)"), &["a", "b"]),
            (json!([r#"["a", "b"]"#]), &["a", "b"]),
            (json!("[1960.0, 1961]"), &["1960", "1961"]),
            (json!("{'target': ['a']}"), &["a"]),
            (json!({"target": {"target": "a"}}), &["a"]),
            // Answers that only look like lists.
            (json!("(1, 2)"), &["(1, 2)"]),
            (json!(["[0, 1]"]), &["[0, 1]"]),
            (json!("[sic]"), &["[sic]"]),
            (json!("(What's the Story) Morning Glory?"), &["(What's the Story) Morning Glory?"]),
            (json!("\"Heroes\""), &["\"Heroes\""]),
            (json!("1960.0"), &["1960.0"]),
        ] {
            assert_eq!(read(json!({"golden_answers": golden})).unwrap(), expected, "{golden}");
        }
    }

    #[test]
    fn every_layout_of_the_field() {
        for row in [
            json!({"reward_model": {"style": "rule", "ground_truth": {"target": ["a", "b"]}}}),
            json!({"reward_model": {"style": "rule", "ground_truth": ["a", "b"]}}),
            json!({"reward_model": {"style": "rule", "ground_truth": r#"["a", "b"]"#}}),
            json!({"reward_model": {"style": "rule", "ground_truth": r#"{"target": ["a", "b"]}"#}}),
            json!({"reward_model": "{'style': 'rule', 'ground_truth': {'target': array(['a', 'b'], dtype=object)}}"}),
            json!({"reward_model": null, "extra_info": {"tools_kwargs": {"search": {"create_kwargs": {"ground_truth": ["a", "b"]}}}}}),
            json!({"golden_answers": [], "reward_model": {"ground_truth": {"target": ["a", "b"]}}}),
            json!({"possible_answers": r#"["a", "b"]"#, "obj": "a"}),
            json!({"answers": {"text": ["a", "b"], "answer_start": [0, 4]}}),
            json!({"answer": ["a", "b"]}),
            json!({"answer": "a", "answer_aliases": ["b"], "answerable": true}),
            json!({"answer": {"value": "a", "aliases": ["b"], "type": "WikipediaEntity"}}),
        ] {
            assert_eq!(read(row.clone()).unwrap(), ["a", "b"], "{row}");
        }
        for truth in ["[0, 1]", "[]", "{}", "\\boxed{3}"] {
            let row = json!({"reward_model": {"ground_truth": truth}});
            assert_eq!(read(row).unwrap(), [truth], "one answer of mathematics");
        }
    }

    #[test]
    fn a_list_without_answers_is_refused_by_its_key() {
        let refused = |row| read(row).unwrap_err().to_string();
        assert!(refused(json!({"golden_answers": "[]"})).starts_with("`golden_answers` is \"[]\""));
        assert!(refused(json!({"golden_answers": [null]})).starts_with("`golden_answers` is [null]"));
        assert!(refused(json!({"answer": {"x": 1}})).starts_with("`answer` is {\"x\":1}"));
    }
}
