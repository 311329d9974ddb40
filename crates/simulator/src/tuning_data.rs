//! Examples for a simulator from files of any of the shapes in which they are kept.

use std::path::Path;

use serde_json::{Map, Value};
use zerosearch_data::{Question, RowProblem, read_objects};
use zerosearch_search::Quality;

use crate::published::parse_example;
use crate::{Interaction, SimulatorError};

/// An interaction from a file, with its label where the file has one.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningRow {
    /// The call.
    pub interaction: Interaction,
    /// Whether the answer can be found in what it returned; `None` if it was not judged.
    pub quality: Option<Quality>,
}

/// Reads the examples of a `.jsonl`, `.json` or `.parquet` file, in order, and drops none. Each row has one of these shapes:
///
/// - our own: `question, golden_answers, query, documents` and, if it was judged, `quality` (`"useful"` or `"noisy"`). Documents are
///   texts, or objects with `contents` (or `text`, `snippet`) and perhaps a `title`;
/// - a prompt of the published template and its completion, as in ZeroSearch's `SimulationTuning_dataset`: `instruction`, `input` and
///   `output` (Alpaca), `conversations` of `from` and `value` (ShareGPT), `messages` of `role` and `content` (OpenAI),
///   `prompt` and `completion` (or `response`). Keyword, question, answer and query are read from the prompt, the documents from the
///   `Doc n: …` lines of the completion.
///
/// ```
/// use zerosearch_search::Quality;
/// use zerosearch_simulator::read_tuning_data;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("rows.json");
/// let prompt = "Given a query, you need to generate five noisy documents for the query.\\n\
///     The user is trying to answer the question: What is it? whose answer is Lima.\\nQuery: the city\\nNoisy Output:\\n";
/// std::fs::write(&path, format!(r#"[{{"instruction": "{prompt}", "output": "Doc 1: It has a lake."}}]"#))?;
/// let row = read_tuning_data(&path)?.remove(0);
/// assert_eq!((row.quality, row.interaction.query.as_str()), (Some(Quality::Noisy), "the city"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row that has none of these shapes, with its place.
pub fn read_tuning_data(path: impl AsRef<Path>) -> Result<Vec<TuningRow>, SimulatorError> {
    Ok(read_objects(path, |row| parse(&row))?)
}

/// The shapes, for messages.
const SHAPES: &str = "`documents` with `question, golden_answers, query`, or a prompt with its completion: `instruction, input, output`, \
                      `conversations`, `messages`, or `prompt, completion`";

fn parse(row: &Map<String, Value>) -> Result<TuningRow, RowProblem> {
    if row.contains_key("documents") {
        return own(row);
    }
    let (key, prompt, completion) = example(row).ok_or_else(|| RowProblem::new("documents", None, SHAPES))?;
    let row = parse_example(key, &prompt, &completion)?;
    Ok(TuningRow { interaction: row.interaction, quality: Some(row.quality) })
}

fn own(row: &Map<String, Value>) -> Result<TuningRow, RowProblem> {
    let query = match row.get("query") {
        Some(Value::String(query)) if !query.trim().is_empty() => query.clone(),
        other => return Err(RowProblem::new("query", other, "a text that is not blank")),
    };
    let documents = row.get("documents");
    let texts =
        documents.and_then(Value::as_array).and_then(|list| list.iter().map(document).collect::<Option<Vec<_>>>());
    let texts = texts.filter(|texts| !texts.is_empty()).ok_or_else(|| {
        RowProblem::new("documents", documents, "a list of at least one text, or object with `contents`")
    })?;
    let quality = match row.get("quality") {
        None | Some(Value::Null) => None,
        Some(Value::String(keyword)) if keyword == "useful" => Some(Quality::Useful),
        Some(Value::String(keyword)) if keyword == "noisy" => Some(Quality::Noisy),
        other => return Err(RowProblem::new("quality", other, "\"useful\", \"noisy\", or no such key")),
    };
    // The question and its answers as any file of questions may have them.
    let mut asked = row.clone();
    asked.entry("id").or_insert_with(|| "row".into());
    let Question { question, golden_answers, .. } = Question::try_from(asked)?;
    Ok(TuningRow { interaction: Interaction { question, golden_answers, query, documents: texts }, quality })
}

fn document(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            let contents = ["contents", "text", "snippet"].into_iter().find_map(text)?;
            match text("title") {
                Some(title) if !title.is_empty() && !contents.contains(title) => format!("{title}: {contents}"),
                _ => contents.into(),
            }
        }
        _ => return None,
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// Prompt and completion of a row, and the key that the prompt stands under.
fn example(row: &Map<String, Value>) -> Option<(&'static str, String, String)> {
    for key in ["conversations", "messages"] {
        if let Some(messages) = row.get(key) {
            let (prompt, completion) = exchange(messages)?;
            return Some((key, prompt, completion));
        }
    }
    let text = |key: &str| row.get(key).and_then(said).filter(|text| !text.trim().is_empty());
    if let Some(output) = text("output") {
        let parts = ["system", "instruction", "input"].map(text);
        let prompt = parts.into_iter().flatten().collect::<Vec<_>>().join("\n");
        return (!prompt.is_empty()).then_some(("instruction", prompt, output));
    }
    let completion = ["completion", "response"].into_iter().find_map(text)?;
    Some(("prompt", text("prompt").or_else(|| text("query"))?, completion))
}

