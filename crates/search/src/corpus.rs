//! Reading a corpus: one document a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::{Document, SearchError};

/// A line of a corpus file. Some corpora number their passages, others name them.
#[derive(Deserialize)]
struct Row {
    id: Option<Id>,
    title: Option<String>,
    contents: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Name(String),
    Number(i64),
}

/// Reads `{"id", "title", "contents"}` rows; blank lines are skipped.
pub(crate) fn read_documents(path: &Path) -> Result<Vec<Document>, SearchError> {
    let file_error = |place: String, message: String| SearchError::File { path: place, message };
    let file = File::open(path).map_err(|error| {
        file_error(
            path.display().to_string(),
            format!("cannot open the corpus ({error}): give a JSONL file with rows of `id`, `title`, `contents`"),
        )
    })?;
    let mut documents = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{}:{}", path.display(), number + 1);
        let line = line.map_err(|error| file_error(place(), format!("cannot read the line: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_str(&line).map_err(|error| {
            file_error(place(), format!("not a corpus row: {error}; expected `{{\"id\": \"…\", \"title\": \"…\", \"contents\": \"…\"}}`, title optional"))
        })?;
        let id = row.id.map(|id| match id {
            Id::Name(name) => name,
            Id::Number(number) => number.to_string(),
        });
        documents.push(Document { id, title: row.title, contents: row.contents, score: None });
    }
    if documents.is_empty() {
        return Err(file_error(
            path.display().to_string(),
            "the corpus has no documents: give at least one row with `contents`".into(),
        ));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &str) -> Result<Vec<Document>, SearchError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        read_documents(file.path())
    }

    #[test]
    fn rows_with_and_without_titles_and_numbers() {
        let documents =
            read("{\"id\": \"a\", \"title\": \"T\", \"contents\": \"one\"}\n\n{\"id\": 7, \"contents\": \"two\", \"kind\": \"x\"}\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].title.as_deref(), Some("T"));
        assert_eq!((documents[1].id.as_deref(), documents[1].contents.as_str()), (Some("7"), "two"));
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = read("{\"contents\": \"one\"}\n{\"contents\": ").unwrap_err().to_string();
        assert!(error.contains(":2: not a corpus row"), "{error}");
        let error = read("{\"text\": \"one\"}\n").unwrap_err().to_string();
        assert!(error.contains(":1: ") && error.contains("missing field `contents`"), "{error}");
        let error = read("\n").unwrap_err().to_string();
        assert!(error.contains("no documents"), "{error}");
        let error = read_documents(Path::new("/nowhere/corpus.jsonl")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/corpus.jsonl: cannot open the corpus"), "{error}");
    }
}
