//! Observations, in text and in tokens.

use zerosearch_grammar::EpisodeFormat;
use zerosearch_text::{Codec, encode_information};
use zerosearch_trajectory::TokenId;

use crate::{RolloutError, ToolOutput};

/// The policy's next input after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The tokens that it reads.
    pub tokens: Vec<TokenId>,
    /// The same as text.
    pub text: String,
    /// Number of the output's tokens that did not fit.
    pub cut_tokens: usize,
}

/// Words observations for one tokenizer, within a number of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Observations<'a> {
    codec: &'a Codec,
    format: &'a EpisodeFormat,
    max_tokens: usize,
    /// Tokens of the opening and of the closing tag.
    open: usize,
    close: usize,
}

impl<'a> Observations<'a> {
    /// Observations of at most `max_tokens` tokens.
    ///
    /// # Errors
    /// When one of the fixed observations is longer than that, or the tags leave no room for an output.
    pub fn new(codec: &'a Codec, format: &'a EpisodeFormat, max_tokens: usize) -> Result<Self, RolloutError> {
        let length = |text: &str| codec.encode(text).len();
        let (open, close) = (length(&format.information_open()), length(&format.information_close()));
        let needed = (open + close + 1).max(length(&format.corrective)).max(length(&format.failure()));
        if max_tokens < needed {
            return Err(RolloutError::ObservationBound { max: max_tokens, needed });
        }
        Ok(Self { codec, format, max_tokens, open, close })
    }

    /// After a turn that was neither a call nor an answer.
    pub fn corrective(&self) -> Observation {
        self.fixed(self.format.corrective.clone())
    }

    /// After a call: what the tool says, or word of its failure. What is too long is cut inside, the closing tag never is.
    pub fn of(&self, output: &ToolOutput) -> Observation {
        let Ok(body) = &output.text else { return self.fixed(self.format.failure()) };
        let mut tokens = encode_information(self.codec, self.format, body);
        let cut_tokens = tokens.len().saturating_sub(self.max_tokens);
        let text = if cut_tokens == 0 {
            self.format.information(body)
        } else {
            let end = tokens.len() - self.close;
            tokens.drain(end - cut_tokens..end);
            let kept = self.codec.decode(&tokens[self.open..end - cut_tokens]);
            self.format.information_open() + &kept + &self.format.information_close()
        };
        Observation { tokens, text, cut_tokens }
    }

    fn fixed(&self, text: String) -> Observation {
        Observation { tokens: self.codec.encode(&text), text, cut_tokens: 0 }
    }
}
