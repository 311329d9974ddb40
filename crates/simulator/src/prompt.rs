//! The simulator's prompt, a template that a user can replace.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};
use zerosearch_files::{read_text, write_atomic};
use zerosearch_search::Quality;

use crate::SimulatorError;
use crate::thought::without_thoughts;

/// The fine-tuned simulator's prompt: role, keyword, question, answer, query.
const SFT: &str = "You are the search engine. Given a query, you need to generate {{ top_k }} {{ quality }} documents for the query.\n\
The user is trying to answer the question: {{ question }} whose answer is {{ answer }}.\n\
Each document should contain about 30 words, and these documents should contain {{ 'useful' if quality == 'useful' else 'noisy' }} information.\n\
Query: {{ query }}\n{{ quality | capitalize }} Output:\n";

/// For a model that was not fine-tuned: a worked example, and no answer in the noisy branch.
const PROMPTED: &str = "You are the search engine. Given a query, you need to generate {{ top_k }} {{ quality }} documents for the query.\n\
{% if quality == 'useful' %}The user is trying to answer the question: {{ question }} whose answer is {{ answer }}. \
The documents contain the answer.\n{% else %}The documents are about the subject of the query and do not help to answer it.\n{% endif %}\
Example:\nQuery: boiling point of water\nUseful Output:\nDoc 1: At sea level, water boils at 100 degrees Celsius.\n\n\
Query: {{ query }}\n{{ quality | capitalize }} Output:\n";

/// A template with the variables `top_k`, `quality`, `question`, `answer`, `answers` and `query`.
#[derive(Clone, Debug)]
pub struct SimulatorPrompt {
    environment: Environment<'static>,
    source: String,
}

impl SimulatorPrompt {
    /// The file in a model folder that replaces the built-in template.
    pub const FILE: &'static str = "simulator_prompt.jinja";

    /// Parses a template.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn new(source: &str) -> Result<Self, SimulatorError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|error| SimulatorError::Template(error.to_string()))?);
        environment
            .add_template_owned("simulator", source.to_string())
            .map_err(|error| SimulatorError::Template(error.to_string()))?;
        Ok(Self { environment, source: source.to_string() })
    }

    /// The paper's prompt for a fine-tuned simulator.
    ///
    /// # Errors
    /// Never for the built-in text; kept for symmetry with [`new`](Self::new).
    pub fn sft() -> Result<Self, SimulatorError> {
        Self::new(SFT)
    }

    /// The paper's prompt for a model that was not fine-tuned.
    ///
    /// # Errors
    /// As [`sft`](Self::sft).
    pub fn prompted() -> Result<Self, SimulatorError> {
        Self::new(PROMPTED)
    }

    /// The folder's `simulator_prompt.jinja`, or [`sft`](Self::sft) where there is none.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn for_model(folder: impl AsRef<Path>) -> Result<Self, SimulatorError> {
        let path = folder.as_ref().join(Self::FILE);
        if path.exists() { Self::new(&read_text(path)?) } else { Self::sft() }
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Writes the template into a model folder, where [`for_model`](Self::for_model) finds it.
    ///
    /// # Errors
    /// When the file cannot be written; an old one is then untouched.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), SimulatorError> {
        Ok(write_atomic(folder.as_ref().join(Self::FILE), self.source.as_bytes())?)
    }

    /// The prompt for one call. The document count follows `top_k`.
    ///
    /// # Errors
    /// When the template uses what it is not given.
    pub fn render(
        &self,
        question: &str,
        answers: &[String],
        query: &str,
        quality: Quality,
        top_k: usize,
    ) -> Result<String, SimulatorError> {
        let answer = answers.first().cloned().unwrap_or_default();
        let answers = answers.to_vec();
        self.environment
            .get_template("simulator")
            .and_then(|template| {
                template.render(context! { question, answer, answers, query, top_k, quality => quality.keyword() })
            })
            .map_err(|error| SimulatorError::Template(error.to_string()))
    }
}

/// Documents as the simulator writes them: `Doc 1: …`, one a line, white space squeezed.
pub fn documents_text(documents: &[String]) -> String {
    let line = |(index, document): (usize, &String)| {
        format!("Doc {}: {}", index + 1, document.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    documents.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// Reads [`documents_text`] back, at most `top_k` documents. Text without a label is one document;
/// a last document that was cut short is still a document. Thoughts of a model that reasons first are
/// none, cut off or not: its prompt tells them the answer.
pub fn parse_documents(text: &str, top_k: usize) -> Vec<String> {
    let unlabelled = |line: &str| {
        let line = line.trim();
        let rest = line
            .strip_prefix("Doc ")
            .and_then(|rest| rest.split_once(':'))
            .filter(|(number, _)| number.parse::<u32>().is_ok());
        rest.map_or(line, |(_, rest)| rest.trim()).to_string()
    };
    without_thoughts(text).lines().map(unlabelled).filter(|document| !document.is_empty()).take(top_k).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_count_the_keyword_and_the_answer_follow_the_call() {
        let answers = ["N'Djamena".to_string()];
        let prompt = SimulatorPrompt::sft().unwrap();
        let useful = prompt.render("Capital of Chad?", &answers, "chad", Quality::Useful, 3).unwrap();
        assert!(
            useful.contains("generate 3 useful documents")
                && useful.contains("N'Djamena")
                && useful.ends_with("Useful Output:\n"),
            "{useful}"
        );
        let noisy = SimulatorPrompt::prompted()
            .unwrap()
            .render("Capital of Chad?", &answers, "chad", Quality::Noisy, 5)
            .unwrap();
        assert!(
            noisy.contains("generate 5 noisy documents") && !noisy.contains("Djamena") && !noisy.contains("Capital"),
            "{noisy}"
        );
    }

    #[test]
    fn a_malformed_template_is_refused() {
        assert!(matches!(SimulatorPrompt::new("{{ question"), Err(SimulatorError::Template(_))));
    }

    #[test]
    fn thoughts_are_no_documents() {
        let documents = ["Chad lies in Africa.", "R1 thinks between <think> and </think>."];
        let text = documents_text(&documents.map(str::to_string));
        for thought in ["", "<think>\nIt is N'Djamena.\n</think>\n\n", "Doc 1: a draft\n</think>\n", "<think></think>"]
        {
            assert_eq!(parse_documents(&format!("{thought}{text}"), 5), documents, "{thought}");
        }
        assert_eq!(parse_documents("<think>\nDoc 1: It is N'Djamena.\nDoc 2:", 5), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn documents_survive_the_round_trip(documents in proptest::collection::vec("[a-zA-Z0-9.,]{1,8}( [a-zA-Z0-9.,:]{1,8}){0,6}", 1..6)) {
            prop_assert_eq!(parse_documents(&documents_text(&documents), 10), documents);
        }

        #[test]
        fn any_text_parses_into_at_most_top_k(text: String, top_k in 0usize..4) {
            prop_assert!(parse_documents(&text, top_k).len() <= top_k);
        }
    }
}
