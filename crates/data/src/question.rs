//! Questions with their golden answers.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::answers::answers;
use crate::rows::{UniqueIds, nested, present, read_rows, text_of, write_jsonl};
use crate::{DataError, Position, RowProblem, literal};

/// A question and every answer that counts as right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Question {
    /// Its name, unique within its data source.
    pub id: String,
    /// The text.
    pub question: String,
    /// Every answer that counts as right: at least one, none blank.
    pub golden_answers: Vec<String>,
    /// The data set it comes from, if the row says.
    pub data_source: Option<String>,
    /// How many searches it takes, if the row says.
    pub hops: Option<usize>,
    /// Every other key of the row, untouched.
    pub extra: Map<String, Value>,
}

const KEYS: [&str; 5] = ["id", "question", "golden_answers", "data_source", "hops"];

impl Question {
    /// A question of which nothing else is known.
    pub fn new(id: impl Into<String>, question: impl Into<String>, golden_answers: Vec<String>) -> Self {
        let (id, question) = (id.into(), question.into());
        Self { id, question, golden_answers, data_source: None, hops: None, extra: Map::new() }
    }

    /// `fallback_id` is for a row that has none.
    fn from_row(mut row: Map<String, Value>, fallback_id: Option<&str>) -> Result<Self, RowProblem> {
        let question = Self {
            id: id(&row, fallback_id)?,
            question: text(&row)?,
            golden_answers: answers(&row)?,
            data_source: data_source(&row)?,
            hops: hops(&row)?,
            extra: Map::new(),
        };
        row.retain(|key, _| !KEYS.contains(&key.as_str()));
        Ok(Self { extra: row, ..question })
    }
}

impl TryFrom<Map<String, Value>> for Question {
    type Error = RowProblem;

    fn try_from(row: Map<String, Value>) -> Result<Self, RowProblem> {
        Self::from_row(row, None)
    }
}

impl From<Question> for Map<String, Value> {
    fn from(question: Question) -> Self {
        let mut row = Map::new();
        row.insert("id".into(), question.id.into());
        row.insert("question".into(), question.question.into());
        row.insert("golden_answers".into(), question.golden_answers.into());
        row.extend(question.data_source.map(|source| ("data_source".into(), source.into())));
        row.extend(question.hops.map(|hops| ("hops".into(), hops.into())));
        row.extend(question.extra.into_iter().filter(|(key, _)| !KEYS.contains(&key.as_str())));
        row
    }
}

/// Reads the questions of a `.jsonl`, `.json` or `.parquet` file, in order, and drops none; text may be
/// compressed (`.jsonl.gz`), and a list of objects is read as well as one object a line.
///
/// Keys:
/// - `id`, else `extra_info.split` and `extra_info.index`, else `row-N`;
/// - `question`, else `extra_info.question`, else the last user message of `prompt`, without the
///   instruction of Search-R1;
/// - `golden_answers`, else `reward_model.ground_truth.target`, else `reward_model.ground_truth`, else
///   `extra_info.tools_kwargs.search.create_kwargs.ground_truth`, else `possible_answers`, `answers` or
///   `answer` (with `answer_aliases`). Answers are a text, a number, a truth value, a list of them, or a
///   list that was written into a text by JSON or Python. Whole numbers that became floats are whole
///   again: 1960.0 is `1960`. Blank ones and nulls are left out, since everything contains them;
/// - `data_source` and `hops`, if there.
///
/// All other keys are kept in [`Question::extra`].
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row without a
/// question or an answer; an id used twice within a data source.
pub fn read_questions(path: impl AsRef<Path>) -> Result<Vec<Question>, DataError> {
    let path = path.as_ref();
    let mut positions = Vec::new();
    let questions = read_rows(path, |row, position| {
        positions.push(position);
        let (Position::Line(number) | Position::Row(number)) = position;
        Question::from_row(row, Some(&format!("row-{number}")))
    })?;
    // Collections of several sets use the same ids in each: test_0, test_1, …
    let mut ids = UniqueIds::new(path);
    for (question, position) in questions.iter().zip(positions) {
        ids.insert(question.data_source.as_deref(), &question.id, position)?;
    }
    Ok(questions)
}

