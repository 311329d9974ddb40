//! The generator on a GPU: the reference's continuations, the host's tokens, and the same bits whatever else is decoded.

#![cfg(any(feature = "cuda", feature = "webgpu"))]

mod families;
mod rollouts;

use std::collections::BTreeMap;

use burn::tensor::Device;
use families::FAMILIES;
use rollouts::{assert_generator_and_trainer_agree, load};
use zerosearch_generate::{
    Finished, Generator, Request, RolloutGenerator, SampledToken, Sampling, Statistics, Turn, WeightVersion, never,
};
use zerosearch_lm::{
    AdamW, AdamWConfig, Decoder, Gradients, HostWeights, LearningRate, LocalGenerator, ModelConfig, Refit,
    ScoredSequence, SftConfig, SftExample, SftTrainer, WeightDtype,
};

fn gpu() -> Device {
    // Of the feature that is on.
    Device::default()
}

fn turn(seed: u64, limit: usize) -> Turn {
    Turn { max_new_tokens: limit, seed, stop: never(), deadline: None }
}

/// Everything that two turns of these sequences draw, with an observation between the turns. Three prompts are shared.
fn play(mut generator: LocalGenerator, order: &[u64]) -> (BTreeMap<u64, Vec<SampledToken>>, Statistics) {
    let sampling = |index: u64| match index % 4 {
        0 => Sampling::default(),
        1 => Sampling { top_k: 5, temperature: 0.7, ..Sampling::default() },
        2 => Sampling { top_p: 0.8, min_new_tokens: 3, ..Sampling::default() },
        _ => Sampling { min_p: 0.2, ..Sampling::greedy() },
    };
    let mut names = BTreeMap::new();
    for index in order {
        let prompt: Vec<u32> = (0..40 + index % 3).map(|i| ((i * 7 + index % 3) % 90) as u32).collect();
        let request =
            Request { prompt: &prompt, sampling: sampling(*index), turn: turn(*index, 5 + *index as usize % 4) };
        names.insert(generator.start(request).unwrap(), *index);
    }
    let mut drawn: BTreeMap<u64, (usize, Vec<SampledToken>)> = BTreeMap::new();
    loop {
        let finished = generator.poll().unwrap();
        if finished.is_empty() {
            break;
        }
        for Finished { id, tokens, .. } in finished {
            let index = names[&id];
            let (turns, all) = drawn.entry(index).or_default();
            *turns += 1;
            all.extend(tokens);
            if *turns == 1 {
                generator.extend(id, &[1, 2, 3 + index as u32 % 5], turn(1000 + index, 6)).unwrap();
            } else {
                generator.release(id);
            }
        }
    }
    let statistics = generator.statistics();
    (drawn.into_iter().map(|(index, (_, tokens))| (index, tokens)).collect(), statistics)
}

fn tiny() -> (ModelConfig, HostWeights) {
    let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
    let weights = HostWeights::init(&config, 5);
    (config, weights)
}

fn assert_same(found: &BTreeMap<u64, Vec<SampledToken>>, expected: &BTreeMap<u64, Vec<SampledToken>>, what: &str) {
    let ids = |tokens: &BTreeMap<u64, Vec<SampledToken>>| -> Vec<Vec<u32>> {
        tokens.values().map(|tokens| tokens.iter().map(|token| token.id).collect()).collect()
    };
    assert_eq!(ids(found), ids(expected), "{what}");
    for (found, expected) in found.values().flatten().zip(expected.values().flatten()) {
        let close = |a: f32, b: f32| (a - b).abs() < 1e-4;
        assert!(close(found.logprob, expected.logprob), "{what}: {found:?} for {expected:?}");
        match (found.sampling_logprob, expected.sampling_logprob) {
            (None, None) => {}
            (Some(found), Some(expected)) if close(found, expected) => {}
            _ => panic!("{what}: {found:?} for {expected:?}"),
        }
    }
}

#[test]
fn sampled_tokens_are_the_hosts_in_f32_and_in_bf16() {
    let (config, weights) = tiny();
    let order: Vec<u64> = (0..12).collect();
    for dtype in [WeightDtype::F32, WeightDtype::Bf16] {
        let on = |device: &Device| LocalGenerator::on(device, dtype, &config, &weights, &[96]).unwrap();
        let ((found, _), (expected, _)) = (play(on(&gpu()), &order), play(on(&Device::flex()), &order));
        assert_same(&found, &expected, &format!("{dtype:?}"));
    }
}

#[test]
fn a_sequence_is_the_same_to_the_bit_in_any_batch_order_and_memory() {
    let (config, weights) = tiny();
    let generator = || LocalGenerator::on(&gpu(), WeightDtype::F32, &config, &weights, &[96]).unwrap();
    let order: Vec<u64> = (0..12).collect();
    let (expected, _) = play(generator(), &order);
    let shuffled: Vec<u64> = (0..12).map(|i| (i * 7 + 5) % 12).collect();
    assert_eq!(play(generator().with_max_batch(3), &shuffled).0, expected);
    let alone = order.iter().flat_map(|index| play(generator(), &[*index]).0);
    assert_eq!(alone.collect::<BTreeMap<_, _>>(), expected);
    // A block is two layers of keys and values of two heads, twelve wide.
    let (found, statistics) = play(generator().with_cache_bytes(20 * 16 * 2 * 2 * 2 * 12 * 4), &order);
    assert!(statistics.evicted > 0, "{statistics:?}");
    assert_eq!(found, expected);
}

