//! Whether the policy keeps to the grammar of an episode.

use zerosearch_grammar::{EpisodeFormat, closing_tag, is_space, opening_tag};

use crate::rewards::one_if;
use crate::{Episode, RewardFn};

/// 1 when the whole episode is well formed, else 0.
///
/// Well formed: every turn is `<think>…</think>` followed by one action, with nothing but white
/// space around them; the action is a call of a tool, such as `<search>query</search>`, in every turn
/// but the last and `<answer>…</answer>` in the last; input and answer are not blank, and no tag of
/// the format stands inside another. Whether the answer is right does not matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatReward;

impl RewardFn for FormatReward {
    fn name(&self) -> &str {
        "format"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        let format = episode.format;
        one_if(episode.policy_turns.split_last().is_some_and(|(last, calls)| {
            let is_call = |turn: &String| format.tools.iter().any(|tool| is_turn(turn, tool, format));
            calls.iter().all(is_call) && is_turn(last, &format.answer, format)
        }))
    }
}

fn is_turn(text: &str, tag: &str, format: &EpisodeFormat) -> bool {
    let inner =
        |text: &str| !format.tags().any(|tag| text.contains(&opening_tag(tag)) || text.contains(&closing_tag(tag)));
    text.trim_matches(is_space)
        .strip_prefix(&opening_tag(&format.think))
        .and_then(|rest| rest.split_once(&closing_tag(&format.think)))
        .and_then(|(thought, rest)| {
            let content =
                rest.trim_start_matches(is_space).strip_prefix(&opening_tag(tag))?.strip_suffix(&closing_tag(tag))?;
            Some(inner(thought) && inner(content) && !content.chars().all(is_space))
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(turns: &[&str]) -> f32 {
        format_in(&EpisodeFormat::default(), turns)
    }

    fn format_in(format: &EpisodeFormat, turns: &[&str]) -> f32 {
        let turns: Vec<_> = turns.iter().map(|turn| (*turn).to_owned()).collect();
        FormatReward.reward(&Episode {
            question: "",
            golden_answers: &[],
            policy_turns: &turns,
            observations: &[],
            format,
        })
    }

    const SEARCH: &str = "<think>t</think>\n<search> q </search>\n";
    const ANSWER: &str = " <think></think><answer>a</answer>";

    #[test]
    fn well_formed_episodes() {
        assert_eq!(format(&[ANSWER]), 1.0);
        assert_eq!(format(&[SEARCH, SEARCH, ANSWER]), 1.0);
    }

    #[test]
    fn the_grammar_is_that_of_the_episodes_format() {
        let sql = "<think>t</think><sql>select 1</sql>";
        assert_eq!(format(&[sql, ANSWER]), 0.0);
        let tools = vec!["search".to_owned(), "sql".to_owned()];
        let with_sql = EpisodeFormat { tools, ..EpisodeFormat::default() };
        assert_eq!(format_in(&with_sql, &[sql, SEARCH, ANSWER]), 1.0);
        assert_eq!(format_in(&with_sql, &["<think><sql></think><answer>a</answer>"]), 0.0);
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
