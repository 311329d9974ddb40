//! New weights for a generator: packed after an update, with its memory given back or kept, or written by the optimizer.

use std::time::Instant;

use serde_json::{Value, json};
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Generator, RolloutGenerator, WeightVersion};
use zerosearch::lm::{
    AdamW, AdamWConfig, Decoder, Gradients, HostWeights, LocalGenerator, ModelConfig, Refit, ScoredSequence,
};

use crate::turns::{run, start, tokens};

/// Sequences that are decoded afterwards, and their tokens.
const DECODED: (u64, usize) = (8, 16);

/// The least of a few seconds, by way.
pub(crate) fn measure(device: &Device, config: &ModelConfig) -> Result<Value, Failure> {
    let mut decoder = Decoder::trainable(config, HostWeights::init(config, 0), device)?;
    let mut generator = LocalGenerator::of(&decoder, &[])?;
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let all = tokens(config.vocab_size, 32, 1);
    let positions: Vec<usize> = (1..all.len()).collect();
    let mut seconds = Vec::new();
    for _ in 0..4 {
        let mut round = Vec::new();
        for way in ["asleep", "awake", "written"] {
            let scored = [ScoredSequence { tokens: &all, positions: &positions }];
            let gradients = Gradients::of(decoder.score(&scored).0.mean().neg(), decoder.trained());
            device.sync()?;
            match way {
                "asleep" => generator.sleep()?,
                "written" => optimizer.write_also(generator.lend_copies(&decoder)),
                _ => {}
            }
            let began = Instant::now();
            optimizer.step(decoder.trained_mut(), gradients, 1e-5);
            device.sync()?;
            let stepped = began.elapsed().as_secs_f64();
            optimizer.write_also(None);
            let began = Instant::now();
            match way {
                "written" => generator.take_written(WeightVersion(1)),
                _ => generator.refit_from(&decoder, WeightVersion(1))?,
            }
            let refitted = began.elapsed().as_secs_f64();
            let began = Instant::now();
            for seed in 0..DECODED.0 {
                start(&mut generator, &tokens(config.vocab_size, 32, seed), seed, DECODED.1)?;
            }
            for turn in run(&mut generator)? {
                generator.release(turn.id);
            }
            round.push([stepped, refitted, began.elapsed().as_secs_f64()]);
        }
        seconds.push(round);
    }
    // The first round compiles.
    let least = |way: usize, part: usize| {
        seconds[1..].iter().map(|round: &Vec<[f64; 3]>| round[way][part]).fold(f64::INFINITY, f64::min)
    };
    let of = |way| json!({ "optimizer_s": least(way, 0), "refit_s": least(way, 1), "decoding_s": least(way, 2) });
    Ok(json!({ "asleep": of(0), "awake": of(1), "written": of(2) }))
}
