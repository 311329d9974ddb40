//! Text files of other people's editors.

use std::path::Path;

use crate::FileError;

/// U+FEFF, which some editors put in front of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a file of UTF-8, without the byte-order mark if it begins with one.
///
/// # Errors
/// Names the file when it cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, FileError> {
    let path = path.as_ref();
    let mut text = std::fs::read_to_string(path).map_err(FileError::read(path))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_order_mark_is_taken_off_and_only_in_front() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        for (bytes, expected) in [
            ("", ""),
            ("\u{feff}", ""),
            ("plain\r\n", "plain\r\n"),
            ("\u{feff}marked", "marked"),
            ("\u{feff}\u{feff}twice", "\u{feff}twice"),
            ("inside\u{feff}", "inside\u{feff}"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read_text(&path).unwrap(), expected);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin-1");
        assert!(read_text(&path).unwrap_err().to_string().contains("latin-1: "));
        std::fs::write(&path, b"Z\xfcrich").unwrap();
        let message = read_text(&path).unwrap_err().to_string();
        assert!(message.contains("latin-1: ") && message.contains("UTF-8"), "{message}");
    }
}
