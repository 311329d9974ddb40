//! Dependencies of a sampled sequence: weights, prompt, seed, and nothing else.

use burn::tensor::Device;
use proptest::prelude::*;
use zerosearch_generate::{
    Finish, GenerateError, Generator, Request, RolloutGenerator, SampledToken, Sampling, SequenceId, Turn,
    WeightVersion, never,
};
use zerosearch_lm::{Decoder, HostWeights, LocalGenerator, ModelConfig};

fn generator() -> LocalGenerator {
    let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
    LocalGenerator::new(&config, &HostWeights::init(&config, 5), &[96]).unwrap()
}

fn turn(seed: u64, limit: usize) -> Turn {
    Turn { max_new_tokens: limit, seed, stop: never(), deadline: None }
}

fn start(generator: &mut LocalGenerator, index: u64) -> SequenceId {
    // Three prompts, so that groups share them; lengths differ.
    let prompt: Vec<u32> = (0..4 + index % 3).map(|i| ((i * 7 + index % 3) % 90) as u32).collect();
    generator
        .start(Request { prompt: &prompt, sampling: Sampling::default(), turn: turn(index, 6 + index as usize % 5) })
        .unwrap()
}

/// Two turns with an observation between them, of each of these sequences.
fn run(order: &[u64], max_batch: usize) -> Vec<(u64, Vec<SampledToken>)> {
    let mut generator = generator().with_max_batch(max_batch);
    let names: std::collections::BTreeMap<_, _> =
        order.iter().map(|index| (start(&mut generator, *index), *index)).collect();
    let mut tokens: std::collections::BTreeMap<u64, (usize, Vec<SampledToken>)> = Default::default();
    loop {
        let finished = generator.poll().unwrap();
        if finished.is_empty() {
            break;
        }
        for done in finished {
            let index = names[&done.id];
            let (turns, all) = tokens.entry(index).or_default();
            *turns += 1;
            all.extend(done.tokens);
            if *turns == 1 {
                generator.extend(done.id, &[1, 2, 3 + index as u32 % 5], turn(1000 + index, 7)).unwrap();
            } else {
                generator.release(done.id);
            }
        }
    }
    tokens.into_iter().map(|(index, (_, tokens))| (index, tokens)).collect()
}

#[test]
fn a_sequence_is_the_same_alone_and_in_any_batch_and_order() {
    let order: Vec<u64> = (0..32).collect();
    let expected = run(&order, 32);
    for max_batch in [1, 3, 8] {
        assert_eq!(run(&order, max_batch), expected, "batch {max_batch}");
    }
    let shuffled: Vec<u64> = (0..32).map(|i| (i * 13 + 5) % 32).collect();
    assert_eq!(run(&shuffled, 8), expected);
    let alone: Vec<_> = order.iter().flat_map(|index| run(&[*index], 1)).collect();
    assert_eq!(alone, expected);
}

#[test]
fn the_samples_of_a_group_share_their_prompts_prefill() {
    let mut generator = generator();
    let prompt: Vec<u32> = (1..40).collect();
    for seed in 0..5 {
        generator.start(Request { prompt: &prompt, sampling: Sampling::default(), turn: turn(seed, 2) }).unwrap();
    }
    while !generator.poll().unwrap().is_empty() {}
    let statistics = generator.statistics();
    assert_eq!((statistics.prefilled, statistics.shared), (38, 4 * 38));
    assert_eq!(statistics.sampled, 10);
}

/// Fifty tokens that are the same for all, and ten of its own.
fn prompt(own: u32) -> Vec<u32> {
    (0..50).chain([60 + own; 10]).collect()
}

fn play(generator: &mut LocalGenerator, own: u32) -> (SequenceId, Vec<SampledToken>) {
    let turn = turn(u64::from(own), 6);
    let id = generator.start(Request { prompt: &prompt(own), sampling: Sampling::default(), turn }).unwrap();
    (id, generator.poll().unwrap().remove(0).tokens)
}

/// The tokens that a generator computed and those that it shared.
fn work(generator: &LocalGenerator) -> (u64, u64) {
    (generator.statistics().prefilled, generator.statistics().shared)
}

