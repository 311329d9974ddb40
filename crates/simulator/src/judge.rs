//! Can the answer be found in these documents? Yes makes them useful, no makes them noisy.

use zerosearch_generate::{Completer, CompletionRequest, Sampling};
use zerosearch_reward::normalize_answer;
use zerosearch_search::{Quality, runs_words_together};

use crate::{Interaction, SimulatorError};

/// Labels interactions.
pub trait Judge {
    /// One label for each interaction, in order.
    ///
    /// # Errors
    /// When the judge fails or says neither yes nor no.
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError>;
}

/// The exact rule: some document mentions a golden answer, see [`mentions`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleJudge;

impl Judge for RuleJudge {
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError> {
        let label = |interaction: &Interaction| {
            let found = interaction.documents.iter().any(|document| mentions(document, &interaction.golden_answers));
            if found { Quality::Useful } else { Quality::Noisy }
        };
        Ok(interactions.iter().map(label).collect())
    }
}

/// Whether a document has one of the answers as whole words, both normalised. Whole words, because short answers such
/// as `.td` or `H` are a part of almost any text. In scripts that run words together, such as Chinese, any place will
/// do, since nobody can tell where a word ends.
///
/// An answer of nothing but articles, such as the band *The The*, must stand there as it is written; one article alone
/// is found nowhere, since a rule cannot tell the vitamin *A* from any other `A`.
pub fn mentions<S: AsRef<str>>(document: &str, answers: &[S]) -> bool {
    let normal = normalize_answer(document);
    answers.iter().map(AsRef::as_ref).any(|answer| {
        let words = normalize_answer(answer);
        if !words.is_empty() {
            return has_words(&normal, &words);
        }
        let written = without_punctuation(answer);
        written.contains(' ') && has_words(&without_punctuation(document), &written)
    })
}

/// Whether `words` stand in `text` with a blank, an end or a script without blanks on either side.
fn has_words(text: &str, words: &str) -> bool {
    let apart = |inner: Option<char>, outer: Option<char>| {
        outer.is_none_or(|outer| outer == ' ' || [inner, Some(outer)].into_iter().flatten().any(runs_words_together))
    };
    // Every place, since one that overlaps with the place before may be the right one.
    let places = text.char_indices().filter(|(at, _)| text[*at..].starts_with(words));
    places.map(|(at, _)| (&text[..at], &text[at + words.len()..])).any(|(before, after)| {
        apart(words.chars().next(), before.chars().next_back())
            && apart(words.chars().next_back(), after.chars().next())
    })
}

fn without_punctuation(text: &str) -> String {
    text.replace(|c: char| c.is_ascii_punctuation(), "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A language model as judge, asked for yes or no.
pub struct CompleterJudge<C> {
    completer: C,
}

impl<C: Completer> CompleterJudge<C> {
    /// Asks this model.
    pub fn new(completer: C) -> Self {
        Self { completer }
    }
}

impl<C: Completer> Judge for CompleterJudge<C> {
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError> {
        let request = |interaction: &Interaction| CompletionRequest {
            prompt: format!(
                "Can the answer to the question be found in the documents? Reply with yes or no only.\n\
                 Question: {}\nAnswer: {}\nDocuments:\n{}\nReply:",
                interaction.question,
                interaction.golden_answers.join(" / "),
                interaction.documents.join("\n")
            ),
            sampling: Sampling::greedy(),
            max_new_tokens: 4,
            seed: 0,
            stop: vec!["\n".into()],
        };
        let requests: Vec<CompletionRequest> = interactions.iter().map(request).collect();
        let completions = self.completer.complete(&requests)?;
        let label = |(interaction, completion): (&Interaction, &zerosearch_generate::Completion)| {
            let word = completion.text.trim().trim_end_matches(['.', '!']).to_lowercase();
            match word.as_str() {
                "yes" => Ok(Quality::Useful),
                "no" => Ok(Quality::Noisy),
                _ => Err(SimulatorError::Judge { query: interaction.query.clone(), answer: completion.text.clone() }),
            }
        };
        interactions.iter().zip(&completions).map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosearch_generate::{Completion, GenerateError};

    struct Says(&'static str);

    impl Completer for Says {
        fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
            Ok(requests.iter().map(|_| Completion { text: self.0.into(), tokens: 1 }).collect())
        }
    }

    fn interaction(document: &str) -> Interaction {
        Interaction {
            question: "Capital of Chad?".into(),
            golden_answers: vec!["N'Djamena".into(), "Ndjamena".into()],
            query: "capital".into(),
            documents: vec!["Lake Chad.".into(), document.into()],
        }
    }

    #[test]
    fn the_rule_looks_at_every_document_and_every_alias() {
        let labels = RuleJudge.judge(&[interaction("It is NDJAMENA!"), interaction("It is Moundou.")]).unwrap();
        assert_eq!(labels, [Quality::Useful, Quality::Noisy]);
    }

    #[test]
    fn an_answer_inside_a_longer_word_is_no_mention() {
        assert!(mentions("Chad has the code .td.", &[".td"]) && !mentions("The width of Chad.", &[".td"]));
        assert!(!mentions("anything", &["the"]), "an answer of nothing but articles is found nowhere");
        assert!(!mentions("A cow.", &["A"]) && !mentions("wow!!!", &["!!!"]));
        assert!(mentions("Matt Johnson's band The The.", &["The The"]) && !mentions("as the the", &["The The"]));
        // Matches overlap, and a later one counts.
        assert!(mentions("nanana na na", &["na na"]));
    }

    #[test]
    fn an_answer_is_found_in_scripts_without_blanks() {
        for (document, answer) in [
            ("北京是中华人民共和国的首都。", "北京"),
            ("首都：东京。", "东京"),
            ("東京は日本の首都です。", "東京"),
            ("iPhone15を発表した", "iPhone15"),
            ("他们的iPhone。", "iphone"),
            ("수도는 서울이다", "서울"),
            ("กรุงเทพมหานครเป็นเมืองหลวง", "เมืองหลวง"),
            ("เมืองหลวงคือ Paris", "paris"),
        ] {
            assert!(mentions(document, &[answer]), "{document} {answer}");
        }
        assert!(!mentions("北京是首都", &["上海"]) && !mentions("Parisian 北京", &["Paris"]));
    }

    #[test]
    fn a_model_judges_with_yes_and_no_and_nothing_else() {
        assert_eq!(CompleterJudge::new(Says(" Yes.")).judge(&[interaction("")]).unwrap(), [Quality::Useful]);
        assert_eq!(CompleterJudge::new(Says("no")).judge(&[interaction("")]).unwrap(), [Quality::Noisy]);
        assert!(
            CompleterJudge::new(Says("perhaps")).judge(&[interaction("")]).unwrap_err().to_string().contains("perhaps")
        );
    }
}
