//! Promises of a BM25 index for every corpus and every query, in memory and on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zerosearch_search::{Bm25Folder, Bm25Index, Document, Query, SearchEngine};

/// Few words, so that documents share them, tie, and repeat each other.
fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["red", "fox", ".td", "Élan", "a", "capital", "OR", "7"]);
    prop::collection::vec(word, 0..9).prop_map(|words| words.join(" "))
}

fn corpus() -> impl Strategy<Value = Vec<Document>> {
    let document = (prop::option::of(text()), text()).prop_map(|(title, contents)| Document {
        title,
        contents,
        ..Default::default()
    });
    prop::collection::vec(document, 1..40).prop_map(|mut documents| {
        documents.iter_mut().enumerate().for_each(|(number, document)| document.id = Some(number.to_string()));
        documents
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Scores by the formula, written down a second time; documents without a word of the query are left out.
fn reference(documents: &[Document], query: &str) -> BTreeMap<usize, f64> {
    let texts: Vec<Vec<String>> = documents
        .iter()
        .map(|document| words(&format!("{} {}", document.title.as_deref().unwrap_or(""), document.contents)))
        .collect();
    let count = documents.len() as f64;
    let average = texts.iter().map(Vec::len).sum::<usize>() as f64 / count;
    let mut scores = BTreeMap::new();
    for word in words(query) {
        let containing = texts.iter().filter(|text| text.contains(&word)).count() as f64;
        let idf = (1.0 + (count - containing + 0.5) / (containing + 0.5)).ln();
        for (number, text) in texts.iter().enumerate() {
            let tf = text.iter().filter(|other| **other == word).count() as f64;
            if tf > 0.0 {
                *scores.entry(number).or_default() +=
                    idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * text.len() as f64 / average));
            }
        }
    }
    scores
}

fn search(index: &impl SearchEngine, text: &str, top_k: usize) -> Vec<(usize, f32)> {
    let found = index.search(&Query { text, top_k, context: None }).unwrap();
    found.into_iter().map(|document| (document.id.unwrap().parse().unwrap(), document.score.unwrap())).collect()
}

proptest! {
    #[test]
    fn scores_are_the_formula(documents in corpus(), query in text()) {
        let expected = reference(&documents, &query);
        let found = search(&Bm25Index::new(documents).unwrap(), &query, 100);
        prop_assert_eq!(found.len(), expected.len());
        for (number, score) in &found {
            prop_assert!((f64::from(*score) - expected[number]).abs() < 1e-4, "{} {} {}", number, score, expected[number]);
        }
    }

    #[test]
    fn order_is_score_then_position_and_shorter_answers_are_prefixes(documents in corpus(), query in text(), top_k in 0_usize..12) {
        let index = Bm25Index::new(documents).unwrap();
        let all = search(&index, &query, 100);
        prop_assert!(all.windows(2).all(|pair| pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0)));
        prop_assert_eq!(&search(&index, &query, top_k)[..], &all[..top_k.min(all.len())]);
    }

    #[test]
    fn equal_documents_have_equal_scores_and_word_order_is_nothing(documents in corpus(), query in text()) {
        let twice: Vec<Document> = documents.iter().chain(&documents).enumerate()
            .map(|(number, document)| Document { id: Some(number.to_string()), ..document.clone() }).collect();
        let index = Bm25Index::new(twice).unwrap();
        let found: BTreeMap<usize, f32> = search(&index, &query, 100).into_iter().collect();
        for (number, score) in &found {
            prop_assert_eq!(*score, found[&((number + documents.len()) % (2 * documents.len()))]);
        }
        let backwards = query.split(' ').rev().collect::<Vec<_>>().join(" ");
        prop_assert_eq!(search(&index, &query, 7), search(&index, &backwards, 7));
    }

    #[test]
    fn any_string_is_a_query(documents in corpus(), query in any::<String>()) {
        search(&Bm25Index::new(documents).unwrap(), &query, 5);
    }
}

proptest! {
    // Every case writes and syncs files.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_index_on_disk_answers_as_the_one_in_memory_to_the_bit(documents in corpus(), queries in prop::collection::vec(text(), 1..6), top_k in 0_usize..50) {
        let folder = tempfile::tempdir().unwrap();
        let corpus = folder.path().join("corpus.jsonl");
        // A row without words is no passage of a corpus file.
        let documents = documents.into_iter().map(|document| Document { contents: format!("x {}", document.contents), ..document });
        let documents: Vec<Document> = documents.collect();
        write(&corpus, &documents);
        let memory = Bm25Index::new(documents).unwrap();
        let built = Bm25Folder::open_or_build(&corpus, folder.path().join("index")).unwrap();
        let opened = Bm25Folder::open_or_build(&corpus, folder.path().join("index")).unwrap();
        for text in &queries {
            let query = Query { text, top_k, context: None };
            let expected = memory.search(&query).unwrap();
            prop_assert_eq!(&built.search(&query).unwrap(), &expected);
            prop_assert_eq!(&opened.search(&query).unwrap(), &expected);
        }
    }
}

fn write(path: &Path, documents: &[Document]) {
    let rows = documents.iter().map(|document| serde_json::to_string(document).unwrap() + "\n");
    std::fs::write(path, rows.collect::<String>()).unwrap();
}

/// The files of the one index in a folder; a new index has new names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = entries(folder).filter(|path| path.is_dir()).collect();
    assert!(folders.len() < 2, "{folders:?}");
    let mut files: Vec<_> = folders.iter().flat_map(|folder| entries(folder)).collect();
    files.sort();
    files
}

