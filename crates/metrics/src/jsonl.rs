//! One JSON object a line, the form that other tools read.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use zerosearch_files::{FileError, RowError, append, parse_rows, write_atomic};

use crate::{Metrics, MetricsError, Sink};

const STEP: &str = "step";
const NON_FINITE: &str = "non_finite";

/// Appends one line a step: `{"step":3,"actor/lr":1e-6,…}`, keys ascending.
///
/// JSON has no NaN and no infinity: such a figure is written as `null`, and the row then also has
/// `"non_finite"`, the number of them.
///
/// A row is written in one piece and not buffered, so a killed process loses no finished row.
#[derive(Debug)]
pub struct JsonlSink {
    path: PathBuf,
    file: File,
}

impl JsonlSink {
    /// Starts a new file, in a folder that is made if need be; an old file of that name is emptied.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MetricsError> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(FileError::write(folder))?;
        }
        let file = File::create(path).map_err(FileError::write(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Goes on with a file from `step` on: rows of that step and later ones are removed first, since they
    /// come again, and so is a last line that was cut short. The resumed run's file equals
    /// that of an uninterrupted run. Without a file, a new one is started.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a line before the last is no row.
    pub fn resume(path: impl AsRef<Path>, step: u64) -> Result<Self, MetricsError> {
        let path = path.as_ref();
        if !path.exists() {
            return Self::create(path);
        }
        let text = fs::read(path).map_err(FileError::read(path))?;
        let kept: String = parse_lines(path, &text)?
            .into_iter()
            .filter(|(row, _)| row.step < step)
            .flat_map(|(_, line)| [line, "\n"])
            .collect();
        write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(FileError::write(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }
}

impl Sink for JsonlSink {
    fn log(&mut self, step: u64, metrics: &Metrics) -> Result<(), MetricsError> {
        let mut line = row(step, metrics)?.to_string();
        line.push('\n');
        Ok(append(&mut self.file, &self.path, line.as_bytes())?)
    }

    fn flush(&mut self) -> Result<(), MetricsError> {
        Ok(self.file.sync_data().map_err(FileError::write(&self.path))?)
    }
}

fn row(step: u64, metrics: &Metrics) -> Result<Value, MetricsError> {
    let mut row = Map::new();
    row.insert(STEP.into(), step.into());
    for (name, value) in metrics.iter() {
        if name == STEP || name == NON_FINITE {
            return Err(MetricsError::ReservedName { name: name.to_owned() });
        }
        // `Value::from` turns what JSON cannot say into null.
        row.insert(name.to_owned(), Value::from(value));
    }
    if metrics.non_finite() > 0 {
        row.insert(NON_FINITE.into(), metrics.non_finite().into());
    }
    Ok(Value::Object(row))
}

/// One line of a file of metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The step.
    pub step: u64,
    /// Its figures; what was not finite is NaN.
    pub metrics: Metrics,
}

/// Reads a file of [`JsonlSink`]. A last line that was cut short is left out.
///
/// # Errors
/// When the file cannot be read, or a line before the last is no row: names file and line.
pub fn read_jsonl(path: impl AsRef<Path>) -> Result<Vec<Row>, MetricsError> {
    let path = path.as_ref();
    let text = fs::read(path).map_err(FileError::read(path))?;
    Ok(parse_lines(path, &text)?.into_iter().map(|(row, _)| row).collect())
}

/// The points of one metric, for a chart: rows without it are left out, a NaN stays.
pub fn series(rows: &[Row], name: &str) -> Vec<(u64, f64)> {
    rows.iter().filter_map(|row| Some((row.step, row.metrics.get(name)?))).collect()
}

/// The rows, each with its line as it stands in the file.
fn parse_lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(Row, &'a str)>, MetricsError> {
    parse_rows(path, bytes, parse_row).map_err(|RowError { line, message }| MetricsError::Row {
        path: path.to_path_buf(),
        line,
        message,
    })
}

fn parse_row(bytes: &[u8]) -> Result<(Row, &str), String> {
    let line = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let row: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let step = row.get(STEP).and_then(Value::as_u64).ok_or("no whole number \"step\"")?;
    let mut metrics = Metrics::new();
    for (name, value) in row.iter().filter(|(name, _)| *name != STEP && *name != NON_FINITE) {
        let value = match value {
            Value::Null => f64::NAN,
            value => value.as_f64().ok_or_else(|| format!("{name:?} is no number"))?,
        };
        metrics.insert(name.as_str(), value);
    }
    Ok((Row { step, metrics }, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        values.iter().copied().collect()
    }

    #[test]
    fn what_is_not_finite_is_null_and_counted() {
        let row = row(3, &metrics(&[("a", 0.5), ("b", f64::NAN), ("c", f64::NEG_INFINITY)])).unwrap();
        assert_eq!(row.to_string(), r#"{"step":3,"a":0.5,"b":null,"c":null,"non_finite":2}"#);
        assert_eq!(self::row(0, &metrics(&[("a", 1.0)])).unwrap().to_string(), r#"{"step":0,"a":1.0}"#);
    }

    #[test]
    fn a_reserved_name_is_refused() {
        let message = row(1, &metrics(&[("step", 1.0)])).unwrap_err().to_string();
        assert!(message.contains("\"step\"") && message.contains("rename"), "{message}");
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named_and_the_file_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let text = "{\"step\":1}\n{\"step\":2,\n{\"step\":3}\n";
        fs::write(&path, text).unwrap();
        let message = JsonlSink::resume(&path, 3).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2: "), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_byte_order_mark_is_let_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "\u{feff}{\"step\":1}\n{\"step\":2}\n").unwrap();
        assert_eq!(read_jsonl(&path).unwrap().len(), 2);
        JsonlSink::resume(&path, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
    }

    #[test]
    fn resuming_without_a_file_starts_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        JsonlSink::resume(&path, 5).unwrap().log(5, &Metrics::new()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":5}\n");
    }

    #[test]
    fn series_keeps_gaps_and_skips_absence() {
        let rows = [
            Row { step: 1, metrics: metrics(&[("a", 1.0)]) },
            Row { step: 2, metrics: metrics(&[("b", 1.0)]) },
            Row { step: 3, metrics: metrics(&[("a", 3.0)]) },
        ];
        assert_eq!(series(&rows, "a"), [(1, 1.0), (3, 3.0)]);
    }
}
