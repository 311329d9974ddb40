//! Judges: documents in which the answer can be found are useful, others noisy.

use std::sync::atomic::{AtomicUsize, Ordering};

use zerosearch_generate::{Completer, CompletionRequest, Sampling};
use zerosearch_reward::normalize_answer;
use zerosearch_search::{Quality, runs_words_together};

use crate::each::complete_each;
use crate::thought::without_thoughts;
use crate::{Interaction, SimulatorError};

/// Room for yes or no.
const SHORT_REPLY: usize = 4;
/// Room for a thought before it.
const LONG_REPLY: usize = 1024;

/// Labels interactions.
pub trait Judge {
    /// One label for each interaction, in order.
    ///
    /// # Errors
    /// When the judge fails.
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError>;

    /// How many interactions it could not decide so far. They are labelled noisy.
    fn undecided(&self) -> usize {
        0
    }
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
/// do, since word boundaries are unknown.
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

/// A language model as judge, asked for yes or no. The first word of its reply decides, whatever stands around it.
///
/// A model that says neither at once is asked again with room for a thought. What it does not decide then either, or what it is not
/// asked because the request fails, is labelled noisy, counted and warned of.
pub struct CompleterJudge<C> {
    completer: C,
    undecided: AtomicUsize,
}

impl<C: Completer> CompleterJudge<C> {
    /// Asks this model.
    pub fn new(completer: C) -> Self {
        Self { completer, undecided: AtomicUsize::new(0) }
    }
}

fn request(interaction: &Interaction) -> CompletionRequest {
    CompletionRequest {
        prompt: format!(
            "Can the answer to the question be found in the documents? Reply with yes or no only.\n\
             Question: {}\nAnswer: {}\nDocuments:\n{}\nReply:",
            interaction.question,
            interaction.golden_answers.join(" / "),
            interaction.documents.join("\n")
        ),
        sampling: Sampling::greedy(),
        max_new_tokens: SHORT_REPLY,
        seed: 0,
        stop: vec!["\n".into()],
    }
}

impl<C: Completer> Judge for CompleterJudge<C> {
    /// # Errors
    /// When every request fails.
    fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError> {
        let mut labels: Vec<Option<Quality>> = vec![None; interactions.len()];
        // The last reply or failure of each, for the warning.
        let mut said = vec![String::new(); interactions.len()];
        let (mut answered, mut failure) = (false, None);
        for is_short in [true, false] {
            let open: Vec<usize> = (0..interactions.len()).filter(|index| labels[*index].is_none()).collect();
            let ask = |index: &usize| match request(&interactions[*index]) {
                short if is_short => short,
                short => CompletionRequest { max_new_tokens: LONG_REPLY, stop: Vec::new(), ..short },
            };
            let requests: Vec<CompletionRequest> = open.iter().map(ask).collect();
            for (index, reply) in open.into_iter().zip(complete_each(&self.completer, &requests)) {
                match reply {
                    Ok(reply) => {
                        answered = true;
                        labels[index] = verdict(&reply.text);
                        said[index] = reply.text;
                    }
                    Err(error) => {
                        said[index] = error.to_string();
                        failure = Some(error);
                    }
                }
            }
        }
        if let (false, Some(failure)) = (answered, failure) {
            return Err(failure.into());
        }
        let undecided: Vec<usize> = (0..labels.len()).filter(|index| labels[*index].is_none()).collect();
        if let Some(first) = undecided.first() {
            let example: String = said[*first].chars().take(80).collect();
            let (count, all) = (undecided.len(), labels.len());
            tracing::warn!("the judge said neither yes nor no on {count} of {all} searches, for example {example:?}");
            self.undecided.fetch_add(count, Ordering::Relaxed);
        }
        Ok(labels.into_iter().map(|label| label.unwrap_or(Quality::Noisy)).collect())
    }

    fn undecided(&self) -> usize {
        self.undecided.load(Ordering::Relaxed)
    }
}

/// The label that a reply stands for: that of its first word. Passed over are thoughts, signs, tags, the number of a list and
/// headings such as `Answer:`.
fn verdict(reply: &str) -> Option<Quality> {
    let reply: String = without_thoughts(reply).chars().map(half_width).collect();
    let reply = reply.to_lowercase();
    let mut rest = reply.as_str();
    loop {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '<' | '\\'));
        if let Some(tag) = rest.strip_prefix('<') {
            rest = tag.split_once('>').map_or(tag, |(_, after)| after);
            continue;
        }
        if let Some(command) = rest.strip_prefix('\\') {
            // As in \boxed{Yes}.
            rest = command.split_once('{').map_or(command, |(_, after)| after);
            continue;
        }
        let (word, after) = rest.split_at(word_length(rest));
        let (label, other) = match word {
            "" => return None,
            "yes" => (Quality::Useful, "no"),
            "no" => (Quality::Noisy, "yes"),
            _ if word.bytes().all(|byte| byte.is_ascii_digit()) && after.starts_with(['.', ')']) => {
                rest = after;
                continue;
            }
            _ => {
                let (heading, after) = rest.split_once(':')?;
                let words: Vec<&str> =
                    heading.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
                if words.len() > 3 || words.contains(&"yes") || words.contains(&"no") {
                    return None;
                }
                rest = after;
                continue;
            }
        };
        return Some(label).filter(|_| !is_choice(after, other));
    }
}

