//! BM25 over a corpus that stays on disk.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tantivy::directory::MmapDirectory;
use zerosearch_data::{Fingerprint, read_corpus};
use zerosearch_files::{prepare_folder, write_atomic};

use super::postings::{self, Postings, Shown, Stored, TextFields};
use crate::tape::file_error;
use crate::words::ANALYSER;
use crate::{Document, Query, SearchEngine, SearchError};

/// [`Bm25Index`](crate::Bm25Index) kept in a folder: built once for a corpus, and opened in milliseconds from then on. Documents
/// and postings are read from disk as they are asked for. Its answers are those of the index in memory, to the bit.
///
/// The folder belongs to one corpus and one version of the analyser that splits texts into words. A corpus that has changed, an
/// index that was left half-written or damaged, and one of another version are noticed and built anew. Several processes may
/// open one folder at once: the first builds, the others wait for it.
///
/// ```
/// use zerosearch_search::{Bm25Folder, Query, SearchEngine};
///
/// let folder = tempfile::tempdir()?;
/// let corpus = folder.path().join("corpus.jsonl");
/// std::fs::write(&corpus, "{\"id\": \"td\", \"contents\": \"Chad borders Niger.\"}\n{\"contents\": \"Niger borders Mali.\"}\n")?;
/// let index = Bm25Folder::open_or_build(&corpus, folder.path().join("index"))?;
/// let found = index.search(&Query { text: "Chad", top_k: 5, context: None })?;
/// assert_eq!((index.documents(), found[0].id.as_deref()), (2, Some("td")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Bm25Folder {
    path: PathBuf,
    postings: Postings,
    shown: Shown,
}

/// The file that says what a folder holds. Where it is, the index is whole.
const MANIFEST: &str = "index.json";
const LOCK: &str = "lock";
const PREFIX: &str = "index-";

/// A corpus that changed so shortly before may change again without another time of change.
const CLOCK_TICK: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Manifest {
    /// The version of the analyser.
    analyser: u32,
    corpus: Corpus,
    documents: usize,
    /// Where tantivy's files are, and their sizes in bytes.
    folder: String,
    files: BTreeMap<String, u64>,
}

/// Identity of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Corpus {
    bytes: u64,
    fingerprint: String,
    /// When it was last changed. A file of this size and time need not be read to know that it is the same.
    modified: Option<SystemTime>,
}

impl Bm25Folder {
    /// Opens the index of a corpus file (JSONL or Parquet, as for [`Bm25Index::read`](crate::Bm25Index::read)), after building
    /// it where the folder has none of this corpus.
    ///
    /// # Errors
    /// [`SearchError::Corpus`] names the file and the line, [`SearchError::File`] a folder that cannot be written or holds
    /// something else.
    pub fn open_or_build(corpus: impl AsRef<Path>, folder: impl AsRef<Path>) -> Result<Self, SearchError> {
        let (corpus, folder) = (corpus.as_ref(), folder.as_ref());
        let data =
            fs::metadata(corpus).map_err(|error| file_error(corpus, format!("cannot read the corpus: {error}")))?;
        // `prepare_folder` reports a folder that cannot be made or written, if it has to be written at all.
        let _ = fs::create_dir_all(folder);
        let _lock = lock(folder);
        if let Some(mut manifest) = manifest(folder)? {
            let reason = match manifest.differs_from(corpus, &data, folder)? {
                None => match Self::open(folder, &manifest) {
                    Ok(index) => return Ok(index),
                    Err(error) => format!("it is damaged ({error})"),
                },
                Some(reason) => reason,
            };
            tracing::warn!("{}: the index is built anew, because {reason}", folder.display());
        }
        prepare_folder(folder).map_err(|error| file_error(folder, error.to_string()))?;
        let manifest = build(corpus, folder)?;
        Self::open(folder, &manifest)
            .map_err(|error| file_error(folder, format!("the new index cannot be opened: {error}")))
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.postings.documents()
    }

    fn open(folder: &Path, manifest: &Manifest) -> tantivy::Result<Self> {
        let index = postings::open(MmapDirectory::open(folder.join(&manifest.folder))?)?;
        Ok(Self { path: folder.into(), postings: Postings::open(&index)?, shown: Shown::open(&index)? })
    }
}

impl SearchEngine for Bm25Folder {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let failed = |error: &dyn std::fmt::Display| SearchError::Index(format!("{}: {error}", self.path.display()));
        let found = self.postings.best(query.text, query.top_k).map_err(|error| failed(&error))?;
        let answer = |(number, score)| {
            let document = self.shown.document(number).map_err(|error| failed(&error))?;
            Ok(Document { score: Some(score), ..document })
        };
        found.into_iter().map(answer).collect()
    }
}

