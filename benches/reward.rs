//! Masks and F1: what every rollout pays once.

use criterion::{Criterion, criterion_group, criterion_main};
use zerosearch::reward::f1;
use zerosearch::trajectory::{Finish, SampledToken, Segment, Trajectory, WeightVersion};

fn trajectory() -> Trajectory {
    let mut trajectory = Trajectory::new((0..200).collect());
    for turn in 0..5 {
        let tokens = (0..100).map(|id| SampledToken::new(id + turn, -1.0)).collect();
        trajectory.push(Segment::Policy { tokens, finish: Finish::Stop, weights: WeightVersion(0) });
        trajectory.push(Segment::Observation((0..500).collect()));
    }
    trajectory
}

fn benches(criterion: &mut Criterion) {
    let trajectory = trajectory();
    criterion.bench_function("mask of 3,200 tokens", |b| b.iter(|| trajectory.mask()));
    criterion.bench_function("f1 against three answers", |b| {
        b.iter(|| f1("the quick brown fox jumps over the lazy dog", &["a quick fox", "the lazy dog", "brown"]))
    });
}

criterion_group!(group, benches);
criterion_main!(group);
