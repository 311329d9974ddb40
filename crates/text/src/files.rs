//! A tokenizer's files: which there are, what they say about special tokens, and writing them back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use zerosearch_files::{FileError, without_mark, write_atomic};
use zerosearch_trajectory::TokenId;

use crate::{ChatTemplate, TextError, from_python_json};

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const SEARCH_PROMPT: &str = "search_prompt.jinja";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub(crate) const ADDED_TOKENS: &str = "added_tokens.json";
/// A key of `tokenizer_config.json`: tokens with their ids.
pub(crate) const DECODER: &str = "added_tokens_decoder";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Its place in the processors of models that see images.
const CHAT_TEMPLATE_JSON: &str = "chat_template.json";
const CONFIG: &str = "config.json";

/// Files that belong to the tokenizer and go where it goes.
const KEPT: [&str; 11] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS_MAP,
    ADDED_TOKENS,
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    GENERATION_CONFIG,
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_JSON,
    SEARCH_PROMPT,
];

/// The tokens with a role, by name. Those that are none of a model's stay `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Fills a batch.
    pub pad: Option<String>,
}

/// The ids of the tokens that begin and end a text.
pub(crate) struct SpecialIds {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Vec<TokenId>,
}

#[derive(Clone)]
pub(crate) struct Files {
    /// Folder that they were read from, for messages.
    pub(crate) folder: PathBuf,
    kept: BTreeMap<&'static str, Vec<u8>>,
    /// The model's own `config.json`: read, but not the tokenizer's to write.
    config: Option<Vec<u8>>,
}

impl Files {
    pub(crate) fn read(folder: &Path) -> Result<Self, TextError> {
        let mut kept = BTreeMap::new();
        for name in KEPT {
            if let Some(bytes) = read(folder, name)? {
                kept.insert(name, bytes);
            }
        }
        if !kept.contains_key(TOKENIZER) {
            return Err(TextError::Missing { folder: folder.to_owned(), file: TOKENIZER });
        }
        Ok(Self { folder: folder.to_owned(), kept, config: read(folder, CONFIG)? })
    }

