//! Labelled interactions as examples for fine-tuning: the loss falls on the documents only.

use zerosearch_lm::SftExample;
use zerosearch_text::Codec;

use crate::{LabelledInteraction, SimulatorError, SimulatorPrompt, documents_text};

/// One example for each interaction: the prompt with its keyword, then the documents and end of text.
///
/// # Errors
/// When the template does not render.
pub fn sft_examples(
    rows: &[LabelledInteraction],
    prompt: &SimulatorPrompt,
    codec: &Codec,
) -> Result<Vec<SftExample>, SimulatorError> {
    let example = |row: &LabelledInteraction| {
        let i = &row.interaction;
        let text = prompt.render(&i.question, &i.golden_answers, &i.query, row.quality, i.documents.len())?;
        let mut completion = codec.encode_document(&documents_text(&i.documents));
        completion.extend(codec.eos_ids().first());
        Ok(SftExample::completion(&codec.encode(&text), &completion))
    };
    rows.iter().map(example).collect()
}
