//! Asking an engine only once.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tape::{self, Answers, Key};
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine that remembers its answers, in memory and, if wanted, in a file.
///
/// The memory is keyed by the words and `top_k`: it is for real engines, whose answer depends on
/// nothing else. Failures are not remembered. The file is also a recording for [`Replay`](crate::Replay).
///
/// ```
/// use zerosearch_search::{Bm25Index, Cached, Counted, Document, Query, SearchEngine};
///
/// let engine = Counted::new(Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?);
/// let calls = engine.calls();
/// let engine = Cached::new(engine);
/// let query = Query { text: "fox", top_k: 1, context: None };
/// assert_eq!(engine.search(&query)?, engine.search(&query)?);
/// assert_eq!(calls.total(), 1);
/// # Ok::<(), zerosearch_search::SearchError>(())
/// ```
#[derive(Debug)]
pub struct Cached<E> {
    engine: E,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    answers: Answers,
    file: Option<(PathBuf, File)>,
}

impl<E> Cached<E> {
    /// Remembers in memory.
    pub fn new(engine: E) -> Self {
        Self { engine, memory: Mutex::new(Memory { answers: Answers::new(), file: None }) }
    }

    /// Remembers in a JSONL file too, and begins with what the file holds. Two processes may share one; each knows what the other
    /// wrote before it began.
    ///
    /// # Errors
    /// [`SearchError::File`] when the file cannot be opened or a line of it is not an answer. An
    /// incomplete last line, as a killed process leaves it, is cut off, and a damaged one is left out, both with a warning.
    pub fn with_file(engine: E, path: impl AsRef<Path>) -> Result<Self, SearchError> {
        let path = path.as_ref();
        let (file, answers) = tape::open(path)?;
        Ok(Self { engine, memory: Mutex::new(Memory { answers, file: Some((path.to_path_buf(), file)) }) })
    }

    /// The memory is whole even if a thread panicked while it held it: every entry is put in at once.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn remember(&mut self, key: Key, documents: &[Document]) -> Result<(), SearchError> {
        if self.answers.contains_key(&key) {
            return Ok(());
        }
        if let Some((path, file)) = &mut self.file {
            tape::append(file, path, &key, documents)?;
        }
        self.answers.insert(key, documents.to_vec());
        Ok(())
    }
}

fn key(query: &Query<'_>) -> Key {
    (query.text.to_string(), query.top_k)
}

