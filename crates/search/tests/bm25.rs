//! What a BM25 index promises for every corpus and every query.

use std::collections::BTreeMap;

use proptest::prelude::*;
use zerosearch_search::{Bm25Index, Document, Query, SearchEngine};

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

fn search(index: &Bm25Index, text: &str, top_k: usize) -> Vec<(usize, f32)> {
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