/// Writes questions as `.jsonl`; the file appears complete or not at all.
///
/// # Errors
/// Another type of file, or a place that cannot be written.
pub fn write_questions(path: impl AsRef<Path>, questions: &[Question]) -> Result<(), DataError> {
    write_jsonl(path.as_ref(), questions)
}

fn id(row: &Map<String, Value>, fallback: Option<&str>) -> Result<String, RowProblem> {
    const EXPECTED: &str = "a string or a number";
    if let Some(value) = present(row, "id") {
        return text_of(value).filter(|id| !id.is_empty()).ok_or_else(|| RowProblem::new("id", Some(value), EXPECTED));
    }
    let part = |key| nested(row, &["extra_info", key]).and_then(|value| text_of(&value));
    match (part("split"), part("index"), fallback) {
        (Some(split), Some(index), _) => Ok(format!("{split}_{index}")),
        (None, Some(index), _) => Ok(index),
        (_, None, Some(fallback)) => Ok(fallback.to_owned()),
        (_, None, None) => Err(RowProblem::new("id", None, EXPECTED)),
    }
}

/// The bare question, where the row has one: a prompt asks it with instructions around it.
fn text(row: &Map<String, Value>) -> Result<String, RowProblem> {
    let own = present(row, "question");
    let told = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
    let text = match own {
        Some(value) => told(value),
        None => nested(row, &["extra_info", "question"])
            .and_then(|value| told(&value))
            .or_else(|| prompt_question(present(row, "prompt")?)),
    };
    text.ok_or_else(|| RowProblem::new("question", own, "a text that is not blank (or `prompt`, a text or messages)"))
}

/// A prompt is a text, or a list of messages of which the user's last one asks.
fn prompt_question(prompt: &Value) -> Option<String> {
    let text = match prompt {
        Value::String(text) => match literal::parse(text).as_ref().and_then(last_user_message) {
            Some(message) => message,
            None => text.clone(),
        },
        messages => last_user_message(messages)?,
    };
    let asked = without_instruction(&text);
    if asked.trim().is_empty() { None } else { Some(asked.to_owned()) }
}

fn last_user_message(messages: &Value) -> Option<String> {
    let is_user = |message: &&Value| message.get("role").is_some_and(|role| role == "user");
    match messages.as_array()?.iter().rev().find(is_user)?.get("content")? {
        Value::String(text) => Some(text.clone()),
        // Of text and images.
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            Some(texts.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

/// The question behind the instruction of Search-R1, which ends with an example of an answer:
/// `For example, <answer> Beijing </answer>. Question: …`.
fn without_instruction(prompt: &str) -> &str {
    match prompt.rsplit_once("</answer>. Question:") {
        Some((_, question)) if !question.trim().is_empty() => question.trim(),
        _ => prompt,
    }
}

fn data_source(row: &Map<String, Value>) -> Result<Option<String>, RowProblem> {
    let Some(value) = present(row, "data_source") else { return Ok(None) };
    match value.as_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(RowProblem::new("data_source", Some(value), "a string")),
    }
}

/// Tables with gaps store integers as floats: 2.0 is 2, and NaN has become null.
fn hops(row: &Map<String, Value>) -> Result<Option<usize>, RowProblem> {
    let Some(value) = present(row, "hops") else { return Ok(None) };
    let float = value.as_f64().filter(|hops| hops.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(hops));
    match (value.as_u64().and_then(|hops| usize::try_from(hops).ok()), float) {
        (Some(hops), _) => Ok(Some(hops)),
        (None, Some(hops)) => Ok(Some(hops as usize)),
        (None, None) => Err(RowProblem::new("hops", Some(value), "a whole number, 0 or more")),
    }
}
