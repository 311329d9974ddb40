//! Whether the policy keeps to the grammar of an episode.

use crate::normalize::is_space;
use crate::rewards::one_if;
use crate::{Episode, RewardFn};

/// 1 when the whole episode is well formed, else 0.
///
/// Well formed: every turn is `<think>…</think>` followed by one action, with nothing but white
/// space around them; the action is `<search>query</search>` in every turn but the last and
/// `<answer>…</answer>` in the last; query and answer are not blank, and no tag of the grammar
/// stands inside another. Whether the answer is right does not matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatReward;

impl RewardFn for FormatReward {
    fn name(&self) -> &str {
        "format"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        one_if(episode.policy_turns.split_last().is_some_and(|(last, searches)| {
            searches.iter().all(|turn| is_turn(turn, "<search>", "</search>")) && is_turn(last, "<answer>", "</answer>")
        }))
    }
}

const TAGS: [&str; 8] =
    ["<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<information>", "</information>"];

fn is_turn(text: &str, open: &str, close: &str) -> bool {
    let inner = |text: &str| !TAGS.iter().any(|tag| text.contains(tag));
    text.trim_matches(is_space)
        .strip_prefix("<think>")
        .and_then(|rest| rest.split_once("</think>"))
        .and_then(|(thought, rest)| {
            let content = rest.trim_start_matches(is_space).strip_prefix(open)?.strip_suffix(close)?;
            Some(inner(thought) && inner(content) && !content.chars().all(is_space))
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(turns: &[&str]) -> f32 {
        let turns: Vec<_> = turns.iter().map(|turn| (*turn).to_owned()).collect();
        FormatReward.reward(&Episode { question: "", golden_answers: &[], policy_turns: &turns, observations: &[] })
    }

    const SEARCH: &str = "<think>t</think>\n<search> q </search>\n";
    const ANSWER: &str = " <think></think><answer>a</answer>";

    #[test]
    fn well_formed_episodes() {
        assert_eq!(format(&[ANSWER]), 1.0);
        assert_eq!(format(&[SEARCH, SEARCH, ANSWER]), 1.0);
    }

    #[test]
    fn every_departure_from_the_grammar() {
        for turns in [
            &[][..],
            &[SEARCH],
            &[ANSWER, SEARCH],
            &[ANSWER, ANSWER],
            &["<answer>a</answer>"],
            &["<think>t<answer>a</answer>"],
            &["<think>t</think> so <answer>a</answer>"],
            &["<think>t</think><answer>a</answer> done"],
            &["<think>t</think><answer>a"],
            &["<think>t</think><answer> \u{a0}</answer>"],
            &["<think>t</think><search></search>", ANSWER],
            &["<think>t</think><answer>a</answer><answer>b</answer>"],
            &["<think>t</think><search>q</search><answer>b</answer>"],
            &["<think>t</think><think>t</think><answer>a</answer>"],
            &["<think><search>q</search></think><answer>a</answer>"],
            &["<think>t</think><answer><information>a</information></answer>"],
        ] {
            assert_eq!(format(turns), 0.0, "{turns:?}");
        }
    }
}
