//! The results of a training pass do not depend on the sequences beside, on shared prompts, or on what is kept for the
//! backward pass; and it is what the generator recorded. All to the bit, save sums of gradients over sequences.

mod families;
mod rollouts;

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use families::FAMILIES;
use rollouts::{Sampled, adapters, assert_generator_and_trainer_agree, load, numbers, sampled_by, scored};
use zerosearch_generate::Stream;
use zerosearch_lm::{Decoder, Gradients, HostWeights, LocalGenerator, LoraConfig, ModelConfig, ScoredSequence, Weight};

fn sampled(config: &ModelConfig, weights: &HostWeights) -> Vec<Sampled> {
    sampled_by(LocalGenerator::new(config, weights, &[]).unwrap(), config, &[2])
}

/// A loss to which every log-probability and entropy contributes in its own way.
fn loss((logprobs, entropies): (Tensor<1>, Tensor<1>)) -> Tensor<1> {
    (logprobs.clone() * logprobs * 0.1 + entropies * 0.03).sum()
}

/// Of the angle between two gradients.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn by_name(gradients: &Gradients, decoder: &Decoder) -> BTreeMap<String, Vec<f32>> {
    let of = |name: &str| match gradients.get(name)? {
        Weight::Matrix(gradient) => Some(numbers(gradient.clone())),
        Weight::Vector(gradient) => Some(numbers(gradient.clone())),
    };
    decoder.trained().into_iter().filter_map(|(name, _)| Some((name.to_string(), of(name)?))).collect()
}

#[test]
fn the_generators_logprobs_are_the_trainers_to_the_bit_after_several_turns_and_in_groups() {
    assert_generator_and_trainer_agree(&Device::flex());
}

#[test]
fn weights_in_bf16_are_rounded_alike_by_generator_and_trainer() {
    // Some families' weights are such numbers already.
    let mut rounding_shows = 0;
    for name in FAMILIES {
        let (config, weights) = load(name);
        let (device, lora) = (Device::flex(), LoraConfig::default());
        let exact = Decoder::trainable(&config, &weights, &device).unwrap();
        let adapted = Decoder::with_lora(&config, &weights, &lora, &adapters(&lora, &config), &device).unwrap();
        for exact in [exact, adapted] {
            let rounded = exact.clone().with_bf16_weights(true);
            let sampled = sampled_by(LocalGenerator::of(&rounded, &[]).unwrap(), &config, &[2]);
            let recorded: Vec<f32> = sampled.iter().flat_map(|s| &s.logprobs).copied().collect();
            let run = |decoder: &Decoder, gradient_checkpointing| {
                let pass = decoder.pass(&scored(&sampled), gradient_checkpointing);
                let (logprobs, entropies) = pass.score(&scored(&sampled));
                let mut gradients = Gradients::default();
                pass.backward(loss((logprobs.clone(), entropies)), &mut gradients);
                (numbers(logprobs), by_name(&gradients, decoder))
            };
            let (logprobs, gradients) = run(&rounded, false);
            assert_eq!(logprobs, recorded, "{name}");
            assert_eq!(run(&rounded, true), (recorded.clone(), gradients.clone()), "{name}");
            let (unrounded, expected) = run(&exact, false);
            let worst = unrounded.iter().zip(&recorded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.1, "{name}: {worst}");
            rounding_shows += usize::from(worst > 1e-5);
            assert_eq!(gradients.len(), expected.len(), "{name}");
            for (parameter, expected) in &expected {
                let cosine = cosine(expected, &gradients[parameter]);
                assert!(cosine > 0.99, "{name} {parameter}: {cosine}");
            }
        }
    }
    assert!(rounding_shows > FAMILIES.len());
}

#[test]
fn gradient_checkpointing_changes_no_bit_of_a_gradient() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        let sampled = sampled(&config, &weights);
        let lora = LoraConfig { dropout: 0.2, ..LoraConfig::default() };
        let adapters = adapters(&lora, &config);
        let device = Device::flex();
        let with_lora = Decoder::with_lora(&config, &weights, &lora, &adapters, &device).unwrap();
        for decoder in [Decoder::trainable(&config, &weights, &device).unwrap(), with_lora] {
            let decoder = decoder.with_dropout(Stream::default());
            let gradients = |gradient_checkpointing| {
                let pass = decoder.pass(&scored(&sampled), gradient_checkpointing);
                let loss = loss(pass.score(&scored(&sampled)));
                let mut gradients = Gradients::default();
                pass.backward(loss, &mut gradients);
                by_name(&gradients, &decoder)
            };
            let plain = gradients(false);
            assert_eq!(plain.len(), decoder.trained().len(), "{name}");
            assert!(plain.values().all(|gradient| gradient.iter().any(|value| *value != 0.0)), "{name}");
            let again = gradients(true);
            assert_eq!(again.len(), plain.len(), "{name}");
            for (parameter, gradient) in &plain {
                assert_eq!(gradient, &again[parameter], "{name} {parameter}");
            }
        }
    }
}

