//! Labelled interactions as examples for fine-tuning: the loss falls on the documents only.

use zerosearch_generate::TokenId;
use zerosearch_lm::SftExample;
use zerosearch_search::runs_words_together;
use zerosearch_text::Codec;

use crate::{LabelledInteraction, SimulatorError, SimulatorPrompt, documents_text};

/// The signs that end a sentence or a document.
const ENDS: [char; 7] = ['.', '!', '?', '\n', '。', '！', '？'];

/// A labelled interaction as it is learnt once.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// The interaction.
    pub row: LabelledInteraction,
    /// The texts in its documents that decide whether the keyword is obeyed: golden answers, or the other answer of a contradiction.
    pub decisive: Vec<String>,
    /// How much more than another a token of theirs weighs.
    pub weight: f32,
    /// How much more the tokens before them weigh in the same sentence.
    pub sentence_weight: f32,
    /// Whether nothing after the first document is learnt.
    pub is_cut: bool,
}

impl Lesson {
    /// An interaction as it stands, with the weight of a token of a golden answer.
    pub fn new(row: LabelledInteraction, answer_weight: f32) -> Self {
        let decisive = row.interaction.golden_answers.clone();
        Self { row, decisive, weight: answer_weight, sentence_weight: 1.0, is_cut: false }
    }

    /// The prompt with its keyword, then the documents and end of text.
    ///
    /// # Errors
    /// When the template does not render.
    pub fn example(&self, prompt: &SimulatorPrompt, codec: &Codec) -> Result<SftExample, SimulatorError> {
        let i = &self.row.interaction;
        let text = prompt.render(&i.question, &i.golden_answers, &i.query, self.row.quality, i.documents.len())?;
        let mut completion = codec.encode_document(&documents_text(&i.documents));
        completion.extend(codec.eos_ids().first());
        if self.is_cut
            && let Some(end) = completion.iter().position(|token| codec.decode(&[*token]).contains('\n'))
        {
            completion.truncate(end + 1);
        }
        let mut example = SftExample::completion(&codec.encode(&text), &completion);
        for decisive in &self.decisive {
            // As a word in a sentence: with the blank before it, in scripts that have blanks.
            let blank = if decisive.starts_with(runs_words_together) { "" } else { " " };
            let decisive = codec.encode_document(&format!("{blank}{decisive}"));
            for start in occurrences(&completion, &decisive) {
                let is_end = |token: &TokenId| codec.decode(&[*token]).ends_with(ENDS);
                let ended = completion[..start].iter().rposition(is_end).map_or(0, |end| end + 1);
                example.weights[ended..start].iter_mut().for_each(|weight| *weight = weight.max(self.sentence_weight));
                example.weights[start..start + decisive.len()].fill(self.weight);
            }
        }
        Ok(example)
    }
}

/// One example for each interaction, as it stands: see [`Lesson::example`].
///
/// # Errors
/// When the template does not render.
pub fn sft_examples(
    rows: &[LabelledInteraction],
    prompt: &SimulatorPrompt,
    codec: &Codec,
    answer_weight: f32,
) -> Result<Vec<SftExample>, SimulatorError> {
    rows.iter().map(|row| Lesson::new(row.clone(), answer_weight).example(prompt, codec)).collect()
}

/// Where a sequence of tokens begins in another.
fn occurrences(tokens: &[TokenId], wanted: &[TokenId]) -> Vec<usize> {
    let length = wanted.len().max(1);
    (0..(tokens.len() + 1).saturating_sub(length)).filter(|start| tokens[*start..].starts_with(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use zerosearch_search::Quality;
    use zerosearch_text::{SpecialTokens, train_bpe};

    use super::*;
    use crate::Interaction;

    #[test]
    fn the_answers_tokens_weigh_more_and_the_prompts_nothing() {
        let texts = (0..20).map(|_| "the capital of Chad is Moundou and the capital of Moundou is Chad".to_string());
        let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
        let codec = train_bpe(texts, 300, &[], &special).unwrap();
        let interaction = Interaction {
            question: "the capital of Chad".into(),
            golden_answers: vec!["Moundou".into()],
            query: "capital".into(),
            documents: vec!["the capital is Moundou".into(), "Chad is Chad".into()],
        };
        let row = LabelledInteraction { interaction, quality: Quality::Useful };
        let example =
            sft_examples(std::slice::from_ref(&row), &SimulatorPrompt::sft().unwrap(), &codec, 6.0).unwrap().remove(0);
        let answer = codec.encode_document(" Moundou");
        let heavy = example.positions.iter().zip(&example.weights).filter(|(_, weight)| **weight > 1.0);
        let heavy: Vec<TokenId> = heavy.map(|(position, _)| example.tokens[*position]).collect();
        assert_eq!(heavy, answer);
        assert_eq!(example.positions.len(), example.weights.len());

        let docs = |text: &str| codec.encode_document(text);
        let lesson = Lesson { sentence_weight: 2.0, is_cut: true, ..Lesson::new(row, 6.0) };
        let cut = lesson.example(&SimulatorPrompt::sft().unwrap(), &codec).unwrap();
        // The first document, its end of line, and no end of text.
        assert_eq!(cut.positions.len(), docs("Doc 1: the capital is Moundou\n").len());
        let of = |wanted: f32| cut.weights.iter().filter(|weight| **weight == wanted).count();
        assert_eq!((of(6.0), of(1.0)), (answer.len(), 1), "all but the end of line is one sentence: {:?}", cut.weights);
        assert_eq!(occurrences(&[1, 2, 1, 2, 1], &[1, 2, 1]), [0, 2]);
        assert_eq!(occurrences(&[1], &[1, 2]), Vec::<usize>::new());
    }
}