/// The last exchange of a conversation: all that was said before the last answer, and that answer.
fn exchange(messages: &Value) -> Option<(String, String)> {
    let messages = messages.as_array()?;
    let author =
        |message: &Value| message.get("from").or(message.get("role")).and_then(Value::as_str).map(str::to_string);
    let last = messages
        .iter()
        .rposition(|message| matches!(author(message).as_deref(), Some("gpt" | "assistant" | "model")))?;
    let before: Vec<String> = messages[..last].iter().filter_map(said).filter(|text| !text.is_empty()).collect();
    Some((before.join("\n"), said(&messages[last])?))
}

/// The words of a text, a message, a part of a message, or a list of them.
fn said(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().map(said).collect::<Option<Vec<_>>>()?.join("\n")),
        Value::Object(message) => ["value", "content", "text"].into_iter().find_map(|key| said(message.get(key)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROMPT: &str = "You are the Google search engine.\nGiven a query, you need to generate five useful documents for the query.\n\n\
        The user is trying to answer the question: \"What is the capital of Chad?\" whose answer is N'Djamena.\n\
        Each document should contain about 30 words, and these documents should contain useful information.\n\n\
        Query: capital Chad\nUseful Output:\n";
    const DOCUMENTS: &str = "Doc 1: N'Djamena is the capital.\nDoc 2: Chad is a country.";

    fn expected(quality: Option<Quality>) -> TuningRow {
        let interaction = Interaction {
            question: "What is the capital of Chad?".into(),
            golden_answers: vec!["N'Djamena".into()],
            query: "capital Chad".into(),
            documents: vec!["N'Djamena is the capital.".into(), "Chad is a country.".into()],
        };
        TuningRow { interaction, quality }
    }

    fn row(value: Value) -> Result<TuningRow, RowProblem> {
        parse(value.as_object().unwrap())
    }

    #[test]
    fn every_shape_is_read() {
        let (system, rest) = PROMPT.split_once('\n').unwrap();
        for shape in [
            json!({"instruction": PROMPT, "input": "", "output": DOCUMENTS}),
            json!({"instruction": "", "input": PROMPT, "output": DOCUMENTS}),
            json!({"system": system, "instruction": rest, "output": DOCUMENTS, "history": []}),
            json!({"conversations": [{"from": "human", "value": PROMPT}, {"from": "gpt", "value": DOCUMENTS}]}),
            json!({"conversations": [
                {"from": "system", "value": system}, {"from": "user", "value": rest}, {"from": "assistant", "value": DOCUMENTS}
            ]}),
            json!({"messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
                {"role": "assistant", "content": DOCUMENTS}
            ]}),
            json!({"prompt": PROMPT, "completion": DOCUMENTS}),
            json!({"prompt": [{"role": "user", "content": PROMPT}], "completion": [{"role": "assistant", "content": DOCUMENTS}]}),
            json!({"query": PROMPT, "response": DOCUMENTS}),
        ] {
            assert_eq!(row(shape.clone()), Ok(expected(Some(Quality::Useful))), "{shape}");
        }
    }

    #[test]
    fn our_own_rows_may_have_no_label_and_documents_a_title() {
        let documents = json!(["N'Djamena is the capital.", {"contents": "Chad is a country.", "title": "Chad"}]);
        let own = json!({"question": "What is the capital of Chad?", "answer": "N'Djamena", "query": "capital Chad", "documents": documents});
        assert_eq!(row(own.clone()), Ok(expected(None)));
        let mut judged = own;
        judged["quality"] = "noisy".into();
        assert_eq!(row(judged), Ok(expected(Some(Quality::Noisy))));
    }

    #[test]
    fn a_row_of_no_shape_is_refused_with_its_place() {
        let own = |key: &str, value: Value| {
            let mut row = json!({"question": "Q?", "golden_answers": ["a"], "query": "q", "documents": ["d"]});
            row[key] = value;
            row
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let good = json!({"instruction": PROMPT, "input": "", "output": DOCUMENTS});
        for (bad, message) in [
            (json!({"text": "no example"}), "`documents` is missing; expected `documents` with"),
            (
                json!({"instruction": "Add 1 and 1.", "output": "2"}),
                "`instruction` is \"Add 1 and 1.\"; expected ZeroSearch's",
            ),
            (json!({"messages": [{"role": "user", "content": PROMPT}]}), "`documents` is missing"),
            (own("query", " ".into()), "`query` is \" \"; expected a text"),
            (own("documents", json!([])), "`documents` is []; expected a list"),
            (own("documents", json!(["d", 1])), "`documents` is [\"d\",1]; expected a list"),
            (own("quality", "good".into()), "`quality` is \"good\"; expected \"useful\""),
            (own("golden_answers", json!([])), "`golden_answers` is []"),
        ] {
            std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let error = read_tuning_data(&path).unwrap_err().to_string();
            assert!(error.contains("rows.jsonl, line 2: ") && error.contains(message), "{bad}: {error}");
        }
    }
}
