//! BM25 over the shipped world: one query of each length.

use criterion::{Criterion, criterion_group, criterion_main};
use zerosearch::pipeline::world_material;
use zerosearch::search::{Bm25Index, Query, SearchEngine};

fn benches(criterion: &mut Criterion) {
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
