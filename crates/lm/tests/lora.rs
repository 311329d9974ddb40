//! Low-rank adapters: what they change, what is trained, how they are stored.

use burn::tensor::Device;
use zerosearch_generate::{Generator, Request, Sampling, Stream, Turn, never};
use zerosearch_lm::{
    AdamWConfig, Decoder, HostTensor, HostWeights, LearningRate, LocalGenerator, LoraConfig, ModelConfig,
    ScoredSequence, SftConfig, SftExample, SftTrainer,
};

fn config() -> ModelConfig {
    ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80)
}

fn lora() -> LoraConfig {
    let target_modules = vec!["q_proj".into(), "v_proj".into(), "down_proj".into()];
    LoraConfig { rank: 4, alpha: 8.0, target_modules, ..LoraConfig::default() }
}

const TOKENS: [u32; 9] = [5, 9, 33, 2, 9, 71, 14, 8, 60];

fn logprobs(decoder: &Decoder) -> Vec<f32> {
    let positions: Vec<usize> = (1..TOKENS.len()).collect();
    let scored = ScoredSequence { tokens: &TOKENS, positions: &positions };
    decoder.score(&[scored]).0.into_data().try_to_vec::<f32>().unwrap()
}

/// A decoder whose adapters have learnt something.
fn trained() -> (HostWeights, Decoder) {
    trained_as(&lora())
}

fn trained_as(lora: &LoraConfig) -> (HostWeights, Decoder) {
    let weights = HostWeights::init(&config(), 5);
    let adapters = lora.initial(&config(), 1);
    let decoder = Decoder::with_lora(&config(), &weights, lora, &adapters, &Device::flex()).unwrap();
    let sft = SftConfig {
        learning_rate: LearningRate::cosine(1e-2, 0, 10, 1.0),
        optimizer: AdamWConfig::default(),
        gradient_norm: 1.0,
        micro_batch_tokens: 1000,
        gradient_checkpointing: false,
    };
    let mut trainer = SftTrainer::of(decoder, sft);
    let example = SftExample::completion(&TOKENS[..3], &TOKENS[3..]);
    let losses: Vec<f64> = (0..10).map(|_| trainer.step(std::slice::from_ref(&example)).unwrap().loss).collect();
    assert!(losses[9] < losses[0], "{losses:?}");
    (weights, trainer.decoder().clone())
}

#[test]
fn fresh_adapters_change_nothing_and_trained_ones_only_themselves() {
    let weights = HostWeights::init(&config(), 5);
    let fresh =
        Decoder::with_lora(&config(), &weights, &lora(), &lora().initial(&config(), 1), &Device::flex()).unwrap();
    let plain = Decoder::frozen(&config(), &weights, &Device::flex()).unwrap();
    assert_eq!(logprobs(&fresh), logprobs(&plain));
    assert_eq!(fresh.trained().len(), 2 * 3 * 2, "two matrices for three modules in two layers");

    let (_, decoder) = trained();
    assert_ne!(logprobs(&decoder), logprobs(&plain));
    assert_eq!(logprobs(&decoder.without_lora()), logprobs(&plain), "the reference is the base");
}

#[test]
fn the_merged_weights_sample_what_the_adapters_score() {
    let (_, decoder) = trained();
    let mut generator = LocalGenerator::new(&config(), &decoder.to_host(), &[]).unwrap();
    let turn = Turn { max_new_tokens: 12, seed: 4, stop: never(), deadline: None };
    generator.start(Request { prompt: &TOKENS, sampling: Sampling::default(), turn }).unwrap();
    let sampled = generator.poll().unwrap().remove(0).tokens;
    let all: Vec<u32> = TOKENS.iter().copied().chain(sampled.iter().map(|token| token.id)).collect();
    let positions: Vec<usize> = (TOKENS.len()..all.len()).collect();
    let scored = decoder.score(&[ScoredSequence { tokens: &all, positions: &positions }]).0;
    for (token, scored) in sampled.iter().zip(scored.into_data().try_to_vec::<f32>().unwrap()) {
        assert!((token.logprob - scored).abs() < 1e-5, "{} and {scored}", token.logprob);
    }
}

#[test]
fn merging_can_be_undone() {
    let (weights, decoder) = trained();
    let (lora, adapters) = decoder.lora().unwrap();
    let mut merged = weights.clone();
    lora.merge(&mut merged, &adapters).unwrap();
    assert_ne!(merged, weights);
    lora.unmerge(&mut merged, &adapters).unwrap();
    for ((name, before), (_, after)) in weights.iter().zip(merged.iter()) {
        let error = before.values.iter().zip(&after.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-6, "{name}: {error}");
    }
}