#[test]
fn greedy_continuations_of_every_family_are_the_hosts() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        let continuations = |device: &Device| {
            let mut generator = LocalGenerator::on(device, WeightDtype::F32, &config, &weights, &[]).unwrap();
            for length in [1, 17, 300] {
                let prompt: Vec<u32> = (0..length).map(|i| (i * i * 31 + 7) % config.vocab_size as u32).collect();
                let request = Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(0, 8) };
                generator.start(request).unwrap();
            }
            let mut all = BTreeMap::new();
            while all.len() < 3 {
                all.extend(generator.poll().unwrap().into_iter().map(|turn| (turn.id.0, turn.tokens)));
            }
            all
        };
        assert_same(&continuations(&gpu()), &continuations(&Device::flex()), name);
    }
}

#[test]
fn a_policy_on_the_device_is_decoded_with_its_present_weights() {
    let (config, weights) = tiny();
    let device = gpu();
    let first = Decoder::frozen(&config, &weights, &device).unwrap();
    let second = Decoder::frozen(&config, HostWeights::init(&config, 6), &device).unwrap();
    let mut generator = LocalGenerator::of(&first, &[]).unwrap();
    let greedy = |generator: &mut LocalGenerator| {
        let request = Request { prompt: &[3, 1, 4], sampling: Sampling::greedy(), turn: turn(0, 12) };
        let id = generator.start(request).unwrap();
        let tokens = generator.poll().unwrap().remove(0).tokens;
        generator.release(id);
        tokens
    };
    let before = greedy(&mut generator);
    generator.sleep().unwrap();
    generator.refit_from(&second, WeightVersion(1)).unwrap();
    let after = greedy(&mut generator);
    for (decoder, tokens) in [(&first, &before), (&second, &after)] {
        let all: Vec<u32> = [3, 1, 4].into_iter().chain(tokens.iter().map(|token| token.id)).collect();
        let positions: Vec<usize> = (3..all.len()).collect();
        let scored = decoder.score(&[ScoredSequence { tokens: &all, positions: &positions }]).0;
        for (token, scored) in tokens.iter().zip(scored.into_data().try_to_vec::<f32>().unwrap()) {
            assert!((token.logprob - scored).abs() < 1e-4, "{token:?}, by the decoder {scored}");
        }
    }
    assert_ne!(before, after);
}

#[test]
fn an_optimizer_writes_the_weights_of_a_generator_that_lends_them() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        let mut decoder = Decoder::trainable(&config, &weights, &gpu()).unwrap();
        let mut generator = LocalGenerator::of(&decoder, &[]).unwrap();
        let draw = |generator: &mut LocalGenerator| {
            let request = Request { prompt: &[3, 1, 4, 1], sampling: Sampling::greedy(), turn: turn(0, 12) };
            let id = generator.start(request).unwrap();
            let tokens = generator.poll().unwrap().remove(0).tokens;
            generator.release(id);
            tokens
        };
        let before = draw(&mut generator);
        let mut optimizer = AdamW::new(AdamWConfig::default());
        for version in 1..=2 {
            optimizer.write_also(generator.lend_copies(&decoder));
            for _ in 0..version {
                let scored = [ScoredSequence { tokens: &[3, 1, 4, 1, 5, 9], positions: &[2, 3, 4, 5] }];
                let gradients = Gradients::of(decoder.score(&scored).0.sum(), decoder.trained());
                optimizer.step(decoder.trained_mut(), gradients, 0.01);
            }
            generator.take_written(WeightVersion(version));
            assert_eq!(generator.weight_version(), WeightVersion(version));
            let mut filled = LocalGenerator::of(&decoder, &[]).unwrap();
            assert_eq!(draw(&mut generator), draw(&mut filled), "{name}");
        }
        assert_ne!(draw(&mut generator), before, "{name}");
        assert!(generator.lend_copies(&decoder.replica(&Device::flex())).is_none());
    }
}

#[test]
fn the_generators_logprobs_are_the_trainers_to_the_bit() {
    assert_generator_and_trainer_agree(&gpu());
}

#[test]
fn training_of_every_family_goes_as_on_the_host() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        // Two prompts that are shared, and one sequence of its own.
        let examples: Vec<SftExample> = [(0, 20, 9), (0, 20, 30), (1, 7, 17), (1, 7, 1), (2, 1, 40)]
            .iter()
            .zip(1..)
            .map(|((prompt, length, learnt), seed)| {
                let tokens =
                    |seed: u32, count: u32| (0..count).map(move |i| (i * i * 31 + seed * 7) % config.vocab_size as u32);
                let prompt: Vec<u32> = tokens(*prompt, *length).collect();
                SftExample::completion(&prompt, &tokens(seed + 10, *learnt).collect::<Vec<_>>())
            })
            .collect();
        let steps = |device: &Device, gradient_checkpointing: bool| -> Vec<[f64; 2]> {
            let settings = SftConfig {
                learning_rate: LearningRate::cosine(1e-3, 0, 4, 1.0),
                optimizer: AdamWConfig::default(),
                gradient_norm: 1.0,
                micro_batch_tokens: 64,
                gradient_checkpointing,
            };
            let mut trainer = SftTrainer::new(&config, &weights, settings, device).unwrap();
            (0..4).map(|_| trainer.step(&examples).map(|report| [report.loss, report.gradient_norm]).unwrap()).collect()
        };
        let expected = steps(&Device::flex(), false);
        assert!(expected[3][0] < expected[0][0], "{name}: {expected:?}");
        for gradient_checkpointing in [false, true] {
            let found = steps(&gpu(), gradient_checkpointing);
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // A gradient near zero moves its weight up in one sum and down in the other.
                let near = if step == 0 { 1e-5 } else { 2e-3 };
                let close = |index: usize| (found[index] - expected[index]).abs() < near * expected[index].abs();
                assert!(close(0) && close(1), "{name}, step {step}: {found:?} for {expected:?}");
            }
        }
    }
}
