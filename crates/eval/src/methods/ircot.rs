//! Retrieval interleaved with a chain of thought (Trivedi et al. 2023, *Interleaving Retrieval with Chain-of-Thought Reasoning for
//! Knowledge-Intensive Multi-Step Questions*).

use std::collections::BTreeSet;
use std::time::Instant;

use zerosearch_generate::{Stop, TokenId};
use zerosearch_metrics::Author;
use zerosearch_rollout::show_documents;
use zerosearch_search::Document;
use zerosearch_text::{Codec, PromptTemplate, StopScanner};

use super::Method;
use crate::attempt::{Asked, Attempt};
use crate::prompts::encode_prompt;
use crate::session::{Asking, Prompted, Session};
use crate::{EvalError, Utterance};

/// One sentence of reasoning a turn, each the query of the next search, until a sentence says the answer. The last turn is the
/// reader's: it answers from all documents and thoughts.
///
/// With as many turns as an episode has, it searches as often as an episode can: with the question, and after each sentence but
/// the last possible one.
pub(crate) struct Ircot;

impl Method for Ircot {
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let began = Instant::now();
        // Refuses bounds that leave nothing to do, as an episode does.
        session.plan.config.validate()?;
        let reader = session.prompts.other("ircot_answer", session.plan.codec, &session.plan.format)?;
        let mut chains: Vec<Chain<'_>> = asked.iter().map(|asked| Chain::new(*asked)).collect();
        search(session, chains.iter_mut().collect());
        let sentences = session.plan.config.max_turns - 1;
        for turn in 0..sentences {
            think(session, &mut chains, turn)?;
            if turn + 1 < sentences {
                search(session, chains.iter_mut().filter(|chain| !chain.concluded).collect());
            }
        }
        read(session, &reader, &mut chains, began)?;
        session.progress.advance(chains.len() as u64);
        Ok(chains.into_iter().map(|chain| chain.attempt).collect())
    }
}

/// The reasoning about one question.
struct Chain<'a> {
    asked: Asked<'a>,
    /// Every document once, in the order of retrieval.
    documents: Vec<Document>,
    /// Number of documents after each search.
    ends: Vec<usize>,
    thoughts: Vec<String>,
    concluded: bool,
    attempt: Attempt,
}

impl<'a> Chain<'a> {
    fn new(asked: Asked<'a>) -> Self {
        let (documents, ends, thoughts) = (Vec::new(), Vec::new(), Vec::new());
        Self { asked, documents, ends, thoughts, concluded: false, attempt: Attempt::default() }
    }

    fn take(&mut self, found: Option<Vec<Document>>) {
        self.attempt.search_failures += usize::from(found.is_none());
        let known = self.documents.iter().map(|document| document.text().into_owned());
        let mut known: BTreeSet<String> = known.collect();
        let new = |document: &Document| known.insert(document.text().into_owned());
        self.documents.extend(found.unwrap_or_default().into_iter().filter(new));
        self.ends.push(self.documents.len());
    }

    /// The documents of each search in tokens, as many of them as an observation may have.
    fn shown(&self, session: &Session<'_>) -> Vec<TokenId> {
        let (codec, format) = (session.plan.codec, &session.plan.format);
        if self.documents.is_empty() {
            return codec.encode_document(&format.no_documents);
        }
        let text = show_documents(format, &self.documents);
        let lines: Vec<&str> = text.lines().collect();
        let (mut tokens, mut start) = (Vec::new(), 0);
        for end in &self.ends {
            let block = lines.get(start..*end).unwrap_or_default();
            start = *end;
            if block.is_empty() {
                continue;
            }
            if !tokens.is_empty() {
                tokens.extend(codec.encode_document("\n"));
            }
            let block = codec.encode_document(&format.escape_tags(&block.join("\n")));
            tokens.extend(block.into_iter().take(session.plan.config.max_observation_tokens));
        }
        tokens
    }

    fn prompt(&self, session: &Session<'_>, template: &PromptTemplate) -> Result<Vec<TokenId>, EvalError> {
        let codec = session.plan.codec;
        let thoughts = if self.thoughts.is_empty() { "none yet".to_owned() } else { self.thoughts.join(" ") };
        let values = [("documents", self.shown(session)), ("thoughts", codec.encode_document(&thoughts))];
        Ok(encode_prompt(codec, template, &self.asked.question.question, &values)?)
    }

    fn asking(&self) -> Asking {
        Asking { index: self.asked.index, sample: self.asked.sample, turn: self.thoughts.len() }
    }

    fn say(&mut self, author: Author, text: String) {
        self.attempt.transcript.push(Utterance { author, text });
    }
}