#[test]
fn adapters_are_stored_as_peft_stores_them() {
    let (_, decoder) = trained_as(&LoraConfig { dropout: 0.05, ..lora() });
    let (lora, adapters) = decoder.lora().unwrap();
    let folder = tempfile::tempdir().unwrap();
    lora.save(folder.path(), &adapters).unwrap();
    // As an editor leaves it.
    let path = folder.path().join("adapter_config.json");
    std::fs::write(&path, format!("\u{feff}{}", std::fs::read_to_string(&path).unwrap())).unwrap();
    let text = std::fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
    assert!(text.contains("\"lora_dropout\": 0.05"), "{text}");
    let (read, same) = LoraConfig::read(folder.path(), &config()).unwrap();
    assert_eq!((&read, &same), (lora, &adapters));
    let stored = HostWeights::read_file(folder.path().join("adapter_model.safetensors")).unwrap();
    let name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    assert_eq!(stored.get(name).unwrap().shape, [24, 4]);

    let other = ModelConfig::tiny_llama(97, 32, 2, 4, 2, 80);
    assert!(LoraConfig::read(folder.path(), &other).unwrap_err().to_string().contains("weight` has shape"));
    let path = folder.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"bias\": \"none\"", "\"bias\": \"all\"");
    std::fs::write(&path, text).unwrap();
    assert!(LoraConfig::read(folder.path(), &config()).unwrap_err().to_string().contains("`bias`"));
}

#[test]
fn adapters_that_are_not_what_their_configuration_says_are_refused() {
    let (_, decoder) = trained();
    let (lora, adapters) = decoder.lora().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut HostWeights)| {
        let mut adapters = adapters.clone();
        change(&mut adapters);
        lora.save(folder.path(), &adapters).unwrap();
        LoraConfig::read(folder.path(), &config()).unwrap_err().to_string()
    };
    let name = "model.layers.0.self_attn.q_proj.lora_A.weight";
    let tensor =
        |shape: [usize; 2], value| HostTensor { shape: shape.to_vec(), values: vec![value; shape[0] * shape[1]] };
    let message = refused(&|adapters| adapters.insert("model.embed_tokens.weight", tensor([97, 48], 0.0)));
    assert!(message.contains("embed_tokens.weight` is not part of"), "{message}");
    let message = refused(&|adapters| adapters.insert(name, tensor([4, 48], f32::NAN)));
    assert!(message.contains(name) && message.contains("not finite"), "{message}");
    let message = refused(&|adapters| *adapters = HostWeights::default());
    assert!(message.contains("is missing; adapter_config.json asks for it"), "{message}");

    lora.save(folder.path(), &adapters).unwrap();
    let path = folder.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (key, value) in
        [("modules_to_save", r#"["lm_head"]"#), ("alpha_pattern", r#"{"q_proj":32}"#), ("use_dora", "true")]
    {
        std::fs::write(&path, text.replacen('{', &format!("{{\"{key}\": {value},"), 1)).unwrap();
        let message = LoraConfig::read(folder.path(), &config()).unwrap_err().to_string();
        assert!(
            message.contains("adapter_config.json") && message.contains(&format!("`{key}` is {value}")),
            "{message}"
        );
    }
}

#[test]
fn dropout_belongs_to_a_training_pass_and_its_stream() {
    let lora = LoraConfig { dropout: 0.3, ..lora() };
    let (_, decoder) = trained_as(&lora);
    let stream = |step| Stream { seed: 7, purpose: "dropout", step, ..Stream::default() };
    let plain = logprobs(&decoder);
    let dropped = logprobs(&decoder.with_dropout(stream(0)));
    assert_ne!(dropped, plain);
    assert_eq!(logprobs(&decoder.with_dropout(stream(0))), dropped, "the same stream, the same draws");
    assert_ne!(logprobs(&decoder.with_dropout(stream(1))), dropped);
    assert_eq!(logprobs(&decoder), plain, "a pass without a stream has none");
    assert_eq!(
        logprobs(&decoder.with_dropout(stream(0)).without_lora()),
        logprobs(&decoder.without_lora()),
        "the base has none"
    );
    let (_, again) = trained_as(&lora);
    assert_eq!(logprobs(&again), plain, "training with dropout repeats itself");

    let (_, without) = trained();
    assert_ne!(logprobs(&without), plain, "it was on in training");
    assert_eq!(logprobs(&without.with_dropout(stream(0))), logprobs(&without), "0 is none");
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (bad, key) in [
        (LoraConfig { rank: 0, ..lora() }, "`rank`"),
        (LoraConfig { alpha: f64::NAN, ..lora() }, "`alpha`"),
        (LoraConfig { dropout: 1.0, ..lora() }, "`dropout`"),
        (LoraConfig { dropout: f64::NAN, ..lora() }, "`dropout`"),
        (LoraConfig { target_modules: vec!["lm_head".into()], ..lora() }, "`lm_head`"),
        (LoraConfig { target_modules: Vec::new(), ..lora() }, "`target_modules`"),
    ] {
        let message = bad.validate().unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}
