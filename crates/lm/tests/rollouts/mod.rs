//! Rollouts of tiny models, and that a trainer says of them what the generator recorded.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zerosearch_generate::{Generator, Request, Sampling, TokenId, Turn, never};
use zerosearch_lm::{Decoder, HostWeights, LocalGenerator, LoraConfig, ModelConfig, ScoredSequence};

use crate::families::{FAMILIES, folder};

pub(crate) fn load(name: &str) -> (ModelConfig, HostWeights) {
    let folder = folder(name);
    let (config, _) = ModelConfig::read(folder.join("config.json")).unwrap();
    let weights = HostWeights::read(&folder, &config).unwrap();
    (config, weights)
}

/// Two questions, three samples each, of two turns with an observation between them; and sequences of their own.
pub(crate) struct Sampled {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) positions: Vec<usize>,
    pub(crate) logprobs: Vec<f32>,
}

/// Rollouts of two questions in groups of three, and of prompts `alone` that are so long.
pub(crate) fn sampled_by(mut generator: LocalGenerator, config: &ModelConfig, alone: &[u32]) -> Vec<Sampled> {
    let ids = |count: u32, factor: u32| (0..count).map(|i| (i * factor + 3) % config.vocab_size as u32).collect();
    let groups = [(37, 7), (20, 5)].map(|(length, factor)| [(); 3].map(|()| ids(length, factor)));
    let prompts: Vec<Vec<TokenId>> =
        groups.into_iter().flatten().chain(alone.iter().map(|length| ids(*length, 11))).collect();
    let turn = |seed| Turn { max_new_tokens: 5 + seed as usize % 9, seed, stop: never(), deadline: None };
    let mut sequences = BTreeMap::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let request = Request { prompt, sampling: Sampling::default(), turn: turn(index as u64) };
        let sampled = Sampled { tokens: prompt.clone(), positions: Vec::new(), logprobs: Vec::new() };
        sequences.insert(generator.start(request).unwrap(), (sampled, 0));
    }
    loop {
        let finished = generator.poll().unwrap();
        if finished.is_empty() {
            return sequences.into_values().map(|(sampled, _)| sampled).collect();
        }
        for finished in finished {
            let (sampled, turns) = sequences.get_mut(&finished.id).unwrap();
            let start = sampled.tokens.len();
            sampled.positions.extend(start..start + finished.tokens.len());
            sampled.tokens.extend(finished.tokens.iter().map(|token| token.id));
            sampled.logprobs.extend(finished.tokens.iter().map(|token| token.logprob));
            *turns += 1;
            if *turns == 1 {
                let observation: Vec<TokenId> = ids(11, 3);
                sampled.tokens.extend(&observation);
                generator.extend(finished.id, &observation, turn(100 + finished.id.0)).unwrap();
            }
        }
    }
}

/// Adapters that change something: fresh ones are zero on one side, which would leave the other without a gradient.
pub(crate) fn adapters(lora: &LoraConfig, config: &ModelConfig) -> HostWeights {
    let mut adapters = lora.initial(config, 1);
    for (name, a) in lora.initial(config, 2).iter() {
        if let Some(module) = name.strip_suffix("lora_A.weight") {
            let b = format!("{module}lora_B.weight");
            let mut tensor = adapters.get(&b).unwrap().clone();
            tensor.values.iter_mut().zip(a.values.iter().cycle()).for_each(|(b, a)| *b = *a);
            adapters.insert(b, tensor);
        }
    }
    adapters
}

pub(crate) fn scored(sampled: &[Sampled]) -> Vec<ScoredSequence<'_>> {
    sampled.iter().map(|s| ScoredSequence { tokens: &s.tokens, positions: &s.positions }).collect()
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The generator's log-probabilities are the trainer's to the bit, after several turns and in groups.
pub(crate) fn assert_generator_and_trainer_agree(device: &Device) {
    // The last one is longer than what a GPU attends to at a time.
    let lengths = &[2, 270];
    for name in FAMILIES {
        let (config, weights) = load(name);
        let decoder = Decoder::trainable(&config, &weights, device).unwrap();
        let sampled = sampled_by(LocalGenerator::of(&decoder, &[]).unwrap(), &config, lengths);
        let recorded: Vec<f32> = sampled.iter().flat_map(|s| &s.logprobs).copied().collect();
        assert_eq!(numbers(decoder.score(&scored(&sampled)).0), recorded, "{name}");
        let checkpointed = decoder.pass(&scored(&sampled), true).score(&scored(&sampled)).0;
        assert_eq!(numbers(checkpointed), recorded, "{name}");
        let alone = scored(&sampled).into_iter().flat_map(|sequence| numbers(decoder.score(&[sequence]).0));
        assert_eq!(alone.collect::<Vec<_>>(), recorded, "{name}");

        // The generator merges adapters, the trainer has them beside the weights.
        let lora = LoraConfig::default();
        let decoder = Decoder::with_lora(&config, &weights, &lora, &adapters(&lora, &config), device).unwrap();
        let sampled = sampled_by(LocalGenerator::of(&decoder, &[]).unwrap(), &config, lengths);
        let adapted: Vec<f32> = sampled.iter().flat_map(|s| &s.logprobs).copied().collect();
        assert_ne!(adapted, recorded, "{name}");
        assert_eq!(numbers(decoder.score(&scored(&sampled)).0), adapted, "{name}");
    }
}
