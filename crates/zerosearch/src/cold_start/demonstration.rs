//! Scripted episodes in a file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zerosearch_data::{DataError, RowProblem, read_objects};

/// A question and what a policy writes for it, turn by turn. The documents between the turns come from an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demonstration {
    /// The question.
    pub question: String,
    /// Every answer that counts as right.
    pub golden_answers: Vec<String>,
    /// The policy's turns: searches such as `<think>…</think><search>…</search>`, and an answer at last.
    pub turns: Vec<String>,
}

/// Reads demonstrations, one in each row, with `question`, `golden_answers` and `turns`; other keys are ignored. The file's name says its
/// format, as for [`read_questions`](zerosearch_data::read_questions).
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row in which a key is missing or of another type.
pub fn read_demonstrations(path: impl AsRef<Path>) -> Result<Vec<Demonstration>, DataError> {
    read_objects(path, |row| {
        let texts = |key: &'static str| {
            let texts = row.get(key).and_then(Value::as_array).filter(|texts| !texts.is_empty());
            let texts = texts.and_then(|texts| texts.iter().map(|text| Some(text.as_str()?.to_owned())).collect());
            texts.ok_or_else(|| RowProblem::new(key, row.get(key), "a list of texts"))
        };
        let question = row.get("question").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let question =
            question.ok_or_else(|| RowProblem::new("question", row.get("question"), "a text that is not blank"))?;
        Ok(Demonstration {
            question: question.to_owned(),
            golden_answers: texts("golden_answers")?,
            turns: texts("turns")?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demonstrations.jsonl");
        let good = r#"{"question": "q", "golden_answers": ["a"], "turns": ["<answer>a</answer>"], "hops": 1}"#;
        std::fs::write(&path, good).unwrap();
        assert_eq!(read_demonstrations(&path).unwrap()[0].turns, ["<answer>a</answer>"]);
        for (broken, expected) in [
            (r#"{"question": " ", "golden_answers": ["a"], "turns": ["b"]}"#, "`question`"),
            (r#"{"question": "q", "golden_answers": "a", "turns": ["b"]}"#, "`golden_answers` is \"a\""),
            (r#"{"question": "q", "golden_answers": ["a"], "turns": []}"#, "`turns` is []"),
        ] {
            std::fs::write(&path, format!("{good}\n{broken}\n")).unwrap();
            let message = read_demonstrations(&path).unwrap_err().to_string();
            assert!(message.contains("line 2") && message.contains(expected), "{message}");
        }
    }
}
