//! Rows of a file as JSON objects, whatever the format, and JSONL out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use zerosearch_files::StagedFile;

use crate::json_rows::json_rows;
use crate::parquet_rows::parquet_rows;
use crate::{DataError, Position, RowProblem, literal};

/// Reads every row of a file with `parse`; its name says the format.
pub(crate) fn read_rows<T>(
    path: &Path,
    mut parse: impl FnMut(Map<String, Value>, Position) -> Result<T, RowProblem>,
) -> Result<Vec<T>, DataError> {
    let mut rows = Vec::new();
    let mut take = |object, position| {
        let problem = |problem| DataError::Row { path: path.into(), position, problem };
        rows.push(parse(object, position).map_err(problem)?);
        Ok(())
    };
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let (name, compressed) = name.strip_suffix(".gz").map_or((&*name, false), |name| (name, true));
    match name.rsplit_once('.') {
        Some((_, "jsonl" | "json" | "ndjson")) => json_rows(path, compressed, &mut take)?,
        Some((_, "parquet" | "parq" | "pq")) if !compressed => parquet_rows(path, &mut take)?,
        _ => return Err(DataError::Extension { path: path.into(), expected: ".jsonl or .parquet" }),
    }
    if rows.is_empty() { Err(DataError::Empty { path: path.into() }) } else { Ok(rows) }
}

/// Reads the rows of a file of any shape, in order: `parse` makes a value of each. The name says the format, as for
/// [`read_questions`](crate::read_questions).
///
/// ```
/// use zerosearch_data::{RowProblem, read_objects};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("rows.json");
/// std::fs::write(&path, r#"[{"input": "a"}, {"output": "b"}]"#)?;
/// let error = read_objects(&path, |row| match row.get("input") {
///     Some(input) => Ok(input.to_string()),
///     None => Err(RowProblem::new("input", None, "a text")),
/// });
/// assert!(error.unwrap_err().to_string().contains("rows.json, row 2: `input` is missing; expected a text"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A file that is missing, unreadable, of another type, broken or without rows; a row that `parse` refuses.
pub fn read_objects<T>(
    path: impl AsRef<Path>,
    mut parse: impl FnMut(Map<String, Value>) -> Result<T, RowProblem>,
) -> Result<Vec<T>, DataError> {
    read_rows(path.as_ref(), |row, _| parse(row))
}

/// Refuses a second row with the same id in the same data source.
pub(crate) struct UniqueIds<'a> {
    path: &'a Path,
    seen: HashMap<(Option<&'a str>, &'a str), Position>,
}

impl<'a> UniqueIds<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Self { path, seen: HashMap::new() }
    }

    pub(crate) fn insert(
        &mut self,
        data_source: Option<&'a str>,
        id: &'a str,
        position: Position,
    ) -> Result<(), DataError> {
        match self.seen.insert((data_source, id), position) {
            Some(first) => Err(DataError::DuplicateId { path: self.path.into(), position, first, id: id.to_owned() }),
            None => Ok(()),
        }
    }
}

/// Writes one JSON object a line. The file appears complete or not at all.
pub(crate) fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), DataError> {
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Err(DataError::Extension { path: path.into(), expected: ".jsonl" });
    }
    let staged = StagedFile::create(path)?;
    write_lines(BufWriter::new(staged), rows).map_err(|source| DataError::write(path, source))?.publish()?;
    Ok(())
}

fn write_lines<T: Serialize>(mut file: BufWriter<StagedFile>, rows: &[T]) -> std::io::Result<StagedFile> {
    for row in rows {
        serde_json::to_writer(&mut file, row)?;
        file.write_all(b"\n")?;
    }
    Ok(file.into_inner()?)
}

/// A string, or a number as its text; `None` for anything else.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => float_text(float),
            None => number.to_string(),
        }),
        _ => None,
    }
}

/// As it would be written by hand. Tables with gaps store whole numbers as floats: 1960.0 is 1960.
fn float_text(float: f64) -> String {
    match float.abs() {
        0.0 => "0".to_owned(),
        // Without an exponent.
        1e-7..1e21 => float.to_string(),
        _ => Value::from(float).to_string(),
    }
}

/// The value under `key`, where null counts as absent.
pub(crate) fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// The value under a path of keys, through objects that were written into a text.
pub(crate) fn nested<'a>(row: &'a Map<String, Value>, path: &[&str]) -> Option<Cow<'a, Value>> {
    let (first, rest) = path.split_first()?;
    let mut value = Cow::Borrowed(present(row, first)?);
    for key in rest {
        if let Value::String(text) = &*value {
            value = Cow::Owned(literal::parse(text)?);
        }
        value = match value {
            Cow::Borrowed(value) => Cow::Borrowed(value.get(key)?),
            Cow::Owned(mut value) => Cow::Owned(value.get_mut(key)?.take()),
        };
    }
    Some(value)
}

/// The string under `key`, which must be there and not blank.
pub(crate) fn required_text(
    object: &Map<String, Value>,
    key: &'static str,
    expected: &'static str,
) -> Result<String, RowProblem> {
    let value = present(object, key);
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        _ => Err(RowProblem::new(key, value, expected)),
    }
}
