//! Properties of metrics and rewards, for every prediction, golden answer and episode.

use proptest::collection::vec;
use proptest::prelude::*;
use zerosearch_grammar::{EpisodeFormat, is_space};
use zerosearch_reward::{
    ContainsReward, Episode, ExactMatchReward, F1Reward, FormatReward, RewardFn, Weighted, contains, exact_match, f1,
    normalize_answer,
};

/// Text that is rich in what normalisation treats specially.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "a", "an", "the", "The", "Paris", "x", " ", "  ", "-", "_", "'", "’", "é", "\u{301}", "\u{1c}"
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Policy text that is rich in tags.
fn turn() -> impl Strategy<Value = String> {
    let tags = vec!["<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "Paris", " ", "<", "é"];
    vec(prop::sample::select(tags), 0..10).prop_map(|pieces| pieces.concat())
}

fn rewards() -> Vec<Box<dyn RewardFn>> {
    let weighted: Vec<(f32, Box<dyn RewardFn>)> =
        vec![(f32::MAX, Box::new(F1Reward)), (f32::MAX, Box::new(ContainsReward))];
    vec![
        Box::new(F1Reward),
        Box::new(ExactMatchReward),
        Box::new(ContainsReward),
        Box::new(FormatReward),
        Box::new(Weighted::new("sum", weighted).unwrap()),
    ]
}

proptest! {
    #[test]
    fn normalised_text_is_words_between_single_blanks(text in text()) {
        let normal = normalize_answer(&text);
        prop_assert!(!normal.contains(|c: char| c.is_ascii_punctuation() || c.is_ascii_uppercase()));
        prop_assert!(!normal.contains("  ") && !normal.starts_with(' ') && !normal.ends_with(' '));
        prop_assert!(normal.split(' ').all(|word| !matches!(word, "a" | "an" | "the")));
        prop_assert_eq!(normalize_answer(&normal), normal.clone(), "normalising twice changes nothing");
        prop_assert_eq!(normalize_answer(&format!("The, {text}!")), normal);
    }

    #[test]
    fn f1_is_symmetric_bounded_and_one_for_equal_words(a in text(), b in text()) {
        let (forward, backward) = (f1(&a, &[&b]), f1(&b, &[&a]));
        prop_assert!((0.0..=1.0).contains(&forward));
        // A golden answer that vanishes decides how the two are compared.
        if !normalize_answer(&a).is_empty() && !normalize_answer(&b).is_empty() {
            prop_assert_eq!(forward, backward);
        }
        if !a.chars().all(is_space) {
            prop_assert_eq!(f1(&a, &[&a]), 1.0);
            prop_assert!(exact_match(&a, &[&a]) && contains(&a, &[&a]));
            prop_assert!(!exact_match("", &[&a]) && !contains("", &[&a]));
        }
    }

    #[test]
    fn equality_implies_containment_and_a_full_f1(a in text(), golden in vec(text(), 0..4)) {
        if exact_match(&a, &golden) {
            prop_assert!(contains(&a, &golden));
            prop_assert!(f1(&a, &golden) == 1.0 || normalize_answer(&a).is_empty());
        }
    }

    #[test]
    fn another_golden_answer_never_lowers_a_score_and_their_order_does_not_matter(a in text(), golden in vec(text(), 1..5), more in text()) {
        let mut extended = golden.clone();
        extended.insert(0, more);
        prop_assert!(f1(&a, &extended) >= f1(&a, &golden));
        prop_assert!(exact_match(&a, &extended) >= exact_match(&a, &golden));
        prop_assert!(contains(&a, &extended) >= contains(&a, &golden));
        let reversed: Vec<_> = golden.iter().rev().collect();
        prop_assert_eq!(f1(&a, &golden), f1(&a, &reversed));
        prop_assert_eq!(exact_match(&a, &golden), exact_match(&a, &reversed));
    }

    #[test]
    fn an_answer_comes_back_whatever_was_said_before(before in vec(turn(), 0..3), thought in turn(), answer in "[^<]{0,12}") {
        let mut turns = before;
        turns.push(format!("{thought}<answer>{answer}</answer>"));
        prop_assert_eq!(normalize_answer(EpisodeFormat::default().extract_answer(&turns).unwrap()), normalize_answer(&answer));
    }

    #[test]
    fn every_episode_has_one_finite_reward(turns in vec(turn(), 0..4), golden in vec(text(), 0..3), documents in vec(turn(), 0..3)) {
        let episode = Episode { question: "q", golden_answers: &golden, policy_turns: &turns, observations: &documents };
        let quiet = Episode { observations: &[], question: "<answer>Paris</answer>", ..episode };
        for reward in rewards() {
            let value = reward.reward(&episode);
            prop_assert!(value.is_finite(), "{} is {}", reward.name(), value);
            prop_assert_eq!(value, reward.reward(&episode));
            prop_assert_eq!(value, reward.reward(&quiet), "{} depends on what others wrote", reward.name());
        }
    }
}
