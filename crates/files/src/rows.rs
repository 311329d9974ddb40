//! Files of one row a line, which may have been cut short.

use std::path::Path;

/// A line that is no row.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct RowError {
    /// The line, from 1.
    pub line: usize,
    /// The fault.
    pub message: String,
}

/// The rows of a file's content, one a line, blank lines left out. `path` is for messages.
///
/// A last line without a line break that is no row was cut short, when its writer was killed or the machine lost power: it is
/// left out with a warning. Bytes and not text, since the cut may go through a character.
///
/// # Errors
/// When any other line is no row.
pub fn parse_rows<'b, T, E: std::fmt::Display>(
    path: impl AsRef<Path>,
    bytes: &'b [u8],
    mut parse: impl FnMut(&'b [u8]) -> Result<T, E>,
) -> Result<Vec<T>, RowError> {
    let bytes = crate::without_mark(bytes);
    let mut rows = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(line.trim_ascii()) {
            Ok(row) => rows.push(row),
            Err(_) if !line.ends_with(b"\n") => {
                let path = path.as_ref().display();
                tracing::warn!("{path}: the last line, number {}, was cut short and is left out", index + 1);
            }
            Err(error) => return Err(RowError { line: index + 1, message: error.to_string() }),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8]) -> Result<Vec<String>, RowError> {
        let parse = |line: &[u8]| match std::str::from_utf8(line) {
            Ok(text) if text.starts_with('<') && text.ends_with('>') => Ok(text.to_string()),
            _ => Err("expected <…>"),
        };
        parse_rows("rows", bytes, parse)
    }

    #[test]
    fn a_file_cut_anywhere_is_read_up_to_the_cut() {
        let text = "<one>\n<zwö>\r\n\n<三>\n";
        let end_of = |row: &str| text.find(row).unwrap() + row.len();
        let ends = ["<one>", "<zwö>", "<三>"].map(end_of);
        let breaks = ["<one>\n", "<zwö>\r\n", "<三>\n"].map(end_of);
        let count = |ends: [usize; 3], cut: usize| ends.iter().filter(|end| **end <= cut).count();
        for cut in 0..=text.len() {
            let whole = &text.as_bytes()[..cut];
            assert_eq!(rows(whole).unwrap().len(), count(ends, cut), "{cut}");
            // A power failure may leave zeros in the place of what was not written yet.
            assert_eq!(rows(&[whole, &[0; 20]].concat()).unwrap().len(), count(breaks, cut), "{cut}");
        }
        assert!(rows(&[]).unwrap().is_empty());
        assert_eq!(rows("\u{feff}<one>\n".as_bytes()).unwrap(), ["<one>"]);
    }

    #[test]
    fn a_broken_line_before_the_last_is_named() {
        let error = rows(b"<one>\n<tw\n<three>\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: expected <…>");
        assert_eq!(rows(b"<one>\n<tw\n").unwrap_err().line, 2);
    }
}
