//! Search inside reasoning, with a reason-in-documents step (Li et al. 2025, *Search-o1: Agentic Search-Enhanced Large Reasoning
//! Models*).

use std::cell::RefCell;
use std::collections::BTreeMap;

use zerosearch_generate::TokenId;
use zerosearch_grammar::{EpisodeFormat, SEARCH_TAG, opening_tag};
use zerosearch_metrics::Author;
use zerosearch_rollout::{Condenser, Reading, TurnRecord, Written};
use zerosearch_text::{Codec, PromptTemplate, TextError};

use super::Method;
use crate::attempt::{Asked, Attempt};
use crate::prompts::encode_prompt;
use crate::session::Session;
use crate::{EvalError, Utterance};

/// Searches as the policy likes. It never sees the documents: the model reads them in a sequence of its own, with the reasoning
/// so far and the query before it, and the helpful part that it writes down there is the observation.
pub(crate) struct SearchO1;

/// The words before the information in a reading, as in the released program.
const MARKER: &str = "**Final Information**";

/// The information of a reading without the marker, as in the released program.
const NOTHING: &str = "No helpful information found.";

/// A longer reasoning is shown by its first step, its last four, and those with a search or its information.
const STEPS: usize = 5;

impl Method for SearchO1 {
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let (codec, format) = (session.plan.codec, &session.plan.format.clone());
        let template = session.prompts.other("search_o1_condense", codec, format)?;
        let reader = Reader { codec, format, template, readings: RefCell::default() };
        // A template that fails does so here, and not in the middle of the episodes.
        reader.prompt_of("", "", "", "")?;
        let openings = session.open(asked)?;
        let tasks = openings.iter().map(|opening| opening.task.clone()).collect();
        let rollouts = session.rollouts(tasks, session.plan.config.max_turns, Some(&reader))?;
        let mut readings = reader.readings.into_inner();
        let attempt = |(opening, (rollout, latency))| {
            let mut attempt = Attempt::of(opening, &rollout, latency, format);
            insert(&mut attempt, readings.remove(&(rollout.question_index, rollout.sample)).unwrap_or_default());
            attempt
        };
        Ok(openings.into_iter().zip(rollouts).map(attempt).collect())
    }
}

struct Reader<'a> {
    codec: &'a Codec,
    format: &'a EpisodeFormat,
    template: PromptTemplate,
    /// By question and sample.
    readings: RefCell<BTreeMap<(u64, u64), Vec<Done>>>,
}

/// A reading that ended.
struct Done {
    /// Number of the policy's turns before it.
    turns: usize,
    prompt: String,
    text: String,
    tokens_in: usize,
    tokens_out: usize,
}

impl Reader<'_> {
    fn prompt_of(
        &self,
        question: &str,
        reasoning: &str,
        query: &str,
        documents: &str,
    ) -> Result<Vec<TokenId>, TextError> {
        let values = [("reasoning", reasoning), ("query", query), ("documents", documents)];
        let values = values.map(|(name, text)| (name, self.codec.encode_document(text)));
        encode_prompt(self.codec, &self.template, question, &values)
    }

    fn prompt_for(&self, reading: &Reading<'_>) -> Option<Vec<TokenId>> {
        let Reading { task, turns, call, output } = *reading;
        self.prompt_of(&task.question, &steps(turns, self.format), &call.input, output).ok()
    }
}

impl Condenser for Reader<'_> {
    fn prompt(&self, reading: &Reading<'_>) -> Option<Vec<TokenId>> {
        // Nothing was found, and there is nothing to read.
        if reading.call.documents.is_empty() { None } else { self.prompt_for(reading) }
    }

    fn condensed(&self, reading: &Reading<'_>, written: &Written<'_>) -> String {
        let Written { prompt_tokens, tokens, text } = *written;
        let prompt = self.prompt_for(reading).map(|prompt| self.codec.decode(&prompt)).unwrap_or_default();
        let done = Done {
            turns: reading.turns.len(),
            prompt,
            text: text.to_owned(),
            tokens_in: prompt_tokens,
            tokens_out: tokens,
        };
        let name = (reading.task.question_index, reading.task.sample);
        self.readings.borrow_mut().entry(name).or_default().push(done);
        information(text)
    }
}

