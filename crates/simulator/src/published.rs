//! The prompt and the completion of a published fine-tuning example, read back into an interaction.
//!
//! The released `SimulationTuning_dataset` holds texts: a prompt that carries keyword, question, answer and query, and the
//! documents as `Doc n: …` lines.

use serde_json::{Map, Value, json};
use zerosearch_data::{Question, RowProblem};
use zerosearch_search::Quality;

use crate::{Interaction, LabelledInteraction};

/// The template as its authors published it, for messages.
const TEMPLATE: &str = "ZeroSearch's template: `… generate N useful|noisy documents …`, `… answer the question: \"Q\" whose answer \
                        is A.`, `Query: …` and `Useful Output:` or `Noisy Output:`";
const DOCUMENTS: &str = "at least one document, as `Doc 1: …` lines";

/// Reads an example of the published template. `key` names the prompt in messages.
pub(crate) fn parse_example(
    key: &'static str,
    prompt: &str,
    completion: &str,
) -> Result<LabelledInteraction, RowProblem> {
    let misfit = || RowProblem::new(key, Some(&json!(prompt)), TEMPLATE);
    let (quality, question, answer, query) = parse_prompt(prompt).ok_or_else(misfit)?;
    let documents = split_documents(completion);
    if documents.is_empty() {
        return Err(RowProblem::new("output", Some(&json!(completion)), DOCUMENTS));
    }
    // An answer may be a list that was written into the text.
    let row = [("id", "row"), ("question", question), ("golden_answers", answer)];
    let row: Map<String, Value> = row.into_iter().map(|(key, text)| (key.into(), text.into())).collect();
    let golden_answers = Question::try_from(row).map_err(|_| misfit())?.golden_answers;
    let interaction = Interaction { question: question.into(), golden_answers, query: query.into(), documents };
    Ok(LabelledInteraction { interaction, quality })
}

/// Keyword, question, answer and query of a prompt.
fn parse_prompt(prompt: &str) -> Option<(Quality, &str, &str, &str)> {
    // The last ones: a template with a worked example has the labels twice.
    let (end, quality) = [Quality::Useful, Quality::Noisy]
        .into_iter()
        .filter_map(|quality| {
            let label = if quality == Quality::Useful { "Useful Output:" } else { "Noisy Output:" };
            Some((prompt.rfind(label)?, quality))
        })
        .max_by_key(|(at, _)| *at)?;
    let before = &prompt[..end];
    let at_line_start =
        |at: &usize| before[..*at].trim_end_matches([' ', '\t']).chars().next_back().is_none_or(|c| c == '\n');
    let label = "Query:";
    let start = before.match_indices(label).map(|(at, _)| at).filter(at_line_start).last().or(before.rfind(label))?;
    let query = before[start + label.len()..].trim();
    let (_, told) = before[..start].rsplit_once("answer the question:")?;
    // The question may have these words itself.
    let told = told.split_once("\nEach document").or(told.split_once(" Each document")).map_or(told, |(told, _)| told);
    let told = told.trim().lines().next()?;
    let (question, answer) = told.rsplit_once(" whose answer is ")?;
    let answer = answer.trim_end();
    let answer = answer.strip_suffix('.').unwrap_or(answer).trim();
    let question = question.trim();
    let question = question.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(question).trim();
    let complete = [question, answer, query].iter().all(|text| !text.is_empty());
    complete.then_some((quality, question, answer, query))
}

/// The documents of a completion. A document begins at its label, `Doc 1:` or, with a title, `Doc 1(Title: "…")`, and may go on over
/// lines; without any label each line is one.
fn split_documents(text: &str) -> Vec<String> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().all(|line| unlabelled(line).is_none()) {
        return lines().map(str::to_string).collect();
    }
    let mut documents: Vec<String> = Vec::new();
    for line in lines() {
        match (unlabelled(line), documents.last_mut()) {
            (Some(document), _) => documents.push(document),
            (None, Some(last)) if last.is_empty() => last.push_str(line),
            (None, Some(last)) => {
                last.push(' ');
                last.push_str(line);
            }
            // Words before the first label.
            (None, None) => {}
        }
    }
    documents.retain(|document| !document.is_empty());
    documents
}