/// The ids of what a query finds in the folder's index, and whether it was built anew for that.
fn found(corpus: &Path, folder: &Path, text: &str) -> (Vec<usize>, bool) {
    let before = files(folder);
    let index = Bm25Folder::open_or_build(corpus, folder).unwrap();
    let ids = search(&index, text, 9).into_iter().map(|(number, _)| number).collect();
    (ids, files(folder) != before)
}

#[test]
fn an_index_that_is_not_of_the_corpus_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, index) = (folder.path().join("corpus.jsonl"), folder.path().join("a/index"));
    let rows = |words: [&str; 2]| {
        let document = |(id, word): (usize, &str)| Document {
            id: Some(id.to_string()),
            contents: word.into(),
            ..Default::default()
        };
        words.into_iter().enumerate().map(document).collect::<Vec<_>>()
    };
    write(&corpus, &rows(["fox", "hen"]));
    assert_eq!(found(&corpus, &index, "hen"), (vec![1], true));
    assert_eq!(found(&corpus, &index, "hen"), (vec![1], false));
    // The same size, and other contents.
    write(&corpus, &rows(["hen", "fox"]));
    assert_eq!(found(&corpus, &index, "hen"), (vec![0], true));
    // The same contents at another time.
    write(&corpus, &rows(["hen", "fox"]));
    assert_eq!(found(&corpus, &index, "hen"), (vec![0], false));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&corpus).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(found(&corpus, &index, "hen"), (vec![0], false));
    // It is not read again once its time is known to be past.
    let settled = std::fs::read_to_string(index.join("index.json")).unwrap();
    assert!(!settled.contains("\"modified\": null"), "{settled}");

    let manifest = index.join("index.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    // A file of every kind, cut short, and another version of the analyser.
    let kinds: Vec<_> = files(&index).iter().filter_map(|path| Some(path.extension()?.to_owned())).collect();
    assert!(kinds.len() > 4, "{kinds:?}");
    for kind in kinds {
        let path = files(&index).into_iter().find(|path| path.extension() == Some(&kind)).unwrap();
        let content = std::fs::read(&path).unwrap();
        if let Some(cut) = content.len().checked_sub(1) {
            std::fs::write(&path, &content[..cut]).unwrap();
            assert_eq!(found(&corpus, &index, "fox"), (vec![1], true), "{path:?}");
        }
    }
    let other = text.replace("\"analyser\": 1", "\"analyser\": 0");
    assert_ne!(other, text);
    std::fs::write(&manifest, other).unwrap();
    assert_eq!(found(&corpus, &index, "fox"), (vec![1], true));
    // Killed before the description was written.
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(found(&corpus, &index, "fox"), (vec![1], true));

    // A foreign file is left alone.
    let refused = |folder: &Path| Bm25Folder::open_or_build(&corpus, folder).err().unwrap().to_string();
    std::fs::write(&manifest, "{\"pages\": 3}").unwrap();
    let error = refused(&index);
    assert!(
        error.contains("index.json: not the description of an index") && error.contains("another folder"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), "{\"pages\": 3}");
    assert!(refused(&corpus).contains("corpus.jsonl"));
    let error = Bm25Folder::open_or_build(folder.path().join("none.jsonl"), folder.path().join("b")).err().unwrap();
    assert!(error.to_string().contains("none.jsonl: cannot read the corpus"), "{error}");
    assert!(!folder.path().join("b").exists());
}

#[test]
fn several_that_open_one_folder_at_once_build_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, index) = (folder.path().join("corpus.jsonl"), folder.path().join("index"));
    write(
        &corpus,
        &(0..2000)
            .map(|n| Document { id: Some(n.to_string()), contents: format!("n{n}"), ..Default::default() })
            .collect::<Vec<_>>(),
    );
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (corpus, index) = (&corpus, &index);
            scope.spawn(move || {
                let opened = Bm25Folder::open_or_build(corpus, index).unwrap();
                (0..50).for_each(|i| assert_eq!(search(&opened, &format!("n{}", n * 500 + i), 9)[0].0, n * 500 + i));
            });
        }
    });
}

#[test]
fn a_corpus_larger_than_the_build_memory_stays_in_order() {
    // Posting lists span many blocks, and tantivy would have split such a corpus into segments.
    let documents = (0..30_000).map(|number| Document {
        id: Some(number.to_string()),
        contents: format!("common word{number} x{}", number % 7),
        ..Default::default()
    });
    let index = Bm25Index::new(documents).unwrap();
    let found: Vec<usize> = search(&index, "common", 5).into_iter().map(|(number, _)| number).collect();
    assert_eq!(found, [0, 1, 2, 3, 4]);
    assert_eq!(search(&index, "word29999", 5)[0].0, 29_999);
    let found: Vec<usize> = search(&index, "common x3", 4).into_iter().map(|(number, _)| number).collect();
    assert_eq!(found, [3, 10, 17, 24]);
}

#[test]
fn many_threads_ask_one_index() {
    let documents = (0..500).map(|number| Document {
        id: Some(number.to_string()),
        contents: format!("n{} m{}", number % 10, number % 3),
        ..Default::default()
    });
    let index = Bm25Index::new(documents).unwrap();
    let expected: Vec<_> = (0..10).map(|n| search(&index, &format!("n{n} m1"), 9)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|n| assert_eq!(search(&index, &format!("n{n} m1"), 9), expected[n])));
        }
    });
}
