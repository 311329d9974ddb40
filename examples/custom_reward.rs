//! A reward of your own, beside the built-in ones, on two episodes written as literals.
//!
//!     cargo run --release --example custom_reward
//!
//! A reward is a pure function of an episode's text, by author. It sees no prompt, so an example answer there earns nothing.

use zerosearch::Failure;
use zerosearch::reward::{ContainsReward, Episode, ExactMatchReward, F1Reward, RewardFn, Weighted};

/// 1 for an answer whose words were all read in a document: the policy did not make it up.
struct Grounded;

impl RewardFn for Grounded {
    fn name(&self) -> &str {
        "grounded"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        let Some(answer) = episode.answer() else { return 0.0 };
        let read = episode.observations.concat().to_lowercase();
        let found = answer.to_lowercase().split_whitespace().all(|word| read.contains(word));
        f32::from(u8::from(found))
    }
}

fn main() -> Result<(), Failure> {
    let golden = ["Lima".to_string()];
    let documents = ["\n\n<information>Doc 1: Lima is the capital of Peru.</information>\n\n".to_string()];
    let searched = [
        "<think>I look it up.</think><search> capital of Peru </search>".to_string(),
        "<think>Found it.</think><answer> the city of Lima </answer>".to_string(),
    ];
    let guessed = ["<think>I know it.</think><answer> Lima </answer>".to_string()];
    let question = "What is the capital of Peru?";
    let episodes = [
        ("searched", Episode { question, golden_answers: &golden, policy_turns: &searched, observations: &documents }),
        ("guessed", Episode { question, golden_answers: &golden, policy_turns: &guessed, observations: &[] }),
    ];

    // F1 is the method's reward; the weighted sum pays half as much again for an answer that was read.
    let mixed = Weighted::new("f1 + 0.5 grounded", vec![(1.0, Box::new(F1Reward)), (0.5, Box::new(Grounded))])?;
    let rewards: [&dyn RewardFn; 5] = [&F1Reward, &ExactMatchReward, &ContainsReward, &Grounded, &mixed];
    for (name, episode) in &episodes {
        println!("{name}: answer {:?}", episode.answer());
        for reward in rewards {
            println!("  {:32} {:.3}", reward.name(), reward.reward(episode));
        }
    }

    let [searched, guessed] = episodes.map(|(_, episode)| episode);
    // "the city of Lima" has three words that count; one of them is golden: precision 1/3, recall 1.
    assert!((F1Reward.reward(&searched) - 0.5).abs() < 1e-6);
    assert_eq!((ExactMatchReward.reward(&searched), ContainsReward.reward(&searched)), (0.0, 1.0));
    assert_eq!((Grounded.reward(&searched), Grounded.reward(&guessed)), (0.0, 0.0), "nobody read `city`");
    assert_eq!(F1Reward.reward(&guessed), 1.0);
    Ok(())
}
