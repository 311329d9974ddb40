//! What this machine can do at best, which the other benches are measured against: bytes read and floating-point operations
//! in a second, on all threads. `cargo bench -p zerosearch-benches --bench ceiling`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zerosearch::kernels::ceiling::{multiply_add, read_all};

/// The weights of SmolLM2-135M, which every decoded token reads.
const FLOATS: usize = 134_515_008;
const ROUNDS: usize = 1 << 20;

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ceiling");
    group.sample_size(10);
    let values = vec![1f32; FLOATS];
    group.throughput(Throughput::Bytes((FLOATS * size_of::<f32>()) as u64));
    group.bench_function("read 538 MB", |b| b.iter(|| read_all(&values)));
    // Floating-point operations of all threads.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    group.throughput(Throughput::Elements((ROUNDS * 512 * threads) as u64));
    group.bench_function("fused multiply-adds", |b| b.iter(|| multiply_add(ROUNDS)));
}

criterion_group!(group, benches);
criterion_main!(group);
