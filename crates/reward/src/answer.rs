//! The answer that the policy gave.

use crate::normalize::is_space;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// The last complete `<answer>…</answer>` in the policy's turns, without surrounding white space.
///
/// `policy_turns` is the text of each policy segment, and nothing else: a prompt shows an example
/// answer and a document may contain one. A tag that opens in one turn and closes in another is no
/// answer. Of several opening tags before a closing one, the last counts, so that a tag that is
/// merely mentioned swallows nothing. `None` when no turn holds a complete answer; an empty answer
/// is an answer.
pub fn extract_answer<S: AsRef<str>>(policy_turns: &[S]) -> Option<String> {
    policy_turns.iter().rev().find_map(|turn| answer_in(turn.as_ref())).map(str::to_owned)
}

fn answer_in(turn: &str) -> Option<&str> {
    let last_close = turn.rfind(CLOSE)?;
    let start = turn[..last_close].rfind(OPEN)? + OPEN.len();
    let content = turn[start..].split(CLOSE).next()?;
    Some(content.trim_matches(is_space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_answer_counts() {
        for (turns, expected) in [
            (&[""][..], None),
            (&["no tags"], None),
            (&["<answer>unclosed"], None),
            (&["unopened</answer>"], None),
            (&["</answer><answer>"], None),
            (&["<ANSWER>upper case</ANSWER>"], None),
            (&["<answer>a</answer>"], Some("a")),
            (&["<answer>a</answer><answer>unclosed"], Some("a")),
            (&["<answer>a</answer></answer>"], Some("a")),
            (&["<answer>a</answer> <answer>\n b \u{a0}</answer>"], Some("b")),
            (&["<think>in <answer> tags</think><answer>a</answer>"], Some("a")),
            (&["<answer><answer>nested</answer></answer>"], Some("nested")),
            (&["<answer></answer>"], Some("")),
            (&["<answer>two\nlines</answer>\n"], Some("two\nlines")),
        ] {
            assert_eq!(extract_answer(turns).as_deref(), expected, "{turns:?}");
        }
    }

    #[test]
    fn turns_are_read_one_by_one_and_the_last_that_answers_counts() {
        assert_eq!(extract_answer(&["<answer>a</answer>", "<search>q</search>"]).as_deref(), Some("a"));
        assert_eq!(extract_answer(&["<answer>a</answer>", "<answer>b</answer>"]).as_deref(), Some("b"));
        assert_eq!(extract_answer(&["<answer>half", "half</answer>"]), None);
        assert_eq!(extract_answer::<&str>(&[]), None);
    }
}
