//! Text to token ids and back, for one model's tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{AddedVocabulary, Tokenizer};
use zerosearch_trajectory::TokenId;

use crate::files::{self, Files};
use crate::{ChatTemplate, Message, SpecialTokens, TextError};

/// A character that no vocabulary has as a token: shows what a tokenizer does with the unknown.
const UNHEARD_OF: &str = "\u{10ffff}";

/// A model's tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Codec {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// Recognises added tokens in the text.
    trusted: Tokenizer,
    /// The same tokenizer without any added token: their text is only text.
    untrusted: Tokenizer,
    /// Special tokens that the bare model would still produce from their text.
    forbidden: BTreeSet<TokenId>,
    /// Ids of tokens that stand for one byte, where the decoder joins such bytes to characters.
    byte_tokens: BTreeSet<TokenId>,
    vocab_size: usize,
    /// As `vocab_size`, without added tokens.
    own_size: usize,
    bos: Option<TokenId>,
    adds_bos: bool,
    eos: Vec<TokenId>,
    chat_template: Option<ChatTemplate>,
    search_prompt: Option<String>,
    files: Files,
}

impl Codec {
    /// Loads the tokenizer of a Hugging Face model folder.
    ///
    /// Reads `tokenizer.json`, and where they are there `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` (tokens that `tokenizer.json` lacks or has as
    /// common words), these, `generation_config.json` and `config.json` (ids of the
    /// beginning-of-text and end-of-text tokens), `chat_template.jinja` (else the
    /// `chat_template` of `tokenizer_config.json` or of `chat_template.json`) and `search_prompt.jinja`.
    ///
    /// # Errors
    /// When there is no `tokenizer.json`, or one of the files cannot be read or is malformed.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, TextError> {
        Self::from_files(Files::read(folder.as_ref())?)
    }

    /// Wraps a tokenizer built in memory.
    ///
    /// # Errors
    /// When a special token is not in its vocabulary, or it cannot encode text.
    pub fn new(tokenizer: &Tokenizer, special: &SpecialTokens) -> Result<Self, TextError> {
        Self::from_files(Files::describe(tokenizer, special)?)
    }

    fn from_files(files: Files) -> Result<Self, TextError> {
        let path = files.folder.join(files::TOKENIZER);
        let malformed = |message: String| TextError::Malformed { path: path.clone(), message };
        let text = files.text(files::TOKENIZER)?.unwrap_or_default();
        let mut trusted = Tokenizer::from_bytes(text)
            .map_err(|error| malformed(format!("not a tokenizer of the `tokenizers` library: {error}")))?;
        files.add_tokens(&mut trusted)?;
        // A limit meant for some other use of the tokenizer must not cut our texts.
        trusted.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        trusted.with_padding(None);
        let mut untrusted = trusted.clone();
        untrusted.with_added_vocabulary(AddedVocabulary::new());

        let (vocab_size, own_size) = (id_bound(&trusted), id_bound(&untrusted));
        if vocab_size == 0 {
            return Err(malformed("its vocabulary is empty".into()));
        }
        // Whatever a tokenizer can fail at, it fails at here and not in the middle of a run.
        let unknown: BTreeSet<TokenId> = untrusted
            .encode_fast(UNHEARD_OF, false)
            .map_err(|error| malformed(format!("it cannot encode an unknown character: {error}")))?
            .get_ids()
            .iter()
            .copied()
            .collect();
        let forbidden = trusted
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, token)| {
                token.special && !unknown.contains(id) && ids(&untrusted, &token.content).contains(id)
            })
            .map(|(id, _)| id)
            .collect();

        let special = files.special_ids(&|token| trusted.token_to_id(token))?;
        let asks_for_bos = files.asks_for_bos()?;
        let adds_bos = special.bos.is_some_and(|bos| asks_for_bos || begins_with(&trusted, bos));
        let inner = Inner {
            byte_tokens: byte_tokens(&trusted),
            vocab_size,
            own_size,
            forbidden,
            bos: special.bos,
            adds_bos,
            eos: special.eos,
            chat_template: files.chat_template()?,
            search_prompt: files.text(files::SEARCH_PROMPT)?.map(str::to_owned),
            trusted,
            untrusted,
            files,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same tokenizer for a model whose embedding has so many rows: added tokens with ids beyond them, such as a
    /// padding token that a tokenizer got and a model did not, are text like any other.
    ///
    /// # Errors
    /// When the vocabulary itself is larger, or what begins or ends a text, or stands in every conversation, is beyond.
    pub fn for_rows(&self, rows: usize) -> Result<Self, TextError> {
        if self.inner.vocab_size <= rows {
            return Ok(self.clone());
        }
        let malformed =
            |message: String| TextError::Malformed { path: self.inner.files.folder.join(files::TOKENIZER), message };
        if self.inner.own_size > rows {
            let size = self.inner.own_size;
            return Err(malformed(format!(
                "the tokenizer has {size} tokens, the model's embedding only {rows}: they do not belong together"
            )));
        }
        let added = self.inner.trusted.get_added_tokens_decoder();
        let (within, beyond): (BTreeMap<_, _>, BTreeMap<_, _>) =
            added.into_iter().partition(|(id, _)| (*id as usize) < rows);
        let conversation = [Message::user("a"), Message::assistant("a")];
        let rendered = self.chat_template().and_then(|chat| chat.render(&conversation, true).ok());
        let needed =
            [rendered.as_deref(), self.search_prompt()].into_iter().flatten().flat_map(|text| self.encode(text));
        let needed: BTreeSet<TokenId> = needed.collect();
        if let Some((id, token)) = beyond.iter().find(|(id, _)| needed.contains(id)) {
            let name = &token.content;
            return Err(malformed(format!(
                "the prompt's template writes {name:?}, whose id is {id}, and the model's embedding has only {rows} rows: \
                 the model was not made for this template, or its embedding was not resized"
            )));
        }
        let mut trusted = self.inner.untrusted.clone();
        trusted.add_tokens(within.values().cloned()).map_err(|error| malformed(error.to_string()))?;
        if within.iter().any(|(id, token)| trusted.token_to_id(&token.content) != Some(*id)) {
            return Err(malformed(format!(
                "its added tokens have gaps between their ids and go beyond {rows}, the rows of the model's embedding"
            )));
        }
        let vocab_size = id_bound(&trusted);
        Ok(Self { inner: Arc::new(Inner { vocab_size, trusted, ..Inner::clone(&self.inner) }) })
    }

    /// Writes the tokenizer's files into a folder, which is created where it is missing.
    /// Files that were loaded from a folder are written byte for byte as they were, but for a byte-order mark.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), TextError> {
        self.inner.files.write(folder.as_ref())
    }

    /// The tokenizer's files as [`save`](Self::save) writes them: names, ascending, and bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.inner.files.iter()
    }

    /// Encodes trusted text, such as a prompt: added tokens in the text are recognised, none is put
    /// before or after it.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        ids(&self.inner.trusted, text)
    }

    /// Encodes text that somebody else wrote: whatever it contains, no special or otherwise added
    /// token comes out. `<|im_end|>` in a document is ten characters and ends nothing.
    ///
    /// Where the vocabulary leaves no other way to spell a special token's text, the text is left out.
    pub fn encode_document(&self, text: &str) -> Vec<TokenId> {
        let mut tokens = ids(&self.inner.untrusted, text);
        tokens.retain(|token| !self.inner.forbidden.contains(token));
        tokens
    }

    /// The text of the tokens, special ones included. Bytes that are not UTF-8 become U+FFFD,
    /// ids outside the vocabulary become nothing.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        self.inner.trusted.decode(tokens, false).unwrap_or_default()
    }

    /// Rows that an embedding needs: one more than the largest token id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Tokens that end a text, without repetition; the tokenizer's own one comes first.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.inner.eos
    }

    /// The token that begins a text, if the model has one.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.inner.bos
    }

    /// The id of a token given by its name, added tokens included.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.inner.trusted.token_to_id(token)
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.inner.chat_template.as_ref()
    }

    /// The text of `search_prompt.jinja` in the model's folder.
    pub(crate) fn search_prompt(&self) -> Option<&str> {
        self.inner.search_prompt.as_deref()
    }

    /// The beginning-of-text token's name, where the tokenizer puts it before a plain text.
    pub(crate) fn automatic_bos(&self) -> Option<String> {
        self.inner.bos.filter(|_| self.inner.adds_bos).and_then(|bos| self.inner.trusted.id_to_token(bos))
    }

    /// Whether the vocabulary has this id.
    pub(crate) fn knows(&self, token: TokenId) -> bool {
        self.inner.trusted.id_to_token(token).is_some()
    }

    /// Whether a run of such tokens is decoded as a whole, so that its text is open until the run ends.
    pub(crate) fn is_byte_token(&self, token: TokenId) -> bool {
        self.inner.byte_tokens.contains(&token)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Codec")
            .field("folder", &self.inner.files.folder)
            .field("vocab_size", &self.inner.vocab_size)
            .field("bos", &self.inner.bos)
            .field("eos", &self.inner.eos)
            .finish_non_exhaustive()
    }
}

/// Loading has shown that the tokenizer can encode the unknown, so there is no error to report.
fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
}

/// One more than the largest id.
fn id_bound(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
}

/// Whether the tokenizer puts this token before a text.
fn begins_with(tokenizer: &Tokenizer, token: TokenId) -> bool {
    tokenizer.encode_fast("", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&token))
}

/// Tokens of the form `<0x41>`, if decoding the one for `A` gives `A`.
fn byte_tokens(tokenizer: &Tokenizer) -> BTreeSet<TokenId> {
    let decoded = tokenizer.token_to_id("<0x41>").and_then(|id| tokenizer.decode(&[id], false).ok());
    if decoded.as_deref() != Some("A") {
        return BTreeSet::new();
    }
    (0..=255u8).filter_map(|byte| tokenizer.token_to_id(&format!("<0x{byte:02X}>"))).collect()
}