/// Whether the question's choice was repeated, as in `yes/no` and `yes or no`.
fn is_choice(after: &str, other: &str) -> bool {
    let after = after.trim_start();
    let rest = after.strip_prefix(['/', '|']).or(after.strip_prefix("or ")).map(str::trim_start);
    rest.is_some_and(|rest| &rest[..word_length(rest)] == other)
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len())
}

/// The ASCII sign that a full-width one is a form of.
fn half_width(c: char) -> char {
    match c {
        '！'..='～' => char::from_u32(c as u32 - '！' as u32 + '!' as u32).unwrap_or(c),
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosearch_generate::{Completion, GenerateError};

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
    #[rustfmt::skip]
    fn the_first_word_decides_whatever_is_around_it() {
        for reply in [
            "yes", " Yes.", "YES!", "Yes, it", "Yes\nQuestion:", "\n\nyes", "yes - the", "yes—the", "**Yes**",
            "_yes_", "`Yes`", "\"Yes\"", "“Yes”", "(yes)", "[Yes]", "- Yes", "* Yes", "> yes", "1. Yes", "1) yes",
            "# Yes", "✅ Yes", "\u{feff}Yes", "Answer: Yes", "**Answer:** yes", "Final answer: **Yes**", "Reply：Yes",
            "{\"verdict\": \"yes\"}", "<answer>Yes</answer>", "\\boxed{Yes}", "$\\boxed{\\text{yes}}$", "Ｙｅｓ",
            "Yes。", "Yes, or so it seems", "Yes. No doubt.", "Yes/maybe", "<think>\nNo? No.\n</think>\n\nYes",
            "No document at first.\n</think>Yes", "<think></think>\nYes.",
        ] {
            assert_eq!(verdict(reply), Some(Quality::Useful), "{reply:?}");
        }
        for reply in [
            "no", "No.", "\"No\"", "No, none of", "no documents", "Verdict: no", "NO\u{a0}", "No yes",
            "<think>Yes</think>no",
        ] {
            assert_eq!(verdict(reply), Some(Quality::Noisy), "{reply:?}");
        }
        for reply in [
            "", " ", "\n", "...", "perhaps", "Nope", "Not", "None of", "yesterday", "yes1", "Ja", "はい", "True",
            "The answer is yes", "yes/no", "Yes or no", "no | yes", "yes / no?", "Reply with one word: yes or no",
            "1", "42 yes", "<think>\nYes, it", "<think>yes</think>", "I do not know what it is: yes", "<", "\\",
            "{\"verdict\": null}",
        ] {
            assert_eq!(verdict(reply), None, "{reply:?}");
        }
    }

    /// Replies by the document's first word: what the model says at once, and what with room for a thought.
    struct Replies(fn(&str, usize) -> Result<&'static str, GenerateError>);

    impl Completer for Replies {
        fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
            let reply = |request: &CompletionRequest| {
                let document = request.prompt.lines().rev().nth(1).unwrap_or_default();
                (self.0)(document, request.max_new_tokens).map(|text| Completion { text: text.into(), tokens: 1 })
            };
            requests.iter().map(reply).collect()
        }
    }

    #[test]
    fn what_is_neither_is_noisy_and_counted_and_costs_no_other() {
        let judge = CompleterJudge::new(Replies(|document, room| match (document, room) {
            ("odd", _) => Ok("perhaps"),
            ("empty", _) => Ok(""),
            ("too long", _) => Err(GenerateError::PromptTooLong { length: 9, context: 8 }),
            ("thoughtful", SHORT_REPLY) => Ok("<think>\nThe"),
            ("thoughtful", _) => Ok("<think>\nThe answer is there.\n</think>\n\nYes"),
            _ => Ok("Yes"),
        }));
        let documents = ["odd", "plain", "too long", "thoughtful", "empty", "plain"];
        let labels = judge.judge(&documents.map(interaction)).unwrap();
        use Quality::{Noisy, Useful};
        assert_eq!(labels, [Noisy, Useful, Noisy, Useful, Noisy, Useful]);
        assert_eq!(judge.undecided(), 3);
        assert_eq!(judge.judge(&[interaction("odd")]).unwrap(), [Noisy]);
        assert_eq!(judge.undecided(), 4);
        assert_eq!(judge.judge(&[]).unwrap(), []);
    }

    #[test]
    fn a_judge_that_cannot_be_asked_at_all_is_an_error() {
        let judge = CompleterJudge::new(Replies(|_, _| Err(GenerateError::Engine("it is down".into()))));
        let error = judge.judge(&[interaction("a"), interaction("b")]).unwrap_err().to_string();
        assert!(error.contains("it is down"), "{error}");
    }

    #[test]
    fn a_short_reply_is_asked_for_once() {
        let judge = CompleterJudge::new(Replies(|_, room| match room {
            SHORT_REPLY => Ok("no"),
            _ => Ok("yes"),
        }));
        assert_eq!(judge.judge(&[interaction("")]).unwrap(), [Quality::Noisy]);
    }
}
