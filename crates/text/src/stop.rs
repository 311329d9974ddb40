//! Finding strings in a stream of tokens, wherever the token borders fall.

use zerosearch_trajectory::TokenId;

use crate::{Codec, IncrementalDecoder};

/// Says at which token a stop string is complete.
///
/// The text is searched, not the tokens: a stop string may begin in the middle of a token, cross any
/// number of borders, and be followed by more text in the token that completes it.
#[derive(Clone, Debug)]
pub struct StopScanner {
    codec: Codec,
    stops: Vec<String>,
    decoder: IncrementalDecoder,
    /// The end of the settled text, long enough to hold the beginning of a stop string.
    recent: String,
}

impl StopScanner {
    /// Looks for any of `stops`; an empty string is never found.
    pub fn new<S: AsRef<str>>(codec: &Codec, stops: &[S]) -> Self {
        Self {
            codec: codec.clone(),
            stops: stops.iter().map(|stop| stop.as_ref().to_owned()).collect(),
            decoder: IncrementalDecoder::new(codec),
            recent: String::new(),
        }
    }

    /// Takes the next token; the index of the stop string that is complete with it, if one is.
    /// Of several, the one that ends first. After a stop string the scanner begins anew.
    pub fn push(&mut self, token: TokenId) -> Option<usize> {
        self.recent.push_str(&self.decoder.push(token));
        let settled = self.recent.len();
        self.recent.push_str(self.decoder.pending());
        let ends = self
            .stops
            .iter()
            .enumerate()
            .filter(|(_, stop)| !stop.is_empty())
            .filter_map(|(index, stop)| self.recent.find(stop.as_str()).map(|start| (start + stop.len(), index)));
        let found = ends.min().map(|(_, index)| index);
        if found.is_some() {
            self.recent.clear();
            self.decoder = IncrementalDecoder::new(&self.codec);
        } else {
            self.recent.truncate(settled);
            let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
            let cut = self.recent.floor_char_boundary(settled.saturating_sub(longest));
            self.recent.drain(..cut);
        }
        found
    }

    /// The scanner as the stop condition of a generator's turn.
    pub fn into_stop(mut self) -> Box<dyn FnMut(TokenId) -> bool + Send> {
        Box::new(move |token| self.push(token).is_some())
    }
}
