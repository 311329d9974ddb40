//! Places for results, looked at before the work whose results they will hold.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::{FileError, StagedFile};

/// Sees that a file can be written: makes the folders of its name, and tries to write there. An old file of that name stays
/// as it is until the new one is complete.
///
/// `inputs` are files that the work reads, none of which the result may replace.
///
/// # Errors
/// When the name is a folder's or an input's, a file stands where a folder should be, or the place cannot be written.
pub fn prepare_file(path: impl AsRef<Path>, inputs: &[&Path]) -> Result<(), FileError> {
    let path = path.as_ref();
    let refused = |kind, message: String| Err(FileError::write(path)(Error::new(kind, message)));
    let name = path.to_string_lossy();
    if path.file_name().is_none() || path.is_dir() || name.ends_with(std::path::is_separator) || name.ends_with("/.") {
        return refused(ErrorKind::IsADirectory, "this is the name of a folder, expected that of a file".into());
    }
    let place = fs::canonicalize(path).ok();
    if place.is_some() && inputs.iter().any(|input| fs::canonicalize(input).ok() == place) {
        return refused(ErrorKind::AlreadyExists, "this file is read, and the result would replace it".into());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(FileError::write(folder))?;
    }
    // Dropped, it leaves nothing behind.
    StagedFile::create(path).map(drop)
}

/// Sees that files can be written into a folder, which is made if need be.
///
/// # Errors
/// When a file stands in its place, or it cannot be made or written into.
pub fn prepare_folder(path: impl AsRef<Path>) -> Result<(), FileError> {
    let path = path.as_ref();
    if path.as_os_str().is_empty() {
        return Err(FileError::write(path)(Error::new(ErrorKind::InvalidInput, "the name is empty")));
    }
    fs::create_dir_all(path).map_err(FileError::write(path))?;
    StagedFile::create(path.join(".writable")).map(drop)
}

/// Whether a path leads to a device, a pipe or a terminal, such as `/dev/stdout`: written to as it stands, it has no content
/// that a new one could replace, and no files beside it.
pub fn is_stream(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let special = fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir());
    // `/dev/stdout` leads through `/proc` to whatever the output was sent to, a file it may be.
    special || fs::read_link(path).is_ok_and(|target: PathBuf| target.starts_with("/proc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_atomic;

    #[test]
    fn missing_folders_are_made_and_an_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b/c.json", "ä/ö ü/名.json", "qwen2.5-3b", "v1.2/scores.seed.0.json", "./x/./y.json"] {
            let path = dir.path().join(name);
            prepare_file(&path, &[]).unwrap();
            assert!(
                !path.exists()
                    && fs::read_dir(path.parent().unwrap()).unwrap().all(|entry| entry.unwrap().path().is_dir())
            );
            write_atomic(&path, b"old").unwrap();
            prepare_file(&path, &[]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        prepare_folder(dir.path().join("runs/2026-11-28")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("runs/2026-11-28")).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_hold_a_result_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::write(at("questions.jsonl"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        for (name, expected) in [
            ("folder", "name of a folder"),
            ("new/", "name of a folder"),
            ("new/.", "name of a folder"),
            ("..", "name of a folder"),
            ("file/scores.json", "file"),
            ("folder/../questions.jsonl", "this file is read"),
        ] {
            let message = prepare_file(at(name), &[&at("questions.jsonl")]).unwrap_err().to_string();
            assert!(message.starts_with("cannot write ") && message.contains(expected), "{name}: {message}");
        }
        assert!(prepare_file("", &[]).is_err() && prepare_folder("").is_err());
        assert!(prepare_folder(at("file")).unwrap_err().to_string().contains("file"));
        assert_eq!(fs::read(at("questions.jsonl")).unwrap(), b"x");
        assert!(!at("new").exists());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_device_is_written_to_and_not_replaced() {
        assert!(is_stream("/dev/null") && is_stream("/dev/stdout") && !is_stream("/dev/shm/new"));
        for path in ["/dev/null", "/dev/full"] {
            prepare_file(path, &[]).unwrap();
            let written = write_atomic(path, b"result");
            assert_eq!(written.is_err(), path == "/dev/full");
            assert!(is_stream(path) && !Path::new(&format!("{path}.tmp")).exists());
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_stream(dir.path()) && !is_stream(dir.path().join("new")));
    }
}
