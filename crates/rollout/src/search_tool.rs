//! Search as a tool.

use zerosearch_generate::Stream;
use zerosearch_grammar::SEARCH_TAG;
use zerosearch_search::{Document, Quality, Query, SearchEngine, SimulationContext};

use crate::{Noise, Tool, ToolCall, ToolOutput};

/// A search engine as the tool `search`.
#[derive(Clone, Copy)]
pub struct SearchTool<'a> {
    engine: &'a dyn SearchEngine,
    top_k: usize,
    noise: Noise<'a>,
}

impl<'a> SearchTool<'a> {
    /// Asks this engine for `top_k` documents, and shows no more.
    pub fn new(engine: &'a dyn SearchEngine, top_k: usize) -> Self {
        Self { engine, top_k, noise: Noise::Off }
    }

    /// Also tells the engine what a simulated one needs.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise<'a>) -> Self {
        self.noise = noise;
        self
    }

    fn query<'c>(&self, call: &ToolCall<'c>, quality: Option<Quality>) -> Query<'c> {
        let context = quality.map(|quality| SimulationContext {
            question: &call.task.question,
            answers: &call.task.golden_answers,
            quality,
            seed: Stream { purpose: "simulator", ..call.stream }.value(),
        });
        Query { text: call.input, top_k: self.top_k, context }
    }

    fn output(&self, call: &ToolCall<'_>, found: &[Document]) -> ToolOutput {
        let found = &found[..found.len().min(self.top_k)];
        let documents: Vec<String> = found.iter().map(|document| document.text().into_owned()).collect();
        let shown: Vec<(&str, &str)> = match call.format.shows_titles() {
            true => found.iter().map(title_and_text).collect(),
            false => documents.iter().map(|text| ("", text.as_str())).collect(),
        };
        let output = ToolOutput::new(call.format.documents(&shown));
        ToolOutput { documents, ..output }
    }
}

impl Tool for SearchTool<'_> {
    fn tag(&self) -> &str {
        SEARCH_TAG
    }

    /// As the engine says.
    fn concurrency(&self) -> usize {
        self.engine.concurrency()
    }

    fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
        let qualities: Vec<_> = calls.iter().map(|call| self.noise.draw(call.stream)).collect();
        let queries: Vec<Query<'_>> =
            calls.iter().zip(&qualities).map(|(call, quality)| self.query(call, *quality)).collect();
        let results = self.engine.search_batch(&queries);
        let answered = results.len();
        let mut results = results.into_iter();
        let output = |(call, quality)| {
            // If the counts differ, results cannot be matched to queries.
            let output = match results.next() {
                Some(Ok(found)) if answered == calls.len() => self.output(call, &found),
                Some(Err(error)) if answered == calls.len() => ToolOutput::failure(error.to_string()),
                _ => ToolOutput::failure(format!("the engine gave {answered} results for {} queries", calls.len())),
            };
            ToolOutput { quality, ..output }
        };
        calls.iter().zip(qualities).map(output).collect()
    }
}

/// A document whose title stands apart. Search-R1's corpora have it in the first line of the contents, in quotation marks.
fn title_and_text(document: &Document) -> (&str, &str) {
    match (document.contents.split_once('\n'), &document.title) {
        (Some((title, text)), _) => (title.trim().trim_matches('"'), text),
        (None, Some(title)) => (title.trim_matches('"'), &document.contents),
        (None, None) => ("", &document.contents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_stands_in_the_first_line_or_by_itself() {
        let document = |title: Option<&str>, contents: &str| Document {
            title: title.map(str::to_owned),
            contents: contents.into(),
            ..Document::default()
        };
        assert_eq!(title_and_text(&document(None, "\"Lima\"\nA city.\nIn Peru.")), ("Lima", "A city.\nIn Peru."));
        assert_eq!(title_and_text(&document(Some("Lima"), "\"Lima\"\nA city.")), ("Lima", "A city."));
        assert_eq!(title_and_text(&document(Some("Lima"), "A city.")), ("Lima", "A city."));
        assert_eq!(title_and_text(&document(None, "A city.")), ("", "A city."));
    }
}
