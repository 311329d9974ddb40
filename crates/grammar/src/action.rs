//! Actions and answers, read from the policy's text.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{EpisodeFormat, closing_tag, is_space, opening_tag};

/// The policy's action in one turn.
///
/// In JSON an object of one key: `{"search": "…"}` for a call of the tool `search`, `{"answer": "…"}`, `{"invalid": "no_tag"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It called a tool.
    Call {
        /// The tool's tag.
        tool: String,
        /// The text of the call, without surrounding white space; never empty.
        input: String,
    },
    /// It answered, without surrounding white space. An empty answer is an answer.
    Answer(String),
    /// It did neither.
    Invalid(InvalidReason),
}

/// Why a turn is neither a call nor an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidReason {
    /// No tag at all.
    NoTag,
    /// A tag was opened and not closed, for example because the turn ran into its length limit.
    Unclosed,
    /// A tag was closed that had not been opened.
    Unopened,
    /// A call without an input.
    EmptyQuery,
}

impl EpisodeFormat {
    /// The tags that end a turn: the tools' closing tags in their order, then the answer's. The token that completes one of
    /// them is kept whole.
    pub fn stop_tags(&self) -> Vec<String> {
        self.actions().map(closing_tag).collect()
    }

    /// Reads the action from the text that the policy wrote in one turn. (Never from a prompt: that shows an example answer.)
    ///
    /// The first call or answer that is complete decides. Of several opening tags before its closing tag the last one counts, so
    /// that a tag that is merely mentioned swallows nothing.
    pub fn parse_action(&self, policy_text: &str) -> Action {
        let mut rest = policy_text;
        let mut unopened = false;
        while let Some((end, tag)) =
            self.actions().filter_map(|tag| rest.find(&closing_tag(tag)).map(|end| (end, tag))).min()
        {
            let (inside, after) = rest.split_at(end);
            if let Some((_, content)) = inside.rsplit_once(&opening_tag(tag)) {
                let content = content.trim_matches(is_space).to_owned();
                return if tag == self.answer {
                    Action::Answer(content)
                } else if content.is_empty() {
                    Action::Invalid(InvalidReason::EmptyQuery)
                } else {
                    Action::Call { tool: tag.to_owned(), input: content }
                };
            }
            unopened = true;
            rest = &after[closing_tag(tag).len()..];
        }
        Action::Invalid(if unopened {
            InvalidReason::Unopened
        } else if self.actions().any(|tag| rest.contains(&opening_tag(tag))) {
            InvalidReason::Unclosed
        } else {
            InvalidReason::NoTag
        })
    }

    /// The last complete answer in the policy's turns, without surrounding white space: `<answer>…</answer>`.
    ///
    /// `policy_turns` is the text of each policy segment, and nothing else: a prompt shows an example answer and a document may
    /// contain one. A tag that opens in one turn and closes in another is no answer. Of several opening tags before a closing
    /// one, the last counts. `None` when no turn holds a complete answer; an empty answer is an answer.
    pub fn extract_answer<'t, S: AsRef<str>>(&self, policy_turns: &'t [S]) -> Option<&'t str> {
        let (open, close) = (opening_tag(&self.answer), closing_tag(&self.answer));
        policy_turns.iter().rev().find_map(|turn| {
            let turn = turn.as_ref();
            let last_close = turn.rfind(&close)?;
            let start = turn[..last_close].rfind(&open)? + open.len();
            let content = turn[start..].split(&close).next()?;
            Some(content.trim_matches(is_space))
        })
    }

    /// The tags whose closing ends a turn.
    fn actions(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().chain([&self.answer]).map(String::as_str)
    }
}

