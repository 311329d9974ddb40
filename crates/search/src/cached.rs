//! A cache of an engine's answers, kept in a file.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerosearch_generate::{Account, Usage};

use crate::engine::forward_to_the_engine_inside;
use crate::tape::{self, Answers, Key, Keys};
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine that remembers its answers, in memory and, if wanted, in a file.
///
/// The memory of a real engine is keyed by the words and `top_k`, since its answer depends on nothing else; that of a
/// [simulated](Self::simulated) one by the template, the question and its answers, the quality and the seed as well. Failures are
/// not remembered. The file is also a recording for [`Replay`](crate::Replay).
///
/// A disk that is full costs no search: what could not be written is kept, tried again with the next answer and when the cache
/// is dropped, and counted ([`unwritten`](Self::unwritten)); one warning is logged.
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
    keys: Keys,
    memory: Mutex<Memory>,
    account: Account,
}

#[derive(Debug, Default)]
struct Memory {
    answers: Answers,
    file: Option<(PathBuf, File)>,
    /// Keys of answers that are not in the file yet, in the order in which they came.
    unwritten: Vec<Key>,
    has_warned: bool,
}

impl<E> Cached<E> {
    /// Remembers in memory.
    pub fn new(engine: E) -> Self {
        Self { engine, keys: Keys::default(), memory: Mutex::default(), account: Account::default() }
    }

    /// Remembers in a JSONL file too, and begins with what the file holds. Two processes may share one; each knows what the other
    /// wrote before it began.
    ///
    /// # Errors
    /// [`SearchError::File`] when the file cannot be opened or a line of it is not an answer. An
    /// incomplete last line, as a killed process leaves it, is cut off, and a damaged one is left out, both with a warning.
    pub fn with_file(engine: E, path: impl AsRef<Path>) -> Result<Self, SearchError> {
        Self::with_keys(engine, path.as_ref(), Keys::default())
    }

    /// Remembers the answers of a simulated engine in a JSONL file. `template` is all that decides its answers beside a query:
    /// the text of its prompt, and whatever else tells one simulator from another. A query without a context is
    /// [`SearchError::NoContext`].
    ///
    /// ```
    /// use zerosearch_search::{Bm25Index, Cached, Document, Quality, Query, Replay, SearchEngine, SimulationContext};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("simulator.jsonl");
    /// // Here BM25 plays the simulator.
    /// let engine = Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?;
    /// let context = |seed| SimulationContext { question: "?", answers: &[], quality: Quality::Useful, seed };
    /// let query = |seed| Query { text: "fox", top_k: 1, context: Some(context(seed)) };
    /// let first = Cached::simulated(engine, &path, "prompt")?.search(&query(7))?;
    ///
    /// let replay = Replay::simulated(&path, "prompt")?;
    /// assert_eq!(replay.search(&query(7))?, first);
    /// assert!(replay.search(&query(8)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`with_file`](Self::with_file), and where all answers of the file are of other engines or templates.
    pub fn simulated(engine: E, path: impl AsRef<Path>, template: &str) -> Result<Self, SearchError> {
        Self::with_keys(engine, path.as_ref(), Keys::simulated(template))
    }

    /// Has what is answered from memory counted in this account as [`Usage::cache_hits`].
    #[must_use]
    pub fn with_account(self, account: Account) -> Self {
        Self { account, ..self }
    }

    /// Answers that could not be written to the file yet.
    pub fn unwritten(&self) -> usize {
        self.memory().unwritten.len()
    }

    fn with_keys(engine: E, path: &Path, keys: Keys) -> Result<Self, SearchError> {
        let (file, answers) = tape::open(path)?;
        keys.check(path, &answers)?;
        let file = Some((path.to_path_buf(), file));
        let memory = Memory { answers, file, unwritten: Vec::new(), has_warned: false };
        Ok(Self { engine, keys, memory: Mutex::new(memory), account: Account::default() })
    }