#[test]
fn what_sequences_share_changes_a_gradient_by_rounding_only() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        let sampled = sampled(&config, &weights);
        let decoder = Decoder::trainable(&config, &weights, &Device::flex()).unwrap();
        let add = |gradients: &mut Gradients, sequences: &[ScoredSequence<'_>]| {
            let pass = decoder.pass(sequences, false);
            let loss = loss(pass.score(sequences));
            pass.backward(loss, gradients);
        };
        let (mut apart, mut together) = (Gradients::default(), Gradients::default());
        scored(&sampled).into_iter().for_each(|sequence| add(&mut apart, &[sequence]));
        add(&mut together, &scored(&sampled));
        let (apart, together) = (by_name(&apart, &decoder), by_name(&together, &decoder));
        for (parameter, expected) in &apart {
            let size = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (expected, found) in expected.iter().zip(&together[parameter]) {
                assert!(
                    (expected - found).abs() <= 2e-5 * size,
                    "{name} {parameter}: {found} for {expected} of {size}"
                );
            }
        }
    }
}

#[test]
fn products_in_bf16_give_nearly_the_same_gradients_in_f32() {
    for name in FAMILIES {
        let (config, weights) = load(name);
        let sampled = sampled(&config, &weights);
        let run = |bf16, gradient_checkpointing| {
            let decoder = Decoder::trainable(&config, &weights, &Device::flex()).unwrap().with_bf16_activations(bf16);
            let pass = decoder.pass(&scored(&sampled), gradient_checkpointing);
            let (logprobs, entropies) = pass.score(&scored(&sampled));
            assert_eq!((logprobs.dtype(), entropies.dtype()), (DType::F32, DType::F32));
            let mut gradients = Gradients::default();
            pass.backward(loss((logprobs.clone(), entropies)), &mut gradients);
            (numbers(logprobs), by_name(&gradients, &decoder))
        };
        let (exact, exact_gradients) = run(false, false);
        let (rounded, gradients) = run(true, false);
        assert_eq!(run(true, true).1, gradients, "{name}");
        let worst = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 1e-5 && worst < 0.1, "{name}: {worst}");
        for (parameter, exact) in &exact_gradients {
            let cosine = cosine(exact, &gradients[parameter]);
            assert!(cosine > 0.99, "{name} {parameter}: {cosine}");
        }
    }
}

#[test]
fn sequences_that_are_equal_or_have_nothing_to_score_are_no_exception() {
    let (config, weights) = load(FAMILIES[2]);
    let decoder = Decoder::trainable(&config, &weights, &Device::flex()).unwrap();
    let sequence = |tokens: &'static [u32], positions: &'static [usize]| ScoredSequence { tokens, positions };
    let alone = numbers(decoder.score(&[sequence(&[5, 9, 2, 7], &[2, 3])]).0);
    let scored = [
        sequence(&[5, 9, 2, 7], &[]),
        sequence(&[5, 9, 2, 7], &[2, 3]),
        sequence(&[5, 9, 2, 7], &[2, 3]),
        sequence(&[5], &[]),
        sequence(&[5, 9, 2, 7, 1], &[2, 3]),
    ];
    for gradient_checkpointing in [false, true] {
        let pass = decoder.pass(&scored, gradient_checkpointing);
        let (logprobs, entropies) = pass.score(&scored);
        assert_eq!(numbers(logprobs.clone()), alone.repeat(3));
        let mut gradients = Gradients::default();
        pass.backward(loss((logprobs, entropies)), &mut gradients);
        assert!(by_name(&gradients, &decoder).values().flatten().all(|value| value.is_finite()));
    }
    let (logprobs, entropies) = decoder.score(&[]);
    assert_eq!((logprobs.dims(), entropies.dims()), ([0], [0]));
}
