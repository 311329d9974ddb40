//! Tokens that stand in other files than `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};
use zerosearch_trajectory::TokenId;

use crate::TextError;
use crate::files::{ADDED_TOKENS, DECODER, Files, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG, text_of};

/// Roles that give a token no meaning in a text: documents may have it.
const MEANINGLESS: [&str; 2] = ["pad_token", "unk_token"];
/// Keys whose values are many tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// A token with the id that a file gives it.
struct Declared {
    token: AddedToken,
    id: TokenId,
    file: &'static str,
}

impl Files {
    /// Gives a tokenizer what the files beside it add, as transformers does when it loads: the tokens of
    /// `added_tokens_decoder` in `tokenizer_config.json` or, in folders that are older than that, of `added_tokens.json`;
    /// then all tokens with a role that stand in the vocabulary as if they were common words.
    ///
    /// # Errors
    /// When a file gives a new token another id than the next free one, which it would get.
    pub(crate) fn add_tokens(&self, tokenizer: &mut Tokenizer) -> Result<(), TextError> {
        let own: BTreeMap<String, AddedToken> =
            tokenizer.get_added_tokens_decoder().into_values().map(|token| (token.content.clone(), token)).collect();
        let roles = self.role_tokens()?;
        let mut declared = self.declared(&own, &roles)?;
        declared.retain(|entry| own.get(&entry.token.content) != Some(&entry.token));
        let mut taken: BTreeSet<&str> =
            own.keys().map(String::as_str).chain(declared.iter().map(|entry| entry.token.content.as_str())).collect();
        // One that the vocabulary lacks would get an id that no embedding has a row for.
        let common = roles.iter().filter(|token| tokenizer.token_to_id(&token.content).is_some());
        let common: Vec<AddedToken> = common.filter(|token| taken.insert(&token.content)).cloned().collect();
        let new: Vec<&Declared> =
            declared.iter().filter(|entry| tokenizer.token_to_id(&entry.token.content).is_none()).collect();
        let all: Vec<AddedToken> = declared.iter().map(|entry| entry.token.clone()).chain(common).collect();
        if all.is_empty() {
            return Ok(());
        }
        tokenizer.add_tokens(all).map_err(|error| self.malformed(TOKENIZER_CONFIG, error))?;
        for Declared { token, id, file } in new {
            match tokenizer.token_to_id(&token.content) {
                Some(found) if found != *id => {
                    let message = format!(
                        "gives {:?} the id {id}, but the next free one of {TOKENIZER} is {found}: do the two belong together?",
                        token.content
                    );
                    return Err(self.malformed(file, message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tokens with ids, ascending.
    fn declared(&self, own: &BTreeMap<String, AddedToken>, roles: &[AddedToken]) -> Result<Vec<Declared>, TextError> {
        let mut declared = Vec::new();
        if let Some(decoder) = self.object(TOKENIZER_CONFIG)?.get(DECODER).filter(|decoder| !decoder.is_null()) {
            let wrong = || self.malformed(TOKENIZER_CONFIG, format!("{DECODER} is not an object of ids and tokens"));
            for (id, token) in decoder.as_object().ok_or_else(wrong)? {
                let (id, token) = (id.parse().map_err(|_| wrong())?, described(token).ok_or_else(wrong)?);
                declared.push(Declared { token, id, file: TOKENIZER_CONFIG });
            }
        } else {
            for (content, id) in self.object(ADDED_TOKENS)? {
                let id = id.as_u64().and_then(|id| TokenId::try_from(id).ok());
                let id = id.ok_or_else(|| self.malformed(ADDED_TOKENS, format!("{content:?} has no id")))?;
                if !own.contains_key(&content) {
                    let special = roles.iter().any(|token| token.content == content);
                    let token = AddedToken::from(content, special);
                    declared.push(Declared { token, id, file: ADDED_TOKENS });
                }
            }
        }
        declared.sort_by_key(|entry| entry.id);
        Ok(declared)
    }

    /// Tokens with a role: `bos_token` and the like, and the lists of further special tokens. One with several roles is
    /// there several times, the one that matters most first.
    fn role_tokens(&self) -> Result<Vec<AddedToken>, TextError> {
        let mut tokens = Vec::new();
        for file in [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP] {
            for (key, value) in self.object(file)? {
                let listed = LISTS.contains(&key.as_str());
                match &value {
                    Value::Array(list) if listed => tokens.extend(list.iter().filter_map(described)),
                    Value::Object(map) if listed => tokens.extend(map.values().filter_map(described)),
                    value if key.ends_with("_token") => {
                        let special = !MEANINGLESS.contains(&key.as_str());
                        tokens.extend(described(value).map(|token| token.special(special)));
                    }
                    _ => {}
                }
            }
        }
        tokens.sort_by_key(|token| !token.special);
        Ok(tokens)
    }
}

/// A token by its text, or by an object that describes it. A text alone is a special token's.
fn described(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str, default| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", true);
    let token = AddedToken::from(text_of(value)?, special).normalized(flag("normalized", !special));
    Some(token.lstrip(flag("lstrip", false)).rstrip(flag("rstrip", false)).single_word(flag("single_word", false)))
}