    /// The memory is whole even if a thread panicked while it held it: every entry is put in at once.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// The answer that counts: of two that were asked for at once, the one that came first.
    fn remember(&mut self, key: Key, documents: Vec<Document>) -> Vec<Document> {
        if let Some(known) = self.answers.get(&key) {
            return known.clone();
        }
        self.answers.insert(key.clone(), documents.clone());
        if self.file.is_some() {
            self.unwritten.push(key);
            self.write();
        }
        documents
    }

    /// Appends what is not in the file yet, up to the first that does not fit.
    fn write(&mut self) {
        let Self { answers, file: Some((path, file)), unwritten, has_warned } = self else { return };
        let mut written = 0;
        for key in &*unwritten {
            let Some(documents) = answers.get(key) else { continue };
            if let Err(error) = tape::append(file, path, key, documents) {
                if !std::mem::replace(has_warned, true) {
                    tracing::warn!("{error}; searches go on, and what is not written is tried again");
                }
                break;
            }
            written += 1;
        }
        unwritten.drain(..written);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.write();
        if let (Some((path, _)), 1..) = (&self.file, self.unwritten.len()) {
            tracing::warn!("{}: {} answers could not be written and are lost", path.display(), self.unwritten.len());
        }
    }
}

impl<E: SearchEngine> SearchEngine for Cached<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let key = self.keys.of(query)?;
        if let Some(documents) = self.memory().answers.get(&key) {
            self.account.add(Usage { cache_hits: 1, ..Usage::default() });
            return Ok(documents.clone());
        }
        // The memory is not locked while the engine works, so that others can be answered.
        let documents = self.engine.search(query)?;
        Ok(self.memory().remember(key, documents))
    }

    /// Asks the engine, in one batch, for what is not remembered, each question once.
    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let keys: Vec<_> = queries.iter().map(|query| self.keys.of(query)).collect();
        let mut first = HashSet::new();
        let (unknown, asked): (Vec<&Key>, Vec<Query<'_>>) = {
            let memory = self.memory();
            let keys = keys.iter().zip(queries).filter_map(|(key, query)| Some((key.as_ref().ok()?, *query)));
            keys.filter(|(key, _)| !memory.answers.contains_key(*key) && first.insert(*key)).unzip()
        };
        drop(first);
        let answers = if asked.is_empty() { Vec::new() } else { self.engine.search_batch(&asked) };
        let mut failures = Vec::new();
        for (key, answer) in unknown.into_iter().zip(answers) {
            match answer {
                Ok(documents) => drop(self.memory().remember(key.clone(), documents)),
                Err(error) => failures.push((key.clone(), Some(error))),
            }
        }
        let mut hits = 0;
        let mut answer = |(key, query): (Result<Key, SearchError>, &Query<'_>)| {
            let key = key?;
            if let Some(error) =
                failures.iter_mut().find(|(failed, _)| *failed == key).and_then(|(_, error)| error.take())
            {
                return Err(error);
            }
            let known = self.memory().answers.get(&key).cloned();
            match known {
                Some(documents) => {
                    hits += 1;
                    Ok(documents)
                }
                // An equal question of this batch has just failed.
                None => self.search(query),
            }
        };
        let answers: Vec<_> = keys.into_iter().zip(queries).map(&mut answer).collect();
        let asked = asked.len() - failures.len();
        self.account.add(Usage { cache_hits: (hits as u64).saturating_sub(asked as u64), ..Usage::default() });
        answers
    }

    forward_to_the_engine_inside!();
}

#[cfg(test)]
mod tests {
    use zerosearch_generate::{Ledger, Role};

    use super::*;
    use crate::{CallCount, Counted, Quality, Replay, SimulationContext};

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

    /// Answers with its seed, and differently each time: a server that honours no seeds.
    #[derive(Debug, Default)]
    struct Fickle(std::sync::atomic::AtomicU64);

