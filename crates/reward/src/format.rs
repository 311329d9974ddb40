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
///
/// The first turn may begin inside its thought: the chat templates of thinking models end the prompt
/// with `<think>`. Later turns follow an observation and open their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatReward;

impl RewardFn for FormatReward {
    fn name(&self) -> &str {
        "format"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        self.reward_in(&EpisodeFormat::default(), episode)
    }

    fn reward_in(&self, format: &EpisodeFormat, episode: &Episode<'_>) -> f32 {
        let turns = episode.policy_turns;
        let is_well_formed = |(index, turn): (usize, &String)| {
            let Some((thought, action)) = thought_and_action(turn, format, index == 0) else { return false };
            let is_last = index + 1 == turns.len();
            let mut tags = format.tools.iter().filter(|_| !is_last).chain(Some(&format.answer).filter(|_| is_last));
            has_no_tags(thought, format) && tags.any(|tag| is_action(action, tag, format))
        };
        one_if(!turns.is_empty() && turns.iter().enumerate().all(is_well_formed))
    }
}

/// The text inside the tags of the thought and the text after them.
fn thought_and_action<'t>(turn: &'t str, format: &EpisodeFormat, may_be_open: bool) -> Option<(&'t str, &'t str)> {
    let turn = turn.trim_matches(is_space);
    let inside = turn.strip_prefix(&opening_tag(&format.think)).or(may_be_open.then_some(turn))?;
    let (thought, action) = inside.split_once(&closing_tag(&format.think))?;
    Some((thought, action.trim_start_matches(is_space)))
}

fn is_action(text: &str, tag: &str, format: &EpisodeFormat) -> bool {
    let content = text.strip_prefix(&opening_tag(tag)).and_then(|rest| rest.strip_suffix(&closing_tag(tag)));
    content.is_some_and(|content| has_no_tags(content, format) && !content.chars().all(is_space))
}

fn has_no_tags(text: &str, format: &EpisodeFormat) -> bool {
    !format.tags().any(|tag| text.contains(&opening_tag(tag)) || text.contains(&closing_tag(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(turns: &[&str]) -> f32 {
        format_in(&EpisodeFormat::default(), turns)
    }

    fn format_in(format: &EpisodeFormat, turns: &[&str]) -> f32 {
        let turns: Vec<_> = turns.iter().map(|turn| (*turn).to_owned()).collect();
        let episode = Episode { question: "", golden_answers: &[], policy_turns: &turns, observations: &[] };
        FormatReward.reward_in(format, &episode)
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
    fn the_first_turn_may_begin_inside_the_thought_that_the_prompt_opened() {
        let (search, answer) = ("t\n</think>\n<search> q </search>", "I know it.</think><answer>a</answer>");
        assert_eq!(format(&[search, ANSWER]), 1.0);
        assert_eq!(format(&[search, SEARCH, ANSWER]), 1.0);
        assert_eq!(format(&[answer]), 1.0);
        assert_eq!(format(&["</think><answer>a</answer>"]), 1.0);
        for turns in [
            &[SEARCH, answer][..],
            &[search, search, ANSWER],
            &["<search> q </search>", ANSWER],
            &["t<search> q </search></think><search> q </search>", ANSWER],
            &["t</think>t</think><answer>a</answer>"],
            &["t<think>t</think><answer>a</answer>"],
            &["t</think>"],
        ] {
            assert_eq!(format(turns), 0.0, "{turns:?}");
        }
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
