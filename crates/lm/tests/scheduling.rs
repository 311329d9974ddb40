//! Little memory, long prompts, cancellation and deadlines: what they change, and what they must not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zerosearch_generate::{
    Finish, Generator, Request, SampledToken, Sampling, SequenceId, Statistics, Turn, Wake, never,
};
use zerosearch_lm::{HostWeights, LocalGenerator, ModelConfig};

/// Bytes of sixteen positions of this model: 2 layers, 2 key heads of 12 (keys) and 16 (values) floats.
const BLOCK: usize = 2 * 2 * 16 * (12 + 16) * 4;

fn generator() -> LocalGenerator {
    let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
    LocalGenerator::new(&config, &HostWeights::init(&config, 5), &[]).unwrap()
}

fn turn(seed: u64, limit: usize) -> Turn {
    Turn { max_new_tokens: limit, seed, stop: never(), deadline: None }
}

fn start(generator: &mut LocalGenerator, prompt: &[u32], turn: Turn) -> SequenceId {
    generator.start(Request { prompt, sampling: Sampling::default(), turn }).unwrap()
}

/// Three turns of twelve sequences in groups of three; every third answer is long.
fn play(mut generator: LocalGenerator) -> (BTreeMap<SequenceId, Vec<SampledToken>>, Statistics) {
    let mut all: BTreeMap<SequenceId, Vec<SampledToken>> = BTreeMap::new();
    let mut turns: BTreeMap<SequenceId, u64> = BTreeMap::new();
    for row in 0..12u64 {
        let prompt: Vec<u32> = (0..20 + row / 3 * 9).map(|i| ((i * 5 + row / 3) % 90) as u32).collect();
        start(&mut generator, &prompt, turn(row, 10 + row as usize));
    }
    loop {
        let finished = generator.poll().unwrap();
        if finished.is_empty() {
            break;
        }
        for done in finished {
            assert_eq!(done.finish, Finish::Length);
            all.entry(done.id).or_default().extend(done.tokens);
            let turns = turns.entry(done.id).or_default();
            *turns += 1;
            if *turns == 3 {
                generator.release(done.id);
                continue;
            }
            let length = if done.id.0 % 3 == 0 { 40 } else { 5 };
            let answer: Vec<u32> = (0..length).map(|i| (i * 3 + *turns as u32) % 90).collect();
            generator.extend(done.id, &answer, turn(100 * *turns + done.id.0, 8)).unwrap();
        }
    }
    (all, generator.statistics())
}

#[test]
fn little_memory_costs_time_and_no_token() {
    let (expected, plenty) = play(generator());
    assert_eq!(plenty.evicted, 0);
    for blocks in [14, 20, 40] {
        let (found, statistics) = play(generator().with_cache_bytes(blocks * BLOCK));
        assert_eq!(found, expected, "{blocks} blocks");
        assert!(statistics.peak_cache_bytes <= (blocks * BLOCK) as u64, "{statistics:?}");
        assert!(statistics.evicted > 0 && statistics.prefilled > plenty.prefilled, "{statistics:?}");
    }
    assert!(plenty.peak_cache_bytes > (40 * BLOCK) as u64, "the budgets above mean something: {plenty:?}");
}

#[test]
fn the_samples_of_a_group_hold_their_prompts_cache_once() {
    let mut generator = generator();
    let prompt: Vec<u32> = (0..65).collect();
    for seed in 0..8 {
        start(&mut generator, &prompt, turn(seed, 1));
    }
    while !generator.poll().unwrap().is_empty() {}
    // Four blocks of the prompt for all, and one for each whose first position is its own last prompt token.
    assert_eq!(generator.statistics().peak_cache_bytes, (12 * BLOCK) as u64);
}

#[test]
fn a_sequence_that_no_memory_holds_ends_as_data() {
    let mut generator = generator().with_cache_bytes(2 * BLOCK);
    let long = start(&mut generator, &[3; 40], turn(0, 4));
    let short = start(&mut generator, &[5; 20], turn(1, 4));
    let mut finished = Vec::new();
    loop {
        let done = generator.poll().unwrap();
        if done.is_empty() {
            break;
        }
        finished.extend(done);
    }
    let ends: Vec<_> = finished.iter().map(|done| (done.id, done.finish, done.tokens.len())).collect();
    assert_eq!(ends, [(long, Finish::Context, 0), (short, Finish::Length, 4)]);
}