/// Searches with the last thought of each chain, and with the question where there is none yet.
fn search(session: &Session<'_>, chains: Vec<&mut Chain<'_>>) {
    if chains.is_empty() {
        return;
    }
    let query = |chain: &Chain<'_>| chain.thoughts.last().unwrap_or(&chain.asked.question.question).clone();
    let queries: Vec<String> = chains.iter().map(|chain| query(chain)).collect();
    let found = session.search(&queries.iter().map(String::as_str).collect::<Vec<_>>());
    for ((chain, query), found) in chains.into_iter().zip(queries).zip(found) {
        let before = chain.documents.len();
        chain.take(found);
        // Those of the question stand in the prompt.
        if !chain.thoughts.is_empty() && chain.documents.len() > before {
            let new = show_documents(&session.plan.format, &chain.documents[before..]);
            chain.say(Author::Observation, new);
        }
        chain.attempt.queries.push(query);
    }
}

/// One sentence for each chain that goes on.
fn think(session: &mut Session<'_>, chains: &mut [Chain<'_>], turn: usize) -> Result<(), EvalError> {
    let mut live: Vec<&mut Chain<'_>> = chains.iter_mut().filter(|chain| !chain.concluded).collect();
    let mut prompts = Vec::new();
    for chain in &mut live {
        let tokens = chain.prompt(session, session.prompt)?;
        chain.attempt.tokens_in += tokens.len();
        if turn == 0 {
            chain.say(Author::Prompt, session.plan.codec.decode(&tokens));
        }
        prompts.push(Prompted { asked: chain.asking(), tokens, stop: sentence_end(session.plan.codec) });
    }
    for (chain, said) in live.into_iter().zip(session.complete(prompts)?) {
        chain.attempt.tokens_out += said.tokens;
        chain.attempt.calls += 1;
        let sentence = first_sentence(&said.text).0.to_owned();
        chain.concluded = sentence.is_empty() || sentence.to_lowercase().contains("answer is");
        chain.say(Author::Policy, said.text);
        if !sentence.is_empty() {
            chain.thoughts.push(sentence);
        }
    }
    Ok(())
}

/// The answers.
fn read(
    session: &mut Session<'_>,
    reader: &PromptTemplate,
    chains: &mut [Chain<'_>],
    began: Instant,
) -> Result<(), EvalError> {
    let (codec, format) = (session.plan.codec, session.plan.format.clone());
    let mut prompts = Vec::new();
    for chain in chains.iter_mut() {
        let tokens = chain.prompt(session, reader)?;
        chain.attempt.tokens_in += tokens.len();
        chain.say(Author::Prompt, codec.decode(&tokens));
        let stop = StopScanner::new(codec, &format.stop_tags()).into_stop();
        // A number that no sentence has: the last turn of the budget.
        let asked = Asking { turn: session.plan.config.max_turns - 1, ..chain.asking() };
        prompts.push(Prompted { asked, tokens, stop });
    }
    for (chain, said) in chains.iter_mut().zip(session.complete(prompts)?) {
        chain.attempt.tokens_out += said.tokens;
        chain.attempt.calls += 1;
        chain.attempt.latency = said.ended.duration_since(began);
        chain.attempt.answer = format.extract_answer(&[&said.text]).map(str::to_owned);
        chain.say(Author::Policy, said.text);
    }
    Ok(())
}

/// Ends a turn with its first sentence.
fn sentence_end(codec: &Codec) -> Stop {
    let (codec, mut tokens) = (codec.clone(), Vec::new());
    Box::new(move |token| {
        tokens.push(token);
        // The whole text, since a token can go through a character; a sentence is short.
        first_sentence(&codec.decode(&tokens)).1
    })
}

/// The text up to the first line break, or the first full stop, question or exclamation mark with white space after it; and
/// whether it is known to end there, whatever comes next. A full stop after a single capital letter is an initial, and ends nothing.
fn first_sentence(text: &str) -> (&str, bool) {
    let text = text.trim_start();
    let line = text.lines().next().unwrap_or_default();
    let mut before = [' '; 2];
    let mut characters = line.char_indices().peekable();
    while let Some((start, sign)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let initial = before[1].is_uppercase() && !before[0].is_alphanumeric();
        let wide = "。！？".contains(sign);
        if wide || "!?".contains(sign) || sign == '.' && !initial {
            let sentence = &line[..start + sign.len_utf8()];
            match next {
                None => return (sentence, wide || line.len() < text.len()),
                Some(next) if wide || next.is_whitespace() => return (sentence, true),
                Some(_) => {}
            }
        }
        before = [before[1], sign];
    }
    (line.trim_end(), line.len() < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_a_reader_ends_them() {
        for (text, expected, ends) in [
            (" Lima is old. It is", "Lima is old.", true),
            ("Lima is old. ", "Lima is old.", true),
            ("Lima is old.", "Lima is old.", false),
            ("Lima is ", "Lima is", false),
            ("J. R. R. Tolkien was born at 3.5 km. He", "J. R. R. Tolkien was born at 3.5 km.", true),
            ("So the answer is: Lima", "So the answer is: Lima", false),
            ("\n\nOne line\nanother", "One line", true),
            ("Is it? Yes.", "Is it?", true),
            ("利马很老。它", "利马很老。", true),
            ("", "", false),
            (" \n", "", false),
        ] {
            assert_eq!(first_sentence(text), (expected, ends), "{text:?}");
        }
    }
}