impl<E: SearchEngine> SearchEngine for Cached<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let key = key(query);
        if let Some(documents) = self.memory().answers.get(&key) {
            return Ok(documents.clone());
        }
        // The memory is not locked while the engine works, so that others can be answered.
        let documents = self.engine.search(query)?;
        self.memory().remember(key, &documents)?;
        Ok(documents)
    }

    /// Asks the engine, in one batch, for what is not remembered, each question once.
    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let unknown: Vec<Query<'_>> = {
            let memory = self.memory();
            let mut seen = BTreeSet::new();
            queries
                .iter()
                .filter(|query| !memory.answers.contains_key(&key(query)) && seen.insert(key(query)))
                .copied()
                .collect()
        };
        let answers = if unknown.is_empty() { Vec::new() } else { self.engine.search_batch(&unknown) };
        let mut failures = Vec::new();
        for (query, answer) in unknown.iter().zip(answers) {
            let answer = answer.and_then(|documents| self.memory().remember(key(query), &documents));
            if let Err(error) = answer {
                failures.push((key(query), Some(error)));
            }
        }
        queries
            .iter()
            .map(|query| {
                let failure = failures.iter_mut().find(|(failed, _)| *failed == key(query));
                match failure.and_then(|(_, error)| error.take()) {
                    Some(error) => Err(error),
                    // Known by now; asked again only when an equal question just failed.
                    None => self.search(query),
                }
            })
            .collect()
    }

    fn concurrency(&self) -> usize {
        self.engine.concurrency()
    }

    fn counters(&self) -> Vec<(String, f64)> {
        self.engine.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallCount, Counted, Replay};

    /// Answers with the query itself, and fails on `bad`.
    #[derive(Debug)]
    struct Echo;

    impl SearchEngine for Echo {
        fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
            if query.text == "bad" {
                return Err(SearchError::Index("bad".into()));
            }
            Ok(vec![Document {
                contents: format!("{} {}", query.text, query.top_k),
                score: Some(0.1),
                ..Default::default()
            }])
        }
    }

    fn query(text: &str, top_k: usize) -> Query<'_> {
        Query { text, top_k, context: None }
    }

    fn counted() -> (Counted<Echo>, CallCount) {
        let engine = Counted::new(Echo);
        let calls = engine.calls();
        (engine, calls)
    }

    #[test]
    fn words_and_top_k_are_the_key() {
        let (engine, calls) = counted();
        let cached = Cached::new(engine);
        for _ in 0..3 {
            assert_eq!(cached.search(&query("a", 1)).unwrap()[0].contents, "a 1");
            assert_eq!(cached.search(&query("a", 2)).unwrap()[0].contents, "a 2");
        }
        assert_eq!(calls.total(), 2);
    }

    #[test]
    fn failures_are_asked_again() {
        let (engine, calls) = counted();
        let cached = Cached::new(engine);
        assert!(cached.search(&query("bad", 1)).is_err());
        assert!(cached.search(&query("bad", 1)).is_err());
        assert_eq!(calls.total(), 2);
    }

    #[test]
    fn a_batch_asks_for_each_unknown_question_once() {
        let (engine, calls) = counted();
        let cached = Cached::new(engine);
        cached.search(&query("a", 1)).unwrap();
        let answers = cached.search_batch(&["a", "b", "bad", "b", "c"].map(|text| query(text, 1)));
        let answers: Vec<_> =
            answers.into_iter().map(|answer| answer.ok().map(|documents| documents[0].contents.clone())).collect();
        assert_eq!(
            answers,
            [Some("a 1"), Some("b 1"), None, Some("b 1"), Some("c 1")].map(|answer| answer.map(String::from))
        );
        assert_eq!(calls.total(), 1 + 3);
    }

    #[test]
    fn a_file_survives_and_replays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        let first = Cached::with_file(Echo, &path).unwrap().search(&query("a\n\"b\"", 1)).unwrap();

        let (engine, calls) = counted();
        let again = Cached::with_file(engine, &path).unwrap();
        assert_eq!(again.search(&query("a\n\"b\"", 1)).unwrap(), first);
        assert_eq!(calls.total(), 0);
        again.search(&query("c", 1)).unwrap();

        let replay = Replay::read(&path).unwrap();
        assert_eq!(replay.search(&query("a\n\"b\"", 1)).unwrap(), first);
        assert_eq!(replay.search(&query("c", 1)).unwrap()[0].contents, "c 1");
        let error = replay.search(&query("c", 2)).unwrap_err().to_string();
        assert!(error.contains("answers.jsonl") && error.contains("\"c\" with top_k 2"), "{error}");
    }

    #[test]
    fn half_a_line_is_cut_off_and_a_broken_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        Cached::with_file(Echo, &path).unwrap().search(&query("a", 1)).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        // Killed between two characters, and within one.
        for cut in ["{\"query\": \"b".as_bytes(), &"{\"query\": \"é".as_bytes()[..11]] {
            std::fs::write(&path, [whole.as_bytes(), cut].concat()).unwrap();
            assert!(Replay::read(&path).unwrap().search(&query("a", 1)).is_ok());
            let cached = Cached::with_file(Echo, &path).unwrap();
            cached.search(&query("c", 1)).unwrap();
            assert!(Replay::read(&path).unwrap().search(&query("c", 1)).is_ok());
        }

        // An editor's mark is let pass, and the file stays whole.
        std::fs::write(&path, format!("\u{feff}{whole}{{\"query\": \"b")).unwrap();
        Cached::with_file(Echo, &path).unwrap().search(&query("c", 1)).unwrap();
        assert!(["a", "c"].into_iter().all(|text| Replay::read(&path).unwrap().search(&query(text, 1)).is_ok()));

        std::fs::write(&path, format!("{whole}{{\"query\": 3}}\n")).unwrap();
        let error = Cached::with_file(Echo, &path).unwrap_err().to_string();
        assert!(error.contains("answers.jsonl:2: not a recorded answer"), "{error}");
        let error = Replay::read(directory.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: cannot read the recording"), "{error}");
    }

    #[test]
    fn a_file_cut_anywhere_is_read_up_to_the_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        let texts = ["a", "é \"b\"\n\u{1}🌍", "c"];
        let cached = Cached::with_file(Echo, &path).unwrap();
        texts.iter().for_each(|text| drop(cached.search(&query(text, 1)).unwrap()));
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            // A line is whole also where only its line feed is missing.
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let replay = Replay::read(&path).unwrap();
            let found = texts.iter().filter(|text| replay.search(&query(text, 1)).is_ok()).count();
            assert_eq!(found, kept, "cut at {cut}");
            Cached::with_file(Echo, &path).unwrap().search(&query("new", 1)).unwrap();
            let lines = std::fs::read_to_string(&path).unwrap();
            assert_eq!((lines.lines().count(), lines.ends_with('\n')), (kept + 1, true), "cut at {cut}");
            assert!(Replay::read(&path).unwrap().search(&query("new", 1)).is_ok());
        }
    }

    #[test]
    fn damage_within_a_file_costs_its_line_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        let row =
            |text: &str| format!("{{\"query\": \"{text}\", \"top_k\": 1, \"documents\": [{{\"contents\": \"x\"}}]}}\n");
        // Half a line with another behind it, a hole after a crash, bytes that are no text, half an emoji of JavaScript.
        let content =
            ["\u{feff}", &row("a"), "{\"query\": \"b", &row("c"), "\0\0\0\n", "\r\n", &row("d \\ud83c")].concat();
        let content = [content.as_bytes(), &b"\xff\xfe\n\0\0"[..]].concat();
        std::fs::write(&path, content).unwrap();
        let cached = Cached::with_file(Echo, &path).unwrap();
        for (text, known) in [("a", true), ("b", false), ("c", false), ("d \u{fffd}", true)] {
            let found = cached.search(&query(text, 1)).unwrap();
            assert_eq!(found[0].contents == "x", known, "{text:?}");
        }
        assert!(Replay::read(&path).unwrap().search(&query("b", 1)).is_ok());

        for (name, foreign) in
            [("settings.json", "{\"seed\": 3}"), ("notes.txt", "my notes\nof today\n"), ("words.txt", "notes")]
        {
            let path = directory.path().join(name);
            std::fs::write(&path, foreign).unwrap();
            let error = Cached::with_file(Echo, &path).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}:1: not a recorded answer")), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
    }

    #[test]
    fn two_caches_on_one_file_leave_both_their_lines_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        let caches = [(); 2].map(|()| Cached::with_file(Echo, &path).unwrap());
        let texts = ["a", "a longer one", "b", "c"];
        texts.iter().zip(caches.iter().cycle()).for_each(|(text, cache)| drop(cache.search(&query(text, 1)).unwrap()));
        caches.iter().for_each(|cache| drop(cache.search(&query("both", 1)).unwrap()));
        let replay = Replay::read(&path).unwrap();
        assert!(texts.iter().chain(&["both"]).all(|text| replay.search(&query(text, 1)).is_ok()));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), texts.len() + 2);
    }
}
