//! Decoding token by token without ever showing half a character.

use zerosearch_trajectory::TokenId;

use crate::Codec;

/// Turns tokens into text as they come.
///
/// The text that [`push`](Self::push) returned so far is always a prefix of the decoded whole; with what
/// [`finish`](Self::finish) adds it *is* the decoded whole. A character whose bytes are spread over
/// several tokens appears when its last byte does. The cost of a token does not grow with the text.
#[derive(Clone, Debug)]
pub struct IncrementalDecoder {
    codec: Codec,
    /// The last tokens: enough of them that their text continues as the whole text would.
    window: Vec<TokenId>,
    /// Bytes of the window's text that were returned already.
    returned: usize,
    /// Tokens of the window up to the last border between two complete characters.
    settled: usize,
    /// The end of the window's text that may still change.
    pending: String,
}

impl IncrementalDecoder {
    /// Starts with an empty text.
    pub fn new(codec: &Codec) -> Self {
        Self { codec: codec.clone(), window: Vec::new(), returned: 0, settled: 0, pending: String::new() }
    }

    /// Takes the next token, returns the characters that are complete with it.
    pub fn push(&mut self, token: TokenId) -> String {
        if !self.codec.knows(token) {
            return String::new(); // decodes to nothing, and does not even end a run of byte tokens
        }
        self.window.push(token);
        let text = self.codec.decode(&self.window);
        let end = if self.codec.is_byte_token(token) {
            // One bad byte turns the whole run of byte tokens into U+FFFD, so none of it is settled.
            self.returned.min(text.len())
        } else {
            // Bytes that may be the beginning of a character decode to exactly one U+FFFD at the end.
            text.strip_suffix(char::REPLACEMENT_CHARACTER).map_or(text.len(), str::len)
        };
        let new = text.get(self.returned..end).unwrap_or_default().to_owned();
        self.pending = text.get(end..).unwrap_or_default().to_owned();
        self.returned = self.returned.max(end);
        if self.pending.is_empty() {
            self.forget_settled();
        }
        new
    }

    /// The text that would follow if no more tokens came: U+FFFD in place of an unfinished character, or nothing.
    pub fn pending(&self) -> &str {
        &self.pending
    }

    /// Ends the text, returns what was pending.
    pub fn finish(self) -> String {
        self.pending
    }

    /// Shortens the window to the tokens since the last border. They stay because some decoders
    /// treat the beginning of a text in their own way, and the next token does not begin it.
    fn forget_settled(&mut self) {
        let rest = self.codec.decode(&self.window[self.settled..]);
        if self.settled > 0 && !rest.is_empty() {
            self.window.drain(..self.settled);
            self.returned = rest.len();
        }
        self.settled = self.window.len();
    }
}