/// The text behind a document's label, the title first if it has one.
fn unlabelled(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Doc ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let rest = rest[digits..].trim_start();
    if digits == 0 {
        return None;
    }
    if let Some(text) = rest.strip_prefix(':') {
        return Some(text.trim().to_string());
    }
    let (title, text) = rest.strip_prefix("(Title:")?.split_once(')')?;
    let (title, text) = (title.trim().trim_matches('"'), text.trim_start_matches(':').trim());
    Some(if title.is_empty() || text.starts_with(title) { text.into() } else { format!("{title}: {text}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(question: &str, answer: &str, query: &str, keyword: &str, label: &str) -> String {
        format!(
            "You are the Google search engine.\nGiven a query, you need to generate five {keyword} documents for the query.\n\n\
             The user is trying to answer the question: {question} whose answer is {answer}.\n\
             Each document should contain about 30 words, and these documents should contain {keyword} information.\n\n\
             Query: {query}\n{label} Output:\n"
        )
    }

    #[test]
    fn the_published_template_is_read_back() {
        for (question, answer, query, expected) in [
            (
                "\"What is the capital of Chad?\"",
                "N'Djamena",
                "capital Chad",
                ("What is the capital of Chad?", vec!["N'Djamena"]),
            ),
            ("What is it?", "U.S.", "q", ("What is it?", vec!["U.S."])),
            ("\"Who?\"", "['Lima', 'City of Kings']", "who", ("Who?", vec!["Lima", "City of Kings"])),
            ("\"Who?\"", "['Lima' 'Callao']", "who", ("Who?", vec!["Lima", "Callao"])),
            ("\"Who asked whose answer is no?\"", "Bob", "Query: who", ("Who asked whose answer is no?", vec!["Bob"])),
            ("\"He said \"no\"?\"", "1.5", "two\nlines", ("He said \"no\"?", vec!["1.5"])),
        ] {
            for (keyword, label, quality) in [("useful", "Useful", Quality::Useful), ("noisy", "Noisy", Quality::Noisy)]
            {
                let text = prompt(question, answer, query, keyword, label);
                let row = parse_example("instruction", &text, "Doc 1: a\nDoc 2: b").unwrap();
                assert_eq!(row.quality, quality);
                let i = row.interaction;
                assert_eq!((i.question.as_str(), i.query.as_str()), (expected.0, query), "{text}");
                assert_eq!(i.golden_answers, expected.1);
            }
        }
    }

    #[test]
    fn our_own_prompts_are_read_back_too() {
        let template = crate::SimulatorPrompt::sft().unwrap();
        let text = template.render("Who?", &["Ada".into()], "the who", Quality::Noisy, 3).unwrap();
        assert_eq!(parse_prompt(&text), Some((Quality::Noisy, "Who?", "Ada", "the who")));
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused_by_its_key() {
        let good = prompt("\"Who?\"", "Ada", "who", "useful", "Useful");
        for bad in ["Summarize this.", &good.replace("Useful Output:", ""), &good.replace("whose answer is", "is")] {
            let message = parse_example("instruction", bad, "Doc 1: a").unwrap_err().to_string();
            assert!(message.starts_with("`instruction` is ") && message.contains("ZeroSearch's template"), "{message}");
        }
        let message = parse_example("instruction", &good, " \n").unwrap_err().to_string();
        assert!(message.starts_with("`output` is ") && message.contains("Doc 1"), "{message}");
    }

    #[test]
    fn documents_are_split_at_their_labels() {
        for (text, expected) in [
            ("Doc 1: a\nDoc 2: b", vec!["a", "b"]),
            ("Doc 1: a\ngoes on\n\nDoc 2: b\n", vec!["a goes on", "b"]),
            ("Here they are:\nDoc 1: a\nDoc 2:\nb", vec!["a", "b"]),
            (
                "Doc 1(Title: \"Chad\") It is a country.\nDoc 2 (Title: \"Chad\"): Chad is big.",
                vec!["Chad: It is a country.", "Chad is big."],
            ),
            ("one\ntwo\n", vec!["one", "two"]),
            ("Doc A is a film: it ends", vec!["Doc A is a film: it ends"]),
            ("", vec![]),
        ] {
            assert_eq!(split_documents(text), expected, "{text:?}");
        }
    }
}