#[test]
fn what_prompts_have_in_common_is_computed_once_also_one_after_another_and_after_a_release() {
    let expected = [0, 1, 2].map(|own| play(&mut generator(), own).1);
    // The last token of a prompt is neither: it is computed for the draw behind it.
    let once = (50 + 3 * 9, 2 * 50);

    let mut together = generator();
    for own in 0..3 {
        let turn = turn(u64::from(own), 6);
        together.start(Request { prompt: &prompt(own), sampling: Sampling::default(), turn }).unwrap();
    }
    let mut found = Vec::new();
    while found.len() < 3 {
        found.extend(together.poll().unwrap());
    }
    found.sort_by_key(|done| done.id);
    assert_eq!(found.into_iter().map(|done| done.tokens).collect::<Vec<_>>(), expected);
    assert_eq!(work(&together), once);

    let mut alive = generator();
    assert_eq!([0, 1, 2].map(|own| play(&mut alive, own).1), expected);
    assert_eq!(work(&alive), once);

    let mut released = generator();
    let found = [0, 1, 2].map(|own| {
        let (id, tokens) = play(&mut released, own);
        released.release(id);
        tokens
    });
    assert_eq!((found, work(&released)), (expected, once));
}

#[test]
fn groups_that_arrive_mixed_share_their_own_prompts_and_the_head_of_all() {
    let mut generator = generator();
    for sample in 0..6 {
        let prompt = prompt(sample % 2);
        generator.start(Request { prompt: &prompt, sampling: Sampling::default(), turn: turn(0, 1) }).unwrap();
    }
    while !generator.poll().unwrap().is_empty() {}
    assert_eq!(work(&generator), (50 + 2 * 9, 50 + 4 * 59));
}

#[test]
fn a_sequence_that_is_started_anew_finds_its_past() {
    let mut generator = generator();
    let (id, sampled) = play(&mut generator, 0);
    generator.release(id);
    let context: Vec<u32> = prompt(0).into_iter().chain(sampled.iter().map(|token| token.id)).chain([5; 20]).collect();
    generator.start(Request { prompt: &context, sampling: Sampling::default(), turn: turn(7, 1) }).unwrap();
    while !generator.poll().unwrap().is_empty() {}
    // Of the 65 tokens that were computed, those in whole blocks.
    assert_eq!(work(&generator), (59 + 21, 64));
}

#[test]
fn new_weights_share_nothing_with_old_ones() {
    let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
    let [old, new] = [5, 6].map(|seed| HostWeights::init(&config, seed));
    let fresh = |weights| play(&mut LocalGenerator::new(&config, weights, &[96]).unwrap(), 0).1;
    let mut generator = generator();
    let (live, first) = play(&mut generator, 0);
    let (released, _) = play(&mut generator, 0);
    generator.release(released);
    assert_eq!((work(&generator), &first), ((59, 59), &fresh(&old)));
    generator.refit(&new, WeightVersion(1)).unwrap();
    // Blocks that a live sequence computes after older weights are not shared either.
    generator.extend(live, &[1; 40], turn(1, 1)).unwrap();
    while !generator.poll().unwrap().is_empty() {}
    let (_, second) = play(&mut generator, 0);
    assert_eq!((work(&generator), &second), ((59 + 40 + 59, 59), &fresh(&new)));
    assert_ne!(first, second);
    play(&mut generator, 0);
    assert_eq!(work(&generator), (59 + 40 + 59, 2 * 59), "the new weights' own");
}

#[test]
fn counts_that_begin_anew_do_not_depend_on_what_was_generated_before() {
    let mut generator = generator();
    let (id, _) = play(&mut generator, 0);
    generator.release(id);
    let first = generator.take_statistics();
    let (id, _) = play(&mut generator, 0);
    generator.release(id);
    assert_eq!(generator.take_statistics(), first);
}

#[test]
fn a_full_context_ends_a_turn_and_nothing_else() {
    let mut config = ModelConfig::tiny_llama(97, 48, 1, 4, 2, 80);
    config.max_positions = 10;
    let mut generator = LocalGenerator::new(&config, &HostWeights::init(&config, 5), &[]).unwrap();
    let id = generator.start(Request { prompt: &[1, 2, 3], sampling: Sampling::greedy(), turn: turn(0, 100) }).unwrap();
    let done = generator.poll().unwrap().remove(0);
    assert_eq!((done.finish, done.tokens.len()), (Finish::Context, 7));
    generator.extend(id, &[4, 5], turn(1, 5)).unwrap();
    let done = generator.poll().unwrap().remove(0);
    assert_eq!((done.finish, done.tokens.len()), (Finish::Context, 0));
    generator.release(id);
    assert!(generator.poll().unwrap().is_empty());
}