/// The helpful part of a reading.
fn information(text: &str) -> String {
    let found = text.rsplit_once(MARKER).map(|(_, found)| found.trim().trim_matches('`').trim());
    found.filter(|found| !found.is_empty()).unwrap_or(NOTHING).to_owned()
}

/// The reasoning so far in numbered steps, one a line of the episode.
fn steps(turns: &[TurnRecord], format: &EpisodeFormat) -> String {
    let mut text = String::new();
    for turn in turns {
        text.extend([&turn.text, "\n", turn.observation.as_deref().unwrap_or_default(), "\n"]);
    }
    let steps: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (search, information) = (opening_tag(SEARCH_TAG), opening_tag(&format.information));
    let mut shown: Vec<String> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let kept = steps.len() <= STEPS || index == 0 || index + 4 >= steps.len();
        if kept || step.contains(&search) || step.contains(&information) {
            shown.push(format!("Step {}: {step}", index + 1));
        } else if shown.last().is_some_and(|last| last != "...") {
            shown.push("...".to_owned());
        }
    }
    shown.join("\n\n")
}

/// Puts the readings into a transcript, each between its search and the observation.
fn insert(attempt: &mut Attempt, readings: Vec<Done>) {
    attempt.condensations = readings.len();
    attempt.calls += readings.len();
    for Done { turns, prompt, text, tokens_in, tokens_out } in readings.into_iter().rev() {
        attempt.tokens_in += tokens_in;
        attempt.tokens_out += tokens_out;
        let policy = attempt.transcript.iter().enumerate().filter(|(_, it)| it.author == Author::Policy);
        let Some(place) = policy.map(|(place, _)| place + 1).nth(turns.saturating_sub(1)) else { continue };
        let exchange = [(Author::Prompt, prompt), (Author::Policy, text)];
        attempt.transcript.splice(place..place, exchange.map(|(author, text)| Utterance { author, text }));
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_generate::Finish;
    use zerosearch_grammar::{Action, InvalidReason};

    use super::*;

    #[test]
    fn a_long_reasoning_keeps_its_ends_and_its_searches() {
        let turn = |text: &str, observation: Option<&str>| TurnRecord {
            text: text.into(),
            action: Action::Invalid(InvalidReason::NoTag),
            finish: Finish::Stop,
            call: None,
            observation: observation.map(str::to_owned),
            cut_tokens: 0,
        };
        let format = EpisodeFormat::default();
        let short = [turn("one\n\ntwo <search>a</search>", None)];
        assert_eq!(steps(&short, &format), "Step 1: one\n\nStep 2: two <search>a</search>");
        let information = "\n\n<information>b</information>\n\n";
        let long = [turn("1\n2\n3\n<search>a</search>", Some(information)), turn("6\n7\n8\n9\n10\n11", None)];
        assert_eq!(
            steps(&long, &format),
            "Step 1: 1\n\n...\n\nStep 4: <search>a</search>\n\nStep 5: <information>b</information>\n\n...\n\nStep 8: 8\n\nStep 9: 9\n\nStep 10: 10\n\nStep 11: 11"
        );
    }

    #[test]
    fn the_information_stands_after_the_last_marker() {
        for (text, expected) in [
            ("**Final Information**\n\nLima.\n", "Lima."),
            ("I look for **Final Information** first.\n**Final Information**\n```\nLima.\n```", "Lima."),
            ("Lima.", NOTHING),
            ("**Final Information**\n", NOTHING),
        ] {
            assert_eq!(information(text), expected, "{text}");
        }
    }
}
