//! Ceilings of this machine, which the other benches are measured against: bytes read in a second, and the rate of our
//! matrix product where nothing comes from memory, with every instruction set that the processor has. All threads.
//! `cargo bench --bench ceiling`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use zerosearch::kernels::InstructionSet;
use zerosearch::kernels::host::Packed;

/// The weights of SmolLM2-135M, which every decoded token reads.
const FLOATS: usize = 134_515_008;
/// A product whose weight and input (1 MB each) stay in the caches.
const ROWS: usize = 512;
const INNER: usize = 512;
const OUTER: usize = 512;
/// Sums kept apart, enough to hide the latency of an addition.
const SUMS: usize = 128;

/// Adds up all values, each thread its share: only the memory limits it.
fn read_all(values: &[f32]) -> f32 {
    let share = values.len().div_ceil(rayon::current_num_threads()).next_multiple_of(SUMS).max(SUMS);
    let sums = values.par_chunks(share).map(|values| {
        let mut sums = [0f32; SUMS];
        for block in values.chunks(SUMS) {
            sums.iter_mut().zip(block).for_each(|(sum, value)| *sum += value);
        }
        sums.iter().sum::<f32>()
    });
    sums.sum()
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ceiling");
    group.sample_size(10);
    let values = vec![1f32; FLOATS];
    group.throughput(Throughput::Bytes((FLOATS * size_of::<f32>()) as u64));
    group.bench_function("read 538 MB", |b| b.iter(|| read_all(&values)));
    let weight = Packed::new(&[&values[..INNER * OUTER]], INNER);
    let mut out = vec![0.0; ROWS * OUTER];
    // Floating-point operations.
    group.throughput(Throughput::Elements((2 * ROWS * INNER * OUTER) as u64));
    for set in InstructionSet::available() {
        set.select().expect("an instruction set that this processor has");
        let name = format!("product in the caches, {set}");
        group.bench_function(name, |b| b.iter(|| weight.multiply(&values[..ROWS * INNER], &mut out)));
    }
}

criterion_group!(group, benches);
criterion_main!(group);
