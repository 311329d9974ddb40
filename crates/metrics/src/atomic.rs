//! A file is either the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::MetricsError;

/// Writes a file under a temporary name beside it, syncs it, and renames it into place.
///
/// Whoever opens `path`, also after a crash in the middle, sees the old content or the new one.
/// The folder must exist. What a killed process left under the temporary name is replaced by the next write.
///
/// # Errors
/// Names the path and what to check. The old file is then untouched and no temporary one is left.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), MetricsError> {
    let temporary = temporary_name(path);
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // It may not exist, and the first error is the one worth reporting.
        let _ = fs::remove_file(&temporary);
        return Err(MetricsError::Write { path: path.to_path_buf(), source });
    }
    sync_folder(path);
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// In the same folder, because a rename is atomic within one file system only.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Makes the rename itself survive a power failure. Not every file system can: the content is safe all the same.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_old_content_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        write_atomic(&path, b"old and longer").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        fs::write(temporary_name(&path), "half of a fil").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_path_and_the_remedy_and_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy");
        // A folder with content cannot be replaced by a file, for any user.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        let message = write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(
            message.contains("policy") && message.contains("disk is not full") && message.contains("read-only"),
            "{message}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(path.join("inside").exists());

        let missing = dir.path().join("absent").join("file");
        assert!(write_atomic(&missing, b"x").unwrap_err().to_string().contains("the folder exists"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let message = write_synced(Path::new("/dev/full"), b"x")
            .map_err(MetricsError::write(Path::new("/dev/full")))
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("cannot write /dev/full") && message.contains("disk is not full"), "{message}");
    }
}
