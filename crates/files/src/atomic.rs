//! A file is either the old one or the new one, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{FileError, is_stream};

/// Writes a file under a temporary name beside it, syncs it, and renames it into place.
///
/// Whoever opens `path`, also after a crash in the middle, sees the old content or the new one.
/// The folder must exist: [`prepare_file`](crate::prepare_file) makes it. What a killed process left under the temporary name is replaced by the next write.
///
/// # Errors
/// Names the path and what to check. The old file is then untouched and no temporary one is left.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    let path = path.as_ref();
    let mut staged = StagedFile::create(path)?;
    staged.write_all(bytes).map_err(FileError::write(path))?;
    staged.publish()
}

/// A file under a temporary name, for content that is written piece by piece or published together with other files.
///
/// Dropped without [`publish`](Self::publish), it deletes the temporary file and leaves the old one as it was. A device or pipe
/// ([`is_stream`](crate::is_stream)) is written to directly.
///
/// ```
/// use std::io::Write;
/// use zerosearch_files::{StagedFile, read_text};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("rows.jsonl");
/// let mut staged = StagedFile::create(&path)?;
/// writeln!(staged, "{{\"row\": 1}}")?;
/// assert!(!path.exists());
/// staged.publish()?;
/// assert_eq!(read_text(&path)?, "{\"row\": 1}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    /// Absent once it is published, and where there is none.
    temporary: Option<PathBuf>,
    path: PathBuf,
}

impl StagedFile {
    /// The ending of temporary names.
    pub const SUFFIX: &str = ".tmp";

    /// Begins a file that will have the name `path`.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let temporary = (!is_stream(path)).then(|| temporary_name(path));
        let file = match &temporary {
            Some(temporary) => File::create(temporary),
            None => OpenOptions::new().write(true).open(path),
        };
        Ok(Self { file: file.map_err(FileError::write(path))?, temporary, path: path.to_path_buf() })
    }

    /// Makes the content survive a power failure. [`publish`](Self::publish) does this too; it is of use where several
    /// files must be complete before the first one is published.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn sync(&self) -> Result<(), FileError> {
        if self.temporary.is_none() {
            // A stream keeps nothing that could be synced.
            return Ok(());
        }
        self.file.sync_all().map_err(FileError::write(&self.path))
    }

    /// Syncs the file and gives it its name, in place of what had it before.
    ///
    /// # Errors
    /// When the content cannot be synced, or the name belongs to a folder.
    pub fn publish(mut self) -> Result<(), FileError> {
        self.sync()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(FileError::write(&self.path))?;
            self.temporary = None;
            sync_folder(&self.path);
        }
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // A half-written file is of no use to anybody, and there is an earlier error to report.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// In the same folder, because a rename is atomic within one file system only.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(StagedFile::SUFFIX);
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
        let path = PathBuf::from("/dev/full");
        let dir = tempfile::tempdir().unwrap();
        let temporary = dir.path().join("full.tmp");
        std::os::unix::fs::symlink(&path, &temporary).unwrap();
        let message = write_atomic(dir.path().join("full"), b"x").unwrap_err().to_string();
        assert!(message.starts_with("cannot write ") && message.contains("disk is not full"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