impl Manifest {
    /// Why the index cannot be used for a corpus, if it cannot.
    fn differs_from(&mut self, corpus: &Path, data: &Metadata, folder: &Path) -> Result<Option<String>, SearchError> {
        if self.analyser != ANALYSER {
            return Ok(Some(format!("it is of version {} of the analyser, not {ANALYSER}", self.analyser)));
        }
        let changed = || Ok(Some(format!("{} has changed", corpus.display())));
        if data.len() != self.corpus.bytes {
            return changed();
        }
        if self.corpus.modified.is_none() || data.modified().ok() != self.corpus.modified {
            let found = Corpus::of(corpus)?;
            if found.fingerprint != self.corpus.fingerprint {
                return changed();
            }
            self.corpus = found;
            // It need not be read again the next time. Where this cannot be written, it is.
            let _ = self.write(folder);
        }
        let whole = sizes(&folder.join(&self.folder)).is_ok_and(|sizes| sizes == self.files);
        Ok((!whole).then(|| "files of it are missing or cut short".into()))
    }

    fn write(&self, folder: &Path) -> Result<(), SearchError> {
        let path = folder.join(MANIFEST);
        let failed = |error: &dyn std::fmt::Display| file_error(&path, format!("cannot write it: {error}"));
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| failed(&error))
    }
}

impl Corpus {
    fn of(path: &Path) -> Result<Self, SearchError> {
        let read = |error| file_error(path, format!("cannot read the corpus: {error}"));
        let mut file = File::open(path).map_err(read)?;
        let modified = file.metadata().and_then(|data| data.modified()).ok();
        let settled = modified.filter(|time| time.elapsed().is_ok_and(|age| age > CLOCK_TICK));
        let (mut hash, mut bytes, mut block) = (Fingerprint::default(), 0, vec![0; 1 << 16]);
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(Self { bytes, fingerprint: hash.to_string(), modified: settled }),
                Ok(length) => {
                    hash.bytes(&block[..length]);
                    bytes += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(read(error)),
            }
        }
    }
}

/// The lock of a folder, held until it is dropped. There is none where no index can be built: in a folder that cannot be written, or
/// on a file system without locks.
fn lock(folder: &Path) -> Option<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK)).ok()?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        tracing::info!("{}: another process works on the index; waiting for it", folder.display());
    }
    file.lock().ok().map(|()| file)
}

/// A folder's manifest; `None` where there is nothing or where it is empty.
fn manifest(folder: &Path) -> Result<Option<Manifest>, SearchError> {
    let path = folder.join(MANIFEST);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            file_error(&path, format!("not the description of an index: {error}; delete it, or name another folder"))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(&path, format!("cannot be read: {error}"))),
    }
}

/// Builds the index of a corpus in a folder; the file that marks it complete is written last.
fn build(corpus: &Path, folder: &Path) -> Result<Manifest, SearchError> {
    let before = Corpus::of(corpus)?;
    let documents: Vec<Document> = read_corpus(corpus)?.into_iter().map(Document::from).collect();
    let failed =
        |path: &Path, error: &dyn std::fmt::Display| file_error(path, format!("cannot build the index: {error}"));
    let place = folder.join(MANIFEST);
    match fs::remove_file(&place) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&place, &error)),
        _ => {}
    }
    remove_indices(folder);
    let name = format!("{PREFIX}{}", before.fingerprint);
    let files = folder.join(&name);
    tracing::info!("{}: indexing the {} passages of {}", folder.display(), documents.len(), corpus.display());
    let written = fs::create_dir(&files).map_err(tantivy::TantivyError::from).and_then(|()| {
        TextFields::new(Stored::Documents).index(MmapDirectory::open(&files)?, &documents)?;
        Ok(sizes(&files)?)
    });
    let sizes = written.map_err(|error| {
        // Nothing half-written is left to fill a disk that is full.
        remove_indices(folder);
        failed(&files, &error)
    })?;
    let after = Corpus::of(corpus)?;
    if after.fingerprint != before.fingerprint {
        return Err(file_error(corpus, "it was changed while it was indexed: try again when it is complete".into()));
    }
    let manifest =
        Manifest { analyser: ANALYSER, corpus: after, documents: documents.len(), folder: name, files: sizes };
    manifest.write(folder)?;
    Ok(manifest)
}

/// Deletes what earlier builds left. One that cannot be deleted does no harm.
fn remove_indices(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// The files of a folder. tantivy leaves locks behind, which are empty and do not count.
fn sizes(folder: &Path) -> std::io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".lock") {
            sizes.insert(name, entry.metadata()?.len());
        }
    }
    Ok(sizes)
}
