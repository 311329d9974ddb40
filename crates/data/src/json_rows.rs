//! Rows of a text file: one JSON object a line, or one list of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zerosearch_files::{decode_text, is_utf_16, replace_non_numbers, without_mark};

use crate::{DataError, Position};

/// Blank lines, a byte-order mark and carriage returns are let pass; lines are numbered as an editor does.
pub(crate) fn json_rows(
    path: &Path,
    compressed: bool,
    take: &mut impl FnMut(Map<String, Value>, Position) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let failed = |source| DataError::read(path, source);
    let file = File::open(path).map_err(failed)?;
    let file: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    let mut began = false;
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if number == 1 && is_utf_16(&line) {
            return Err(DataError::Utf16 { path: path.into() });
        }
        let position = Position::Line(number);
        let bytes = if number == 1 { without_mark(&line) } else { &line };
        let text = std::str::from_utf8(bytes).map_err(|_| DataError::NotUtf8 { path: path.into(), position })?.trim();
        if !began && text.starts_with('[') {
            // Blank lines, so that the parser counts as an editor does.
            let mut whole = vec![b'\n'; number as usize - 1];
            whole.extend(text.as_bytes());
            whole.push(b'\n');
            file.read_to_end(&mut whole).map_err(failed)?;
            return list_rows(path, whole, take);
        }
        if !text.is_empty() {
            began = true;
            take(parse(path, text, |_| position)?, position)?;
        }
    }
    Ok(())
}

fn list_rows(
    path: &Path,
    whole: Vec<u8>,
    take: &mut impl FnMut(Map<String, Value>, Position) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let text = decode_text(whole).map_err(|source| DataError::read(path, source))?;
    let rows: Vec<Map<String, Value>> = parse(path, &text, |error| Position::Line(error.line() as u64))?;
    for (row, number) in rows.into_iter().zip(1..) {
        take(row, Position::Row(number))?;
    }
    Ok(())
}

/// Python writes NaN and infinities as JSON does not know them; they are gaps of a table, and null.
fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    position: impl Fn(&serde_json::Error) -> Position,
) -> Result<T, DataError> {
    serde_json::from_str(text).or_else(|source| {
        let known = replace_non_numbers(text, |_| "null".into()).and_then(|text| serde_json::from_str(&text).ok());
        known.ok_or_else(|| DataError::Json { path: path.into(), position: position(&source), source })
    })
}