    /// The files of a tokenizer that has none yet.
    pub(crate) fn describe(tokenizer: &Tokenizer, special: &SpecialTokens) -> Result<Self, TextError> {
        let folder = PathBuf::from("tokenizer in memory");
        let tokenizer = tokenizer
            .to_string(true)
            .map_err(|error| TextError::Malformed { path: folder.join(TOKENIZER), message: error.to_string() })?;
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".into(), json!(false));
        for (key, token) in [("bos_token", &special.bos), ("eos_token", &special.eos), ("pad_token", &special.pad)] {
            config.insert(key.into(), json!(token));
        }
        let config = format!("{:#}\n", Value::Object(config));
        let kept = BTreeMap::from([(TOKENIZER, tokenizer.into_bytes()), (TOKENIZER_CONFIG, config.into_bytes())]);
        Ok(Self { folder, kept, config: None })
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TextError> {
        std::fs::create_dir_all(folder).map_err(FileError::write(folder))?;
        for (name, bytes) in &self.kept {
            write_atomic(folder.join(name), bytes)?;
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.kept.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.kept.get(name).map(Vec::as_slice)
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, TextError> {
        self.bytes(name).map(|bytes| self.decoded(name, bytes)).transpose()
    }

    fn decoded<'b>(&self, name: &'static str, bytes: &'b [u8]) -> Result<&'b str, TextError> {
        std::str::from_utf8(bytes).map_err(|error| self.malformed(name, error))
    }

    /// Whether `tokenizer_config.json` asks for a beginning-of-text token before every text.
    pub(crate) fn asks_for_bos(&self) -> Result<bool, TextError> {
        Ok(self.object(TOKENIZER_CONFIG)?.get("add_bos_token") == Some(&Value::Bool(true)))
    }

    pub(crate) fn special_ids(&self, id: &dyn Fn(&str) -> Option<TokenId>) -> Result<SpecialIds, TextError> {
        let named = self.named_tokens()?;
        let resolve = |key: &str| -> Result<Option<TokenId>, TextError> {
            let Some(token) = named.get(key) else { return Ok(None) };
            let known = id(token);
            known.map(Some).ok_or_else(|| {
                self.malformed(
                    TOKENIZER_CONFIG,
                    format!("{key} is {token:?}, which {TOKENIZER} does not have: do the two belong together?"),
                )
            })
        };
        for file in [SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG] {
            let object = self.object(file)?;
            for (key, value) in ["bos_token", "eos_token"].into_iter().filter_map(|key| object.get_key_value(key)) {
                if !value.is_null() && text_of(value).is_none() {
                    return Err(self.malformed(file, format!("{key} is {value}, expected a token's text or null")));
                }
            }
        }
        let mut bos = resolve("bos_token")?;
        let mut eos: Vec<TokenId> = resolve("eos_token")?.into_iter().collect();
        for name in [GENERATION_CONFIG, CONFIG] {
            let config = self.object(name)?;
            let ids = |key: &str| {
                let found = config.get(key);
                numbers(found).ok_or_else(|| {
                    let found = found.map_or_else(String::new, Value::to_string);
                    self.malformed(name, format!("{key} is {found}, expected an id, a list of ids or null"))
                })
            };
            eos.extend(ids("eos_token_id")?);
            // A tokenizer's configuration that is there and names no such token means that there is none.
            if bos.is_none() && !self.kept.contains_key(TOKENIZER_CONFIG) {
                bos = ids("bos_token_id")?.first().copied();
            }
        }
        let mut seen = BTreeSet::new();
        eos.retain(|id| seen.insert(*id));
        Ok(SpecialIds { bos, eos })
    }

    /// The chat template: the file of that name, else the one called `default` (or the only one) in the tokenizer's
    /// configuration, else that of a processor.
    pub(crate) fn chat_template(&self) -> Result<Option<ChatTemplate>, TextError> {
        let mut found = self.text(CHAT_TEMPLATE)?.map(str::to_owned);
        for file in [TOKENIZER_CONFIG, CHAT_TEMPLATE_JSON] {
            if found.is_none() {
                found = self.template_in(file)?;
            }
        }
        let Some(source) = found else { return Ok(None) };
        Ok(Some(ChatTemplate::new(&source)?.with_tokens(self.named_tokens()?)))
    }

    /// The template under `chat_template` in a JSON file.
    fn template_in(&self, file: &'static str) -> Result<Option<String>, TextError> {
        let list = match self.object(file)?.remove("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => return Ok(Some(text)),
            Some(Value::Array(list)) => list,
            Some(_) => {
                let message = "chat_template is neither a text nor a list of {name, template}";
                return Err(self.malformed(file, message));
            }
        };
        let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
        let entry = list.iter().find(named).or(list.first());
        match entry.and_then(|entry| entry.get("template")).and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => {
                let message = "chat_template is a list without a `template` text in its default entry";
                Err(self.malformed(file, message))
            }
        }
    }

    /// `bos_token`, `eos_token`, … with their texts, as a chat template sees them.
    fn named_tokens(&self) -> Result<BTreeMap<String, String>, TextError> {
        let mut named = BTreeMap::new();
        let mut files = [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP];
        // As in transformers, where the map counts in older folders alone.
        if self.object(TOKENIZER_CONFIG)?.contains_key(DECODER) {
            files.reverse();
        }
        for file in files {
            for (key, value) in self.object(file)? {
                if let (true, Some(text)) = (key.ends_with("_token"), text_of(&value)) {
                    let text = text.to_owned();
                    named.insert(key, text);
                }
            }
        }
        Ok(named)
    }

    /// A JSON file's object; empty where there is no such file.
    pub(crate) fn object(&self, name: &'static str) -> Result<Map<String, Value>, TextError> {
        let bytes = if name == CONFIG { self.config.as_deref() } else { self.bytes(name) };
        let Some(bytes) = bytes else { return Ok(Map::new()) };
        from_python_json(self.decoded(name, bytes)?).map_err(|error| self.malformed(name, error))
    }

    pub(crate) fn malformed(&self, name: &'static str, message: impl ToString) -> TextError {
        TextError::Malformed { path: self.folder.join(name), message: message.to_string() }
    }
}

/// A token's text: the value itself, or the `content` of an object that describes the token.
pub(crate) fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
}

/// A token id, or a list of them; `None` where it is neither. Some configurations write -1 for none.
fn numbers(value: Option<&Value>) -> Option<Vec<TokenId>> {
    let number = |value: &Value| match value.as_i64() {
        Some(id) if id < 0 => Some(None),
        _ => value.as_u64().and_then(|id| TokenId::try_from(id).ok()).map(Some),
    };
    let ids: Option<Vec<Option<TokenId>>> = match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(number).collect(),
        Some(value) => number(value).map(|id| vec![id]),
    };
    Some(ids?.into_iter().flatten().collect())
}

/// A file's bytes, without a byte-order mark: transformers reads no file that has one.
fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, TextError> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(without_mark(&bytes).to_vec())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::read(path)(error).into()),
    }
}