#[test]
fn what_cannot_be_decoded_is_refused_by_name() {
    let mut generator = generator();
    let mut start = |prompt: &[u32], sampling| generator.start(Request { prompt, sampling, turn: turn(0, 1) });
    assert!(matches!(start(&[], Sampling::default()), Err(GenerateError::EmptyPrompt)));
    assert!(matches!(start(&[97], Sampling::default()), Err(GenerateError::UnknownToken { id: 97, vocabulary: 97 })));
    assert!(matches!(start(&[1; 3000], Sampling::default()), Err(GenerateError::PromptTooLong { length: 3000, .. })));
    let sampling = Sampling { top_p: 0.0, ..Sampling::default() };
    assert!(matches!(start(&[1], sampling), Err(GenerateError::Parameter { name: "top_p", .. })));
    assert!(matches!(generator.extend(SequenceId(99), &[1], turn(0, 1)), Err(GenerateError::NotWaiting(99))));
}

#[test]
fn zero_new_tokens_end_at_once() {
    let mut generator = generator();
    generator.start(Request { prompt: &[1], sampling: Sampling::default(), turn: turn(0, 0) }).unwrap();
    let done = generator.poll().unwrap().remove(0);
    assert_eq!((done.finish, done.tokens.len()), (Finish::Length, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_subset_in_any_order_gives_the_same_sequences(picks in proptest::collection::btree_set(0u64..40, 1..12), max_batch in 1usize..6, reverse: bool) {
        let mut order: Vec<u64> = picks.into_iter().collect();
        let expected = run(&order, 64);
        if reverse {
            order.reverse();
        }
        prop_assert_eq!(run(&order, max_batch), expected);
    }
}

#[test]
fn no_end_of_text_before_the_fewest_tokens() {
    let config = ModelConfig::tiny_llama(97, 48, 1, 4, 2, 80);
    let weights = HostWeights::init(&config, 4);
    // Every token but two ends the text: without a bound a turn is over at once.
    let eos: Vec<u32> = (2..97).collect();
    let mut generator = LocalGenerator::new(&config, &weights, &eos).unwrap();
    for (min_new_tokens, at_least) in [(0, 1), (5, 6)] {
        let sampling = Sampling { min_new_tokens, ..Sampling::default() };
        let id = generator.start(Request { prompt: &[1, 2], sampling, turn: turn(3, 40) }).unwrap();
        let done = generator.poll().unwrap().remove(0);
        let ended = done.tokens.iter().position(|token| eos.contains(&token.id)).map(|position| position + 1);
        assert!(ended.is_none_or(|length| length >= at_least), "{min_new_tokens}: {ended:?}");
        assert!(min_new_tokens > 0 || ended.is_some_and(|length| length < 6), "the bound has something to hold back");
        generator.release(id);
    }
}

#[test]
fn without_weights_nothing_is_sampled_and_with_them_again_nothing_was_lost() {
    let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
    let weights = HostWeights::init(&config, 5);
    let mut generator = generator();
    let done = |generator: &mut LocalGenerator| generator.poll().unwrap().remove(0).tokens;
    let id = start(&mut generator, 0);
    let first = done(&mut generator);
    generator.sleep().unwrap();
    generator.extend(id, &[1, 2], turn(1, 7)).unwrap();
    let message = generator.poll().unwrap_err().to_string();
    assert!(message.contains("released") && message.contains("refit"), "{message}");
    generator.refit_from(&Decoder::frozen(&config, &weights, &Device::flex()).unwrap(), WeightVersion(1)).unwrap();
    let second = done(&mut generator);

    let mut awake = self::generator();
    let id = start(&mut awake, 0);
    assert_eq!(done(&mut awake), first);
    awake.extend(id, &[1, 2], turn(1, 7)).unwrap();
    assert_eq!(done(&mut awake), second);
}
