//! Rows that are appended whole or not at all.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::FileError;

/// Appends `bytes` to a file that is open for writing. The part that a full disk lets through is cut off again, so that
/// the next row does not follow half of this one. `path` is for messages.
///
/// # Errors
/// Names the path and what to check. The file then ends where it did.
pub fn append(file: &mut File, path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    let end = file.seek(SeekFrom::End(0)).map_err(FileError::write(&path))?;
    file.write_all(bytes).map_err(|error| {
        // If not even that can be done, the first error still explains more.
        let _ = file.set_len(end);
        FileError::write(path)(error)
    })
}
