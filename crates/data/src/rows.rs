//! Rows of a file as JSON objects, whatever the format, and JSONL out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use zerosearch_files::StagedFile;

use crate::parquet_rows::parquet_rows;
use crate::{DataError, Position, RowProblem};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads every row of a `.jsonl` or `.parquet` file with `parse`.
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
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("jsonl") => jsonl_rows(path, &mut take)?,
        Some("parquet") => parquet_rows(path, &mut take)?,
        _ => return Err(DataError::Extension { path: path.into(), expected: ".jsonl or .parquet" }),
    }
    if rows.is_empty() { Err(DataError::Empty { path: path.into() }) } else { Ok(rows) }
}

/// Blank lines, a byte order mark and carriage returns are let pass; lines are numbered as an editor does.
fn jsonl_rows(
    path: &Path,
    take: &mut impl FnMut(Map<String, Value>, Position) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut file = BufReader::new(File::open(path).map_err(|source| DataError::read(path, source))?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|source| DataError::read(path, source))? == 0 {
            break;
        }
        let position = Position::Line(number);
        let bytes = if number == 1 { line.strip_prefix(BOM).unwrap_or(&line) } else { &line };
        let text = std::str::from_utf8(bytes).map_err(|_| DataError::NotUtf8 { path: path.into(), position })?.trim();
        if !text.is_empty() {
            let object =
                serde_json::from_str(text).map_err(|source| DataError::Json { path: path.into(), position, source })?;
            take(object, position)?;
        }
    }
    Ok(())
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
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The value under `key`, where null counts as absent.
pub(crate) fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
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
