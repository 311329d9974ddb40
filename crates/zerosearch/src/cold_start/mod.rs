//! A cold start: a policy learns the form of an episode from a few scripted ones before reinforcement learning.
//!
//! A [`Demonstration`] is a question with what a policy writes, turn by turn. It is played against a real engine by the loop that
//! collects rollouts, so that prompt, documents and token boundaries are those of the training that follows; the loss is on the policy's
//! turns alone.

mod config;
mod demonstration;
mod play;

use burn::tensor::Device;
use zerosearch_lm::{LanguageModel, SftExample};
use zerosearch_rollout::Rollout;

pub use config::ColdStartConfig;
pub use demonstration::{Demonstration, read_demonstrations};
pub use play::Stage;

use crate::pipeline::PipelineError;
use crate::pipeline::fine_tuning::FineTuning;

/// The base model, fine-tuned on played demonstrations, and the loss of each step. `seed` names every random draw.
///
/// # Errors
/// When the configuration is out of range, there is no rollout, one is longer than the model's context, or a loss is not finite.
pub fn cold_start(
    config: &ColdStartConfig,
    seed: u64,
    base: &LanguageModel,
    rollouts: &[Rollout],
    device: &Device,
) -> Result<(LanguageModel, Vec<f64>), PipelineError> {
    config.validate()?;
    if rollouts.is_empty() {
        return Err(PipelineError::Config {
            key: "rollouts",
            value: "empty".into(),
            expected: "at least one demonstration",
        });
    }
    let examples: Vec<SftExample> = rollouts.iter().map(example).collect();
    let tuning = FineTuning {
        steps: config.steps(examples.len()),
        batch: config.batch,
        learning_rate: config.learning_rate,
        lora: config.lora.as_ref(),
        micro_batch_tokens: config.micro_batch_tokens,
        gradient_checkpointing: config.gradient_checkpointing,
        gpu: config.gpu,
        seed,
    };
    tuning.run("fine-tune the policy", base, device, examples.len(), |row, _| Ok(examples[row].clone()))
}

/// Learns what the policy wrote.
fn example(rollout: &Rollout) -> SftExample {
    let positions: Vec<usize> = rollout.trajectory.mask().trained_positions().collect();
    SftExample { tokens: rollout.trajectory.tokens(), weights: vec![1.0; positions.len()], positions }
}

#[cfg(test)]
mod tests {
    use zerosearch_lm::{HostWeights, LoraConfig, ModelConfig};
    use zerosearch_rollout::RolloutConfig;
    use zerosearch_search::{Bm25Index, Document};
    use zerosearch_text::{PromptTemplate, SpecialTokens, train_bpe};

    use super::*;

    fn base() -> LanguageModel {
        let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
        let text = "<think> the capital of Peru is Lima </think> <search> </search> <answer> </answer>".repeat(9);
        let codec = train_bpe([text].into_iter(), 300, &[], &special).unwrap();
        let config = ModelConfig::tiny_llama(codec.vocab_size(), 16, 1, 2, 1, 32);
        LanguageModel::new(config.clone(), HostWeights::init(&config, 0), codec)
    }

    fn demonstration(turns: &[&str]) -> Demonstration {
        let turns = turns.iter().map(|turn| (*turn).to_owned()).collect();
        Demonstration { question: "Capital of Peru?".into(), golden_answers: vec!["Lima".into()], turns }
    }

    const TURNS: [&str; 2] =
        ["<think>I look.</think><search>Peru</search>", "<think>Found.</think><answer>Lima</answer>"];

    fn play(turns: &[&str], config: RolloutConfig) -> Result<Vec<Rollout>, PipelineError> {
        let base = base();
        let document = Document { contents: "Lima is the capital of Peru.".into(), ..Document::default() };
        let engine = Bm25Index::new([document]).unwrap();
        let prompt = PromptTemplate::new("Q: {{ question }}").unwrap();
        let stage = Stage { engine: &engine, codec: &base.codec, prompt: &prompt, rollout: config };
        stage.play(&[demonstration(&TURNS), demonstration(turns)])
    }

    #[test]
    fn a_policy_learns_its_own_turns_and_no_document() {
        let rollouts = play(&TURNS, RolloutConfig::default()).unwrap();
        let base = base();
        let example = example(&rollouts[0]);
        let learnt: Vec<u32> = example.positions.iter().map(|position| example.tokens[*position]).collect();
        assert_eq!(base.codec.decode(&learnt), TURNS.concat());
        let all = base.codec.decode(&example.tokens);
        assert!(all.starts_with("Q: Capital of Peru?") && all.contains("Doc 1: Lima is the capital of Peru."), "{all}");

        // Behind a random head adapters learn little.
        for (lora, most) in [(None, 0.9), (Some(LoraConfig { rank: 2, ..LoraConfig::default() }), 0.99)] {
            let config = ColdStartConfig { epochs: 15, batch: 2, learning_rate: 1e-2, lora, ..Default::default() };
            let (policy, losses) = cold_start(&config, 0, &base, &rollouts, &Device::flex()).unwrap();
            assert_eq!(losses.len(), 15);
            assert!(losses[14] < most * losses[0], "{losses:?}");
            assert_ne!(policy.weights, base.weights);
            let (again, _) = cold_start(&config, 0, &base, &rollouts, &Device::flex()).unwrap();
            assert_eq!(policy.weights, again.weights);
        }
    }

    #[test]
    fn a_demonstration_that_cannot_be_played_is_named_with_its_turn() {
        let default = RolloutConfig::default;
        for (turns, config, expected) in [
            (&["<think>a</think>"][..], default(), ["demonstration 2, turn 1", "<search>"]),
            (&["<search>a</search> and more", TURNS[1]], default(), ["demonstration 2, turn 1", "behind its action"]),
            (&TURNS[..1], default(), ["demonstration 2", "no turn with an <answer>"]),
            (&[TURNS[1], TURNS[1]], default(), ["demonstration 2", "1 of 2 turns"]),
            (&TURNS, RolloutConfig { max_new_tokens: 3, ..default() }, ["demonstration 1, turn 1", "`max_new_tokens`"]),
            (&TURNS, RolloutConfig { max_turns: 1, ..default() }, ["demonstration 1", "`max_turns`"]),
        ] {
            let message = play(turns, config).unwrap_err().to_string();
            assert!(expected.iter().all(|part| message.contains(part)), "{turns:?}: {message}");
        }
        let message = cold_start(&ColdStartConfig::default(), 0, &base(), &[], &Device::flex()).err().unwrap();
        assert!(message.to_string().contains("at least one demonstration"), "{message}");
    }
}
