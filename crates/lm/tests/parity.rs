//! Values of the reference implementation on tiny checkpoints of every family (`tests/tiny/`, made by
//! `gen_tiny_models.py`): the trainer's and the generator's log-probabilities, and greedy continuations.

mod families;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use families::{FAMILIES, folder};
use safetensors::SafeTensors;
use zerosearch_generate::{Generator, Request, Sampling, Turn, never};
use zerosearch_lm::{Decoder, HostWeights, LocalGenerator, ModelConfig, ScoredSequence};

struct Oracle(BTreeMap<String, Vec<f64>>);

impl Oracle {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("oracle.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: &safetensors::tensor::TensorView<'_>| match view.dtype() {
            safetensors::Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
            }
            _ => view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        };
        Self(file.tensors().iter().map(|(name, view)| (name.clone(), values(view))).collect())
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].iter().map(|id| *id as u32).collect()
    }
}

fn load(name: &str) -> (ModelConfig, HostWeights, Oracle) {
    let folder = folder(name);
    let (config, _) = ModelConfig::read(folder.join("config.json")).unwrap();
    let weights = HostWeights::read(&folder, &config).unwrap();
    (config, weights, Oracle::read(&folder))
}

#[test]
fn the_trainers_logprobs_and_entropies_are_the_references() {
    for name in FAMILIES {
        let (config, weights, oracle) = load(name);
        let decoder = Decoder::frozen(&config, &weights, &Device::flex()).unwrap();
        for prompt in 0..3 {
            let ids = oracle.ids(&format!("p{prompt}.ids"));
            let positions: Vec<usize> = (1..ids.len()).collect();
            // Beside another sequence, which may begin as this one does.
            let other = oracle.ids("p2.ids");
            let scored = [
                ScoredSequence { tokens: &ids, positions: &positions },
                ScoredSequence { tokens: &other, positions: &[1, 199] },
            ];
            let (logprobs, entropy) = decoder.score(&scored);
            let (logprobs, entropy): (Vec<f32>, Vec<f32>) =
                (logprobs.into_data().try_to_vec::<f32>().unwrap(), entropy.into_data().try_to_vec::<f32>().unwrap());
            for (kind, found, shift) in [("logprobs", &logprobs, 0), ("entropy", &entropy, 0)] {
                let expected = &oracle.0[&format!("p{prompt}.{kind}")];
                for (t, found) in found.iter().take(positions.len()).enumerate() {
                    let error = (f64::from(*found) - expected[t + shift]).abs();
                    assert!(error < 1e-4, "{name} p{prompt} {kind}[{t}]: {found} for {}", expected[t]);
                }
            }
        }
    }
}

#[test]
fn greedy_continuations_are_the_references_and_their_logprobs_the_trainers() {
    for name in FAMILIES {
        let (config, weights, oracle) = load(name);
        let decoder = Decoder::frozen(&config, &weights, &Device::flex()).unwrap();
        let mut generator = LocalGenerator::new(&config, &weights, &[]).unwrap();
        for prompt in 0..4 {
            let ids = oracle.ids(&format!("p{prompt}.ids"));
            let expected = oracle.ids(&format!("p{prompt}.generated"));
            let turn = Turn { max_new_tokens: expected.len(), seed: 0, stop: never(), deadline: None };
            generator.start(Request { prompt: &ids, sampling: Sampling::greedy(), turn }).unwrap();
            let finished = generator.poll().unwrap().pop().unwrap();
            let found: Vec<u32> = finished.tokens.iter().map(|token| token.id).collect();
            assert_eq!(found, expected, "{name} p{prompt}");
            let all = [ids.clone(), found].concat();
            let positions: Vec<usize> = (ids.len()..all.len()).collect();
            let scored: Vec<f32> = decoder
                .score(&[ScoredSequence { tokens: &all, positions: &positions }])
                .0
                .into_data()
                .try_to_vec::<f32>()
                .unwrap();
            let recorded: Vec<f32> = finished.tokens.iter().map(|token| token.logprob).collect();
            assert_eq!(recorded, scored, "{name}");
            generator.release(finished.id);
        }
    }
}
