//! The formats that released checkpoints were trained with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::EpisodeFormat;

/// The tag of a search in every preset.
pub const SEARCH_TAG: &str = "search";

/// A format by name, for configurations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatPreset {
    /// [`EpisodeFormat::default`].
    #[default]
    Default,
    /// [`EpisodeFormat::zerosearch`].
    Zerosearch,
    /// [`EpisodeFormat::search_r1`].
    SearchR1,
}

impl FormatPreset {
    /// Whether it is the default, which configurations leave out.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl FromStr for FormatPreset {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "default" => Ok(Self::Default),
            "zerosearch" => Ok(Self::Zerosearch),
            "search_r1" => Ok(Self::SearchR1),
            _ => Err(UnknownFormat(name.to_owned())),
        }
    }
}

/// An unknown format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat(String);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown format {:?}, expected default, zerosearch or search_r1", self.0)
    }
}

impl std::error::Error for UnknownFormat {}

impl From<FormatPreset> for EpisodeFormat {
    fn from(preset: FormatPreset) -> Self {
        match preset {
            FormatPreset::Default => Self::default(),
            FormatPreset::Zerosearch => Self::zerosearch(),
            FormatPreset::SearchR1 => Self::search_r1(),
        }
    }
}

impl Default for EpisodeFormat {
    fn default() -> Self {
        Self {
            think: "think".into(),
            tools: vec![SEARCH_TAG.into()],
            answer: "answer".into(),
            information: "information".into(),
            before_information: "\n\n".into(),
            after_information: "\n\n".into(),
            document: "Doc {number}: {text}".into(),
            no_documents: "No documents were found.".into(),
            call_failed: "The search failed. Search again, or answer with what is known.".into(),
            corrective: "\n\nThat was neither a search nor an answer. To search, I write the query between <search> and </search>. \
                         To answer, I write the answer between <answer> and </answer>. I try again.\n\n"
                .into(),
            prompt: PROMPT.into(),
            simulator_system: None,
        }
    }
}

impl EpisodeFormat {
    /// The format of the checkpoints that ZeroSearch released (<https://github.com/Alibaba-NLP/ZeroSearch>,
    /// `llm_agent/generation.py` and `inference.py`). A search that finds nothing leaves the block empty; its simulator is a chat
    /// model with an empty system message.
    pub fn zerosearch() -> Self {
        Self {
            no_documents: String::new(),
            call_failed: "No information available".into(),
            corrective: RELEASED_CORRECTIVE.into(),
            prompt: RELEASED_PROMPT.into(),
            simulator_system: Some(String::new()),
            ..Self::default()
        }
    }

    /// The format of the checkpoints that Search-R1 released (<https://github.com/PeterGriffinJin/Search-R1>,
    /// `search_r1/llm_agent/generation.py` and `infer.py`). A search that finds nothing leaves the block empty; one that fails ends
    /// that program, and here is told as one that found nothing.
    pub fn search_r1() -> Self {
        Self {
            // Titles stand in quotation marks because they do so in the corpus that it was trained on.
            document: "Doc {number}(Title: \"{title}\") {text}".into(),
            no_documents: String::new(),
            call_failed: String::new(),
            corrective: RELEASED_CORRECTIVE.into(),
            prompt: RELEASED_PROMPT.into(),
            ..Self::default()
        }
    }
}

/// Rendered, it ends with one line break.
const PROMPT: &str = "\
Answer the question below. Whenever you get new information, first reason about it between <think> and </think>. \
If you find that you lack some knowledge, call a search engine by writing a query between <search> and </search>; \
it returns the top results between <information> and </information>. You can search as many times as you want. \
Once nothing is missing, give the answer between <answer> and </answer>, short and without explanation, \
for example <answer> Beijing </answer>. Question: {{ question }}\n
";

/// The prompt that both programs share, with its slip of grammar: a model answers best to the words that it was trained on. Questions
/// end with a question mark.
const RELEASED_PROMPT: &str = "\
Answer the given question. \
You must conduct reasoning inside <think> and </think> first every time you get new information. \
After reasoning, if you find you lack some knowledge, you can call a search engine by <search> query </search> \
and it will return the top searched results between <information> and </information>. \
You can search as many times as your want. \
If you find no further external knowledge needed, you can directly provide the answer inside <answer> and </answer>, \
without detailed illustrations. For example, <answer> Beijing </answer>. \
Question: {{ question | trim }}{% if question | trim is not endingwith('?') %}?{% endif %}\n
";

/// Both programs' answer to a turn that was neither a search nor an answer.
const RELEASED_CORRECTIVE: &str = "\nMy previous action is invalid. \
If I want to search, I should put the query between <search> and </search>. \
If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_models_of_this_program_were_trained_on() {
        let format = EpisodeFormat::default();
        assert_eq!(
            format.corrective,
            "\n\nThat was neither a search nor an answer. To search, I write the query between <search> and </search>. To answer, I write the answer between <answer> and </answer>. I try again.\n\n"
        );
        assert_eq!(
            format.failure(),
            "\n\n<information>The search failed. Search again, or answer with what is known.</information>\n\n"
        );
        assert!(format.prompt.starts_with("Answer the question below. Whenever"), "{}", format.prompt);
        assert!(format.prompt.ends_with("Question: {{ question }}\n\n"), "{}", format.prompt);
    }

    #[test]
    fn released_formats_show_documents_as_their_programs_do() {
        let documents = [("Lima", "A city."), ("Peru", "A country.")];
        assert_eq!(
            EpisodeFormat::search_r1().information(&EpisodeFormat::search_r1().documents(&documents)),
            "\n\n<information>Doc 1(Title: \"Lima\") A city.\nDoc 2(Title: \"Peru\") A country.</information>\n\n"
        );
        for format in [EpisodeFormat::zerosearch(), EpisodeFormat::search_r1()] {
            assert_eq!(format.information(&format.documents(&[])), "\n\n<information></information>\n\n");
            assert!(format.corrective.starts_with("\nMy previous action is invalid. If I want to search, I should"));
        }
        assert_eq!(EpisodeFormat::zerosearch().documents(&[("", "A city.")]), "Doc 1: A city.");
    }

    #[test]
    fn presets_are_named_in_configurations() {
        for (preset, name) in [
            (FormatPreset::Default, "default"),
            (FormatPreset::Zerosearch, "zerosearch"),
            (FormatPreset::SearchR1, "search_r1"),
        ] {
            assert_eq!(serde_json::to_value(preset).unwrap(), name);
            assert_eq!(serde_json::from_value::<FormatPreset>(name.into()).unwrap(), preset);
            assert_eq!(name.parse(), Ok(preset));
        }
        let message = "search-r1".parse::<FormatPreset>().unwrap_err().to_string();
        assert!(message.contains("\"search-r1\"") && message.contains("search_r1"), "{message}");
        assert_eq!(EpisodeFormat::from(FormatPreset::default()), EpisodeFormat::default());
    }
}
