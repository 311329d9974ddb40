//! Ways to answer a question, from memory to several searches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_text::{Codec, PromptTemplate, TextError};

use crate::EvalError;

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// From memory, at once: one turn; a search in it is not executed.
    Direct,
    /// From memory, after reasoning: one turn; a search in it is not executed.
    Cot,
    /// One search with the bare question, whose documents the policy reads before its only turn.
    Rag,
    /// Full episodes, in which the policy searches as it likes.
    #[default]
    Search,
}

impl Strategy {
    /// Every strategy, from the plainest to the fullest.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Cot, Self::Rag, Self::Search];

    /// The name that is parsed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Cot => "cot",
            Self::Rag => "rag",
            Self::Search => "search",
        }
    }

    /// Whether it searches.
    pub fn needs_engine(self) -> bool {
        matches!(self, Self::Rag | Self::Search)
    }

    /// The prompt for a model. One that brings its own (`search_prompt.jinja` in its folder) knows no
    /// other, so it gets that with every strategy; any other gets the strategy's instruction, which for
    /// [`Search`](Self::Search) is the format's.
    ///
    /// # Errors
    /// When the model's own template is broken.
    pub fn prompt(self, codec: &Codec, format: &EpisodeFormat) -> Result<PromptTemplate, TextError> {
        PromptTemplate::for_model_or(codec, &self.instruction(format))
    }

    fn instruction(self, format: &EpisodeFormat) -> String {
        let EpisodeFormat { think, answer, information, .. } = format;
        let task = match self {
            Self::Search => return format.prompt.clone(),
            Self::Direct => {
                format!(
                    "Answer the question below. Give the answer at once, short and without explanation, between \
                     <{answer}> and </{answer}>, "
                )
            }
            Self::Cot => {
                format!(
                    "Answer the question below. First reason step by step between <{think}> and </{think}>. \
                     Then give the answer between <{answer}> and </{answer}>, short and without explanation, "
                )
            }
            Self::Rag => {
                format!(
                    "Answer the question below with the help of the documents between <{information}> and \
                     </{information}>. Give the answer between <{answer}> and </{answer}>, short and without explanation, "
                )
            }
        };
        // Jinja drops the line break at the end.
        task + &format!("for example <{answer}> Beijing </{answer}>. Question: {{{{ question }}}}\n")
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Strategy {
    type Err = EvalError;

    fn from_str(name: &str) -> Result<Self, EvalError> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.name() == name)
            .ok_or_else(|| EvalError::UnknownStrategy(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_in_the_words_of_the_format() {
        let format = EpisodeFormat::default();
        assert_eq!(
            Strategy::Direct.instruction(&format),
            "Answer the question below. Give the answer at once, short and without explanation, between <answer> and </answer>, for example <answer> Beijing </answer>. Question: {{ question }}\n"
        );
        assert_eq!(
            Strategy::Cot.instruction(&format),
            "Answer the question below. First reason step by step between <think> and </think>. Then give the answer between <answer> and </answer>, short and without explanation, for example <answer> Beijing </answer>. Question: {{ question }}\n"
        );
        assert_eq!(
            Strategy::Rag.instruction(&format),
            "Answer the question below with the help of the documents between <information> and </information>. Give the answer between <answer> and </answer>, short and without explanation, for example <answer> Beijing </answer>. Question: {{ question }}\n"
        );
        assert_eq!(Strategy::Search.instruction(&EpisodeFormat::search_r1()), EpisodeFormat::search_r1().prompt);
    }

    #[test]
    fn names_parse_and_others_are_refused_with_the_choice() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse::<Strategy>().unwrap(), strategy);
            assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.name());
        }
        let message = "RAG".parse::<Strategy>().unwrap_err().to_string();
        assert!(message.contains("\"RAG\"") && message.contains("direct, cot, rag or search"), "{message}");
    }
}
