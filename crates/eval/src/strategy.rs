//! The methods by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_text::{Codec, PromptTemplate, TextError};

use crate::methods::{Cot, Direct, Ircot, Method, RaAgent, Rag, Search, SearchO1};
use crate::{EvalError, Prompts};

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
    /// Full episodes of an untrained agent, which is told how to work with the tool.
    RaAgent,
    /// Searches inside the reasoning, whose documents the model condenses first (Li et al. 2025).
    SearchO1,
    /// A search after each sentence of a chain of thought (Trivedi et al. 2023).
    Ircot,
}

impl Strategy {
    /// Every strategy, from the plainest to the fullest.
    pub const ALL: [Self; 7] =
        [Self::Direct, Self::Cot, Self::Rag, Self::Search, Self::RaAgent, Self::SearchO1, Self::Ircot];

    /// The name that is parsed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Cot => "cot",
            Self::Rag => "rag",
            Self::Search => "search",
            Self::RaAgent => "ra_agent",
            Self::SearchO1 => "search_o1",
            Self::Ircot => "ircot",
        }
    }

    /// Whether it searches.
    pub fn needs_engine(self) -> bool {
        self.method().needs_engine()
    }

    /// The prompt for a model. One that brings its own (`search_prompt.jinja` in its folder) knows no
    /// other, so it gets that with every strategy but [`Ircot`](Self::Ircot), which needs more than a question in its prompt;
    /// any other gets the strategy's instruction, which for [`Search`](Self::Search) is the format's.
    ///
    /// # Errors
    /// When the model's own template is broken.
    pub fn prompt(self, codec: &Codec, format: &EpisodeFormat) -> Result<PromptTemplate, TextError> {
        self.prompt_of(&Prompts::default(), codec, format)
    }

    /// As [`prompt`](Self::prompt), with the prompts of a user, which win over that of the model.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn prompt_of(
        self,
        prompts: &Prompts,
        codec: &Codec,
        format: &EpisodeFormat,
    ) -> Result<PromptTemplate, TextError> {
        match self {
            Self::Ircot => prompts.other(self.name(), codec, format),
            _ => prompts.first(self.name(), codec, format),
        }
    }

    pub(crate) fn method(self) -> &'static dyn Method {
        match self {
            Self::Direct => &Direct,
            Self::Cot => &Cot,
            Self::Rag => &Rag,
            Self::Search => &Search,
            Self::RaAgent => &RaAgent,
            Self::SearchO1 => &SearchO1,
            Self::Ircot => &Ircot,
        }
    }

    #[cfg(test)]
    fn instruction(self, format: &EpisodeFormat) -> String {
        Prompts::default().text(self.name(), format)
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
