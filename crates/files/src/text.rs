//! Text files in the encodings that editors write.

use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::FileError;

/// U+FEFF in UTF-8, which some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file of UTF-8, without the byte-order mark if it begins with one.
///
/// # Errors
/// Names the file when it cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, FileError> {
    let path = path.as_ref();
    std::fs::read(path).and_then(decode_text).map_err(FileError::read(path))
}

/// The text of a file's bytes, without the byte-order mark if they begin with one.
///
/// # Errors
/// When they are not UTF-8.
pub fn decode_text(bytes: Vec<u8>) -> Result<String, Error> {
    if is_utf_16(&bytes) {
        let message = "it is UTF-16, expected UTF-8; convert it (`iconv -f UTF-16 -t UTF-8`)";
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    let mark = bytes.len() - without_mark(&bytes).len();
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8; convert it (`iconv -t UTF-8`)"))?;
    text.drain(..mark);
    Ok(text)
}

/// The bytes without the byte-order mark, if they begin with one.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Whether a text's bytes are UTF-16: by its byte-order mark, or by a zero in the first character.
pub fn is_utf_16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..])
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

    #[test]
    fn utf_16_is_named() {
        for bytes in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{\0}", b"{\0}\0", b"\0{\0}"] {
            let message = decode_text(bytes.to_vec()).unwrap_err().to_string();
            assert!(message.contains("UTF-16") && message.contains("iconv -f UTF-16"), "{message}");
        }
    }
}