#[test]
fn a_prompt_longer_than_a_steps_share_is_computed_piece_by_piece() {
    let prompt: Vec<u32> = (0..1200).map(|i| (i * 7 % 90) as u32).collect();
    let mut alone = generator();
    start(&mut alone, &prompt, turn(1, 5));
    let expected = alone.poll().unwrap().remove(0).tokens;

    let mut beside = generator();
    let talking = start(&mut beside, &[1, 2, 3], turn(2, 2));
    let long = start(&mut beside, &prompt, turn(1, 5));
    // Two tokens take two steps; the prompt needs three.
    let first = beside.poll().unwrap();
    assert_eq!(first.iter().map(|done| done.id).collect::<Vec<_>>(), [talking]);
    let second = beside.poll().unwrap().remove(0);
    assert_eq!((second.id, second.tokens), (long, expected));
}

#[test]
fn whoever_waited_for_a_sequence_that_goes_takes_what_it_has_computed_and_the_rest_itself() {
    let prompt = |end: u32| -> Vec<u32> { (0..1200).map(|i| i * 7 % 90).chain([end]).collect() };
    let mut alone = generator();
    start(&mut alone, &prompt(1), turn(1, 5));
    let expected = alone.poll().unwrap().remove(0).tokens;

    for leaves in [LocalGenerator::release, LocalGenerator::cancel] {
        let mut beside = generator();
        // Two tokens take two steps, in which the first prompt is computed as far as the steps' share of 512 goes.
        let talking = start(&mut beside, &[95, 2, 3], turn(2, 2));
        let first = start(&mut beside, &prompt(0), turn(3, 5));
        let waiting = start(&mut beside, &prompt(1), turn(1, 5));
        assert_eq!(beside.poll().unwrap().remove(0).id, talking);
        leaves(&mut beside, first);
        let mut finished = beside.poll().unwrap();
        if finished[0].id == first {
            finished = beside.poll().unwrap();
        }
        assert_eq!((finished[0].id, &finished[0].tokens), (waiting, &expected));
        let computed = 512 - 3 + 512;
        let shared = computed / 16 * 16;
        let statistics = beside.statistics();
        assert_eq!((statistics.shared, statistics.prefilled), (shared, 2 + computed + 1200 - shared));
    }
}

#[test]
fn a_cancelled_turn_keeps_what_it_has_and_the_sequence_can_go_on() {
    let mut generator = generator();
    let ends_first = start(&mut generator, &[1, 2], turn(1, 3));
    let cancelled = start(&mut generator, &[4, 5], turn(2, 50));
    assert_eq!(generator.poll().unwrap().remove(0).id, ends_first);
    generator.cancel(cancelled);
    generator.cancel(ends_first);
    generator.cancel(SequenceId(77));
    let done = generator.poll().unwrap();
    assert_eq!((done.len(), done[0].id, done[0].finish, done[0].tokens.len()), (1, cancelled, Finish::Cancelled, 3));
    generator.extend(cancelled, &[6], turn(3, 2)).unwrap();
    assert_eq!(generator.poll().unwrap().remove(0).finish, Finish::Length);
}

#[test]
fn a_raised_signal_ends_a_poll_between_two_steps_and_changes_no_token() {
    let mut alone = generator();
    start(&mut alone, &[1, 2], turn(1, 9));
    let expected = alone.poll().unwrap();
    let mut beside = generator();
    start(&mut beside, &[1, 2], turn(1, 9));
    let wake = Wake::default();
    wake.raise();
    for _ in 1..9 {
        assert!(beside.poll_until(&wake).unwrap().is_empty(), "one token a poll");
    }
    assert_eq!(beside.poll_until(&wake).unwrap(), []);
    assert_eq!(beside.poll_until(&wake).unwrap(), expected);
}

#[test]
fn a_deadline_ends_a_turn_and_leaves_the_others_alone() {
    let mut generator = generator();
    let late = Turn { deadline: Some(Instant::now()), ..turn(1, 50) };
    let in_time = Turn { deadline: Some(Instant::now() + Duration::from_secs(3600)), ..turn(2, 4) };
    let (late, in_time) = (start(&mut generator, &[1, 2], late), start(&mut generator, &[1, 2, 3], in_time));
    let mut finished = generator.poll().unwrap();
    finished.extend(generator.poll().unwrap());
    let ends: BTreeMap<_, _> = finished.iter().map(|done| (done.id, done.finish)).collect();
    assert_eq!(ends, BTreeMap::from([(late, Finish::TimedOut), (in_time, Finish::Length)]));
}