    impl SearchEngine for Fickle {
        fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
            let context = query.context.ok_or(SearchError::NoContext)?;
            let call = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let contents = format!("{} {} {call}", context.seed, context.quality.keyword());
            Ok(vec![Document { contents, ..Document::default() }])
        }
    }

    #[test]
    fn a_simulated_engine_is_known_by_its_template_and_all_of_the_context() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("simulator.jsonl");
        let answers = [vec!["a".to_string()], vec!["b".to_string()]];
        let mut contexts = Vec::new();
        for question in ["p", "q"] {
            for answers in &answers {
                for quality in [Quality::Useful, Quality::Noisy] {
                    contexts.extend([3, u64::MAX].map(|seed| SimulationContext { question, answers, quality, seed }));
                }
            }
        }
        let queries: Vec<_> =
            contexts.iter().map(|context| Query { text: "x", top_k: 2, context: Some(*context) }).collect();
        let ledger = Ledger::new();
        let engine = Cached::simulated(Fickle::default(), &path, "template").unwrap();
        let engine = engine.with_account(ledger.account(Role::Engine));
        let one_by_one: Vec<_> = queries.iter().map(|query| engine.search(query).unwrap()).collect();
        let contents: HashSet<_> = one_by_one.iter().map(|found| found[0].contents.clone()).collect();
        assert_eq!(contents.len(), queries.len());
        let batch = |engine: &dyn SearchEngine| {
            engine.search_batch(&queries).into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        assert_eq!(batch(&engine), one_by_one);
        assert_eq!(ledger.usage(Role::Engine).cache_hits, queries.len() as u64);
        assert!(matches!(engine.search(&query("x", 2)), Err(SearchError::NoContext)));
        drop(engine);
        assert_eq!(batch(&Replay::simulated(&path, "template").unwrap()), one_by_one);
        let again = Cached::simulated(Replay::simulated(&path, "template").unwrap(), &path, "template").unwrap();
        assert_eq!(batch(&again), one_by_one);

        for error in [
            Replay::read(&path).unwrap_err(),
            Replay::simulated(&path, "other").unwrap_err(),
            Cached::with_file(Echo, &path).unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(error.contains("simulator.jsonl") && error.contains("with the template"), "{error}");
        }
    }

    #[test]
    fn of_equal_questions_asked_at_once_the_first_answer_counts() {
        let cached = Cached::simulated(Fickle::default(), tempfile::tempdir().unwrap().path().join("x"), "t");
        let cached = cached.unwrap();
        let context = SimulationContext { question: "?", answers: &[], quality: Quality::Useful, seed: 1 };
        let query = Query { text: "x", top_k: 1, context: Some(context) };
        let found = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| found.lock().unwrap().insert(cached.search(&query).unwrap()[0].contents.clone()));
            }
        });
        assert_eq!(found.into_inner().unwrap().len(), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_costs_no_search_and_what_was_not_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.jsonl");
        let cached = Cached::with_file(Echo, &path).unwrap();
        cached.search(&query("a", 1)).unwrap();
        // A device that is always full plays the disk.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let room = std::mem::replace(&mut cached.memory().file.as_mut().unwrap().1, full);
        for text in ["b", "c", "b"] {
            assert_eq!(cached.search(&query(text, 1)).unwrap()[0].contents, format!("{text} 1"));
        }
        let batch = cached.search_batch(&["c", "d"].map(|text| query(text, 1)));
        assert!(batch.iter().all(Result::is_ok));
        assert_eq!(cached.unwritten(), 3);
        assert!(Replay::read(&path).unwrap().search(&query("b", 1)).is_err());
        cached.memory().file.as_mut().unwrap().1 = room;
        cached.search(&query("e", 1)).unwrap();
        assert_eq!(cached.unwritten(), 0);
        let replay = Replay::read(&path).unwrap();
        assert!(["a", "b", "c", "d", "e"].into_iter().all(|text| replay.search(&query(text, 1)).is_ok()));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    }
}
