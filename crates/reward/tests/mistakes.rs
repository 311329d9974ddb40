//! Mistakes of released implementations that this one does not make.

use zerosearch_reward::{ContainsReward, Episode, ExactMatchReward, F1Reward, RewardFn, contains, exact_match, f1};

fn reward(reward: &dyn RewardFn, golden: &[&str], turns: &[&str]) -> f32 {
    let golden: Vec<_> = golden.iter().map(|text| (*text).to_owned()).collect();
    let turns: Vec<_> = turns.iter().map(|text| (*text).to_owned()).collect();
    reward.reward(&Episode { question: "q", golden_answers: &golden, policy_turns: &turns, observations: &[] })
}

#[test]
fn em_is_not_containment() {
    for prediction in ["Not Paris", "I think the answer is Paris", "Parisian"] {
        assert!(contains(prediction, &["Paris"]));
        assert!(!exact_match(prediction, &["Paris"]));
        let turn = format!("<answer>{prediction}</answer>");
        assert_eq!(reward(&ExactMatchReward, &["Paris"], &[&turn]), 0.0);
        assert_eq!(reward(&ContainsReward, &["Paris"], &[&turn]), 1.0);
    }
}

#[test]
fn f1_is_not_logged_as_em() {
    let turns = ["<answer>Paris, France</answer>"];
    assert_eq!(reward(&F1Reward, &["Paris"], &turns), 2.0 / 3.0);
    assert_eq!(reward(&ExactMatchReward, &["Paris"], &turns), 0.0);
    let rewards: [&dyn RewardFn; 3] = [&F1Reward, &ExactMatchReward, &ContainsReward];
    assert_eq!(rewards.map(RewardFn::name), ["f1", "em", "contains"]);
}

#[test]
fn the_example_answer_of_the_prompt_is_not_the_policy_s() {
    let prompt = "… put the answer between tags, for example <answer> Beijing </answer>. Question: capital of China?";
    let (golden, turns) = (["Beijing".to_owned()], ["<think>I do not know.</think>".to_owned()]);
    let episode = Episode { question: prompt, golden_answers: &golden, policy_turns: &turns, observations: &[] };
    assert_eq!(F1Reward.reward(&episode), 0.0);

    // And the policy's only answer is not taken for the example.
    assert_eq!(reward(&F1Reward, &["Beijing"], &["<answer>Beijing</answer>"]), 1.0);
}

#[test]
fn an_answer_in_a_document_is_not_the_policy_s() {
    let golden = ["Lima".to_owned()];
    let turns = ["<search>capital of Peru</search>".to_owned(), "<think>It is clear.</think>".to_owned()];
    let observations = ["<information>Doc 1: <answer>Lima</answer></information>".to_owned()];
    let episode = Episode { question: "q", golden_answers: &golden, policy_turns: &turns, observations: &observations };
    assert_eq!(episode.answer(), None);
    assert_eq!(ContainsReward.reward(&episode), 0.0);
}

#[test]
fn every_golden_alias_counts() {
    let golden = ["4,485 metres above sea level", "4,485", "4485 m"];
    for (position, alias) in golden.iter().enumerate() {
        let turn = format!("<answer>{alias}</answer>");
        assert!(exact_match(alias, &golden), "alias {position}");
        assert_eq!(f1(alias, &golden), 1.0, "alias {position}");
        assert_eq!(reward(&F1Reward, &golden, &[&turn]), 1.0, "alias {position}");
        assert_eq!(reward(&ExactMatchReward, &golden, &[&turn]), 1.0, "alias {position}");
    }
    assert!(contains("it is 4485 m high", &golden));
}
