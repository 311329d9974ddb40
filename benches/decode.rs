//! Decoding with the size of the shipped base policy (random weights): 32 new tokens after a prompt of 64.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use zerosearch::generate::{Generator, Request, Sampling, Turn, never};
use zerosearch::lm::{HostWeights, LocalGenerator, ModelConfig};

const NEW: usize = 32;

fn benches(criterion: &mut Criterion) {
    let config = ModelConfig::tiny_llama(2048, 256, 5, 4, 2, 512);
    let weights = HostWeights::init(&config, 0);
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10);
    for batch in [1u64, 8, 32] {
        group.throughput(Throughput::Elements(batch * NEW as u64));
        group.bench_function(format!("batch {batch}"), |b| {
            b.iter_batched(
                || {
                    let mut generator = LocalGenerator::new(&config, &weights, &[]);
                    for seed in 0..batch {
                        let prompt: Vec<u32> = (0..64).map(|i| (i * 31 + seed as u32) % 2048).collect();
                        let turn = Turn { max_new_tokens: NEW, seed, stop: never() };
                        let request = Request { prompt: &prompt, sampling: Sampling::default(), turn };
                        generator.start(request).expect("a valid prompt");
                    }
                    generator
                },
                |mut generator| while !generator.poll().expect("a working engine").is_empty() {},
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(group, benches);
criterion_main!(group);
