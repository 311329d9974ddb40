//! What the policy is answered, in text and in tokens.

use zerosearch_search::{Document, Quality};
use zerosearch_text::{
    Codec, INFORMATION_CLOSE, INFORMATION_OPEN, corrective, encode_information, information, search_failed,
};
use zerosearch_trajectory::TokenId;

use crate::RolloutError;

/// The answer to one turn.
pub(crate) struct Observation {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) text: String,
    pub(crate) query: Option<String>,
    pub(crate) quality: Option<Quality>,
    pub(crate) documents: Vec<String>,
    pub(crate) failure: Option<String>,
    pub(crate) cut_tokens: usize,
}

/// Words observations for one tokenizer, within a number of tokens.
pub(crate) struct Observations<'a> {
    codec: &'a Codec,
    max_tokens: usize,
    /// Tokens of the opening and of the closing tag.
    open: usize,
    close: usize,
}

impl<'a> Observations<'a> {
    /// # Errors
    /// When one of the fixed observations is longer than `max_tokens`, or the tags leave no room
    /// for documents.
    pub(crate) fn new(codec: &'a Codec, max_tokens: usize) -> Result<Self, RolloutError> {
        let length = |text: &str| codec.encode(text).len();
        let (open, close) = (length(INFORMATION_OPEN), length(INFORMATION_CLOSE));
        let needed = (open + close + 1).max(length(corrective())).max(length(&search_failed()));
        if max_tokens < needed {
            return Err(RolloutError::ObservationBound { max: max_tokens, needed });
        }
        Ok(Self { codec, max_tokens, open, close })
    }

    /// After a turn without a search or an answer.
    pub(crate) fn corrective(&self) -> Observation {
        self.fixed(corrective().to_owned())
    }

    /// After a search: its documents, at most `top_k`, or word of its failure. What lets
    /// documents be cut inside but never the closing tag.
    pub(crate) fn of_search(&self, found: Result<Vec<Document>, String>, top_k: usize) -> Observation {
        let found = match found {
            Ok(found) => found,
            Err(failure) => return Observation { failure: Some(failure), ..self.fixed(search_failed()) },
        };
        let documents: Vec<String> = found.iter().take(top_k).map(|document| document.text().into_owned()).collect();
        let shown: Vec<&str> = documents.iter().map(String::as_str).collect();
        let mut tokens = encode_information(self.codec, &shown);
        let cut_tokens = tokens.len().saturating_sub(self.max_tokens);
        let text = if cut_tokens == 0 {
            information(&shown)
        } else {
            let end = tokens.len() - self.close;
            tokens.drain(end - cut_tokens..end);
            let body = &tokens[self.open..end - cut_tokens];
            format!("{INFORMATION_OPEN}{}{INFORMATION_CLOSE}", self.codec.decode(body))
        };
        Observation { tokens, text, query: None, quality: None, documents, failure: None, cut_tokens }
    }

    fn fixed(&self, text: String) -> Observation {
        Observation {
            tokens: self.codec.encode(&text),
            text,
            query: None,
            quality: None,
            documents: Vec::new(),
            failure: None,
            cut_tokens: 0,
        }
    }
}
