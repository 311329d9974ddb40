//! A draw depends on its stream's name alone, and different names give different draws.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand_chacha::rand_core::Rng;
use zerosearch_generate::{Stream, stream_seed};

fn any_stream() -> impl Strategy<Value = Stream> {
    let purpose = prop::sample::select(vec!["policy", "noise", "simulator", "shuffle", ""]);
    (any::<u64>(), purpose, any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(seed, purpose, step, question, sample, turn)| Stream { seed, purpose, step, question, sample, turn },
    )
}

fn fields(stream: &mut Stream) -> [&mut u64; 5] {
    [&mut stream.seed, &mut stream.step, &mut stream.question, &mut stream.sample, &mut stream.turn]
}

proptest! {
    #[test]
    fn a_name_always_gives_the_same_seed(stream in any_stream()) {
        prop_assert_eq!(stream.value(), Stream { ..stream }.value());
        prop_assert_eq!(stream.rng().next_u64(), stream.rng().next_u64());
    }

    #[test]
    fn distinct_names_give_distinct_seeds(a in any_stream(), b in any_stream()) {
        prop_assume!(a != b);
        prop_assert_ne!(a.value(), b.value());
        prop_assert_ne!(a.rng().next_u64(), b.rng().next_u64());
    }

    #[test]
    fn one_changed_field_changes_the_seed(stream in any_stream(), field in 0_usize..5, delta in 1_u64..) {
        let mut changed = stream;
        let value = &mut fields(&mut changed)[field];
        **value = value.wrapping_add(delta);
        prop_assert_ne!(stream.value(), changed.value());
    }

    #[test]
    fn fields_do_not_commute(stream in any_stream(), a in 0_usize..5, b in 0_usize..5) {
        let mut swapped = stream;
        let values = fields(&mut swapped).map(|value| *value);
        prop_assume!(values[a] != values[b]);
        let slots = fields(&mut swapped);
        (*slots[a], *slots[b]) = (values[b], values[a]);
        prop_assert_ne!(stream.value(), swapped.value());
    }

    #[test]
    fn a_seed_of_parts_depends_on_every_part(parts in prop::collection::vec(any::<u64>(), 1..8), at in any::<prop::sample::Index>(), delta in 1_u64..) {
        let mut changed = parts.clone();
        let at = at.index(parts.len());
        changed[at] = changed[at].wrapping_add(delta);
        prop_assert_ne!(stream_seed(&parts), stream_seed(&changed));
    }
}

#[test]
fn the_names_of_a_whole_step_give_distinct_seeds() {
    let mut seeds = BTreeSet::new();
    let mut names = 0;
    for purpose in ["policy", "noise", "simulator"] {
        for step in 0..4 {
            for question in 0..64 {
                for sample in 0..5 {
                    for turn in 0..5 {
                        names += 1;
                        seeds.insert(Stream { seed: 0, purpose, step, question, sample, turn }.value());
                    }
                }
            }
        }
    }
    assert_eq!(seeds.len(), names);
}

#[test]
fn first_draws_of_neighbouring_names_are_uniform() {
    let n = 4_000;
    let draws = (0..n).map(|question| {
        let stream = Stream { purpose: "noise", question, ..Stream::default() };
        (stream.rng().next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    });
    let mean = draws.sum::<f64>() / n as f64;
    assert!((mean - 0.5).abs() < 0.02, "mean of uniform draws is {mean}");
}

#[test]
fn the_mapping_is_frozen() {
    // A run that was resumed by a later version must go on with the streams it began with.
    let stream = Stream { seed: 1, purpose: "policy", step: 2, question: 3, sample: 4, turn: 5 };
    assert_eq!(stream.value(), 7_024_386_466_222_656_070);
}
