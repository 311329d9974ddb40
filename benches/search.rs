//! BM25: over the shipped world, and over a corpus of the size of a small encyclopedia that is kept on disk.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use zerosearch::pipeline::world_material;
use zerosearch::search::{Bm25Folder, Bm25Index, Query, SearchEngine};

const PASSAGES: usize = 97_000;
/// Words of a passage, as in the corpora that retrieval is measured on.
const LENGTH: usize = 100;
const WORDS: u64 = 100_000;
const QUERIES: usize = 500;

/// Numbers that look drawn (SplitMix64), the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A word whose frequency falls with its rank, as in any language (Zipf's law).
    fn word(&mut self) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (WORDS as f64).powf(uniform) as u64
    }

    fn words(&mut self, count: usize) -> String {
        let mut text = String::new();
        (0..count).for_each(|_| write!(text, "w{:x} ", self.word()).expect("a string"));
        text
    }
}

fn on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let (corpus, index) = (folder.path().join("corpus.jsonl"), folder.path().join("index"));
    let mut numbers = Numbers(7);
    let mut rows = String::new();
    for id in 0..PASSAGES {
        let text = numbers.words(LENGTH);
        writeln!(rows, "{{\"id\": {id}, \"contents\": {text:?}}}").expect("a string");
    }
    std::fs::write(&corpus, &rows).expect("the corpus");
    let open = |corpus: &Path, index: &Path| {
        let began = Instant::now();
        let engine = Bm25Folder::open_or_build(corpus, index).expect("an index");
        (engine, began.elapsed())
    };
    let (built, building) = open(&corpus, &index);
    drop(built);
    // Opened for the first time after the corpus has settled, it is read once to be sure of it.
    let (engine, opening) = open(&corpus, &index);
    let mut times: Vec<_> = (0..QUERIES)
        .map(|_| {
            let text = numbers.words(8);
            let began = Instant::now();
            let found = engine.search(&Query { text: &text, top_k: 5, context: None }).expect("an answer");
            assert_eq!(found.len(), 5);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{PASSAGES} passages of {LENGTH} words ({} MB): indexed on disk in {:.1} s, opened in {:.1} ms; \
         {QUERIES} queries of 8 words: median {:.2} ms, 99 % within {:.2} ms",
        rows.len() / 1_000_000,
        building.as_secs_f64(),
        opening.as_secs_f64() * 1e3,
        times[QUERIES / 2].as_secs_f64() * 1e3,
        times[QUERIES * 99 / 100].as_secs_f64() * 1e3
    );
}

fn benches(criterion: &mut Criterion) {
    on_disk();
    let material = world_material().expect("the shipped facts");
    let engine = Bm25Index::new(material.corpus).expect("an index");
    for (name, text) in [
        ("short", "capital of Chad"),
        ("question", "What is the highest point of the country whose capital is Marigot?"),
    ] {
        criterion.bench_function(&format!("bm25, {name} query"), |b| {
            b.iter(|| engine.search(&Query { text, top_k: 5, context: None }))
        });
    }
}

criterion_group!(group, benches);
criterion_main!(group);