/// By hand, because the name of the key is that of a tool.
impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Call { tool, input } => map.serialize_entry(tool, input)?,
            Self::Answer(answer) => map.serialize_entry("answer", answer)?,
            Self::Invalid(reason) => map.serialize_entry("invalid", reason)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKey;

        impl<'de> Visitor<'de> for OneKey {
            type Value = Action;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an action: an object whose one key is a tool's tag, `answer` or `invalid`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Action, A::Error> {
                let key: String = map.next_key()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let action = match key.as_str() {
                    "answer" => Action::Answer(map.next_value()?),
                    "invalid" => Action::Invalid(map.next_value()?),
                    _ => Action::Call { tool: key, input: map.next_value()? },
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(action),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }

        deserializer.deserialize_map(OneKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Action {
        EpisodeFormat::default().parse_action(text)
    }

    fn search(query: &str) -> Action {
        Action::Call { tool: "search".into(), input: query.into() }
    }

    fn answer(text: &str) -> Action {
        Action::Answer(text.into())
    }

    #[test]
    fn the_first_complete_tag_decides() {
        assert_eq!(parse("<think> who? </think> <search> mayor of Rome </search>"), search("mayor of Rome"));
        assert_eq!(parse("<answer> Rome </answer>"), answer("Rome"));
        assert_eq!(parse("<search>a</search><answer>b</answer>"), search("a"));
        assert_eq!(parse("<answer>b</answer><search>a</search>"), answer("b"));
        assert_eq!(parse("<answer></answer>"), answer(""));
        assert_eq!(parse("<search>zwei\nZeilen</search> rest"), search("zwei\nZeilen"));
    }

    #[test]
    fn a_mentioned_tag_swallows_nothing() {
        assert_eq!(parse("I must write <answer> first. <search> x </search>"), search("x"));
        assert_eq!(parse("in <answer> tags: <answer> y </answer>"), answer("y"));
        assert_eq!(parse("</search> oops <answer> z </answer>"), answer("z"));
    }

    #[test]
    fn malformed_turns_say_why() {
        let invalid = |text: &str, reason| assert_eq!(parse(text), Action::Invalid(reason), "{text}");
        invalid("", InvalidReason::NoTag);
        invalid("<think> hm </think>", InvalidReason::NoTag);
        invalid("<Answer> x </Answer>", InvalidReason::NoTag);
        invalid("<sql> x </sql>", InvalidReason::NoTag);
        invalid("<search> cut off", InvalidReason::Unclosed);
        invalid("<search> a <answer> b", InvalidReason::Unclosed);
        invalid("x </answer>", InvalidReason::Unopened);
        invalid("<search> \n </search>", InvalidReason::EmptyQuery);
        invalid("<search></search>", InvalidReason::EmptyQuery);
    }

    #[test]
    fn every_tool_of_the_format_is_called_by_its_tag() {
        let format = EpisodeFormat {
            tools: vec!["search".into(), "search_web".into(), "sql".into()],
            ..EpisodeFormat::default()
        };
        let call = |tool: &str, input: &str| Action::Call { tool: tool.into(), input: input.into() };
        assert_eq!(format.parse_action("<sql> select 1 </sql>"), call("sql", "select 1"));
        assert_eq!(format.parse_action("<search_web>a</search_web>"), call("search_web", "a"));
        assert_eq!(format.parse_action("<search>a</search><sql>b</sql>"), call("search", "a"));
        assert_eq!(format.stop_tags(), ["</search>", "</search_web>", "</sql>", "</answer>"]);
        assert_eq!(EpisodeFormat::default().stop_tags(), ["</search>", "</answer>"]);
    }

    #[test]
    fn the_last_complete_answer_counts() {
        let format = EpisodeFormat::default();
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
            (&["<answer>\u{1c}a\u{1f}</answer>"], Some("a")),
            (&["<think>in <answer> tags</think><answer>a</answer>"], Some("a")),
            (&["<answer><answer>nested</answer></answer>"], Some("nested")),
            (&["<answer></answer>"], Some("")),
            (&["<answer>two\nlines</answer>\n"], Some("two\nlines")),
        ] {
            assert_eq!(format.extract_answer(turns), expected, "{turns:?}");
        }
    }

    #[test]
    fn turns_are_read_one_by_one_and_the_last_that_answers_counts() {
        let format = EpisodeFormat::default();
        assert_eq!(format.extract_answer(&["<answer>a</answer>", "<search>q</search>"]), Some("a"));
        assert_eq!(format.extract_answer(&["<answer>a</answer>", "<answer>b</answer>"]), Some("b"));
        assert_eq!(format.extract_answer(&["<answer>half", "half</answer>"]), None);
        assert_eq!(format.extract_answer::<&str>(&[]), None);
    }

    #[test]
    fn an_action_is_an_object_of_one_key() {
        for (action, json) in [
            (search("mayor of \"Rome\""), r#"{"search":"mayor of \"Rome\""}"#),
            (answer(""), r#"{"answer":""}"#),
            (Action::Invalid(InvalidReason::EmptyQuery), r#"{"invalid":"empty_query"}"#),
            (Action::Call { tool: "sql".into(), input: "select 1".into() }, r#"{"sql":"select 1"}"#),
        ] {
            assert_eq!(serde_json::to_string(&action).unwrap(), json);
            assert_eq!(serde_json::from_str::<Action>(json).unwrap(), action);
        }
        for broken in
            ["{}", r#"{"search":"a","answer":"b"}"#, r#""search""#, r#"{"invalid":"other"}"#, r#"{"search":1}"#]
        {
            assert!(serde_json::from_str::<Action>(broken).is_err(), "{broken}");
        }
    }
}
