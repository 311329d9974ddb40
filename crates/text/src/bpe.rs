//! Training a byte-level BPE tokenizer.

use std::cmp::Reverse;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::{Codec, SpecialTokens, TextError};

/// Every byte is a token, so that any text can be encoded.
const BYTES: usize = 256;

/// Trains a byte-level BPE tokenizer that transformers loads as it is.
///
/// Words are split as GPT-2 splits them, with the blank before a word belonging to it, and digits one
/// by one, so that no number is a token of its own. `added` tokens (tags, for example) and the tokens
/// of `special` are never split; they get the last ids, added ones first. The same texts give the same tokenizer.
///
/// The vocabulary is smaller than `vocab_size` where the texts have no more pairs to merge.
///
/// # Errors
/// When `vocab_size` has no room for the bytes and the added tokens, or one of these is empty or not ASCII.
pub fn train_bpe(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    added: &[&str],
    special: &SpecialTokens,
) -> Result<Codec, TextError> {
    let mut special_names: Vec<&str> =
        [&special.bos, &special.eos, &special.pad].into_iter().flatten().map(String::as_str).collect();
    special_names.dedup(); // one token often has two of the roles
    let never_split: Vec<&str> = added.iter().chain(&special_names).copied().collect();
    if let Some(token) = never_split.iter().find(|token| token.is_empty() || !token.is_ascii()) {
        return Err(TextError::Training(format!("the added token {token:?} must be ASCII and not empty")));
    }
    let Some(merged) = vocab_size.checked_sub(never_split.len()).filter(|&size| size >= BYTES) else {
        let least = BYTES + never_split.len();
        return Err(TextError::Training(format!(
            "a vocabulary of {vocab_size} has no room for {BYTES} bytes and the added tokens: at least {least}"
        )));
    };

    let failed = |error: tokenizers::Error| TextError::Training(error.to_string());
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder().show_progress(false).vocab_size(merged).initial_alphabet(alphabet).build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    let splits: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), byte_level().into()];
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splits))).with_decoder(Some(byte_level()));
    // The text of an added token never reaches the model, so nothing is to be learned from it.
    let texts = texts.flat_map(|text| without(&text, &never_split));
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    let tokens = |names: &[&str], special| {
        names.iter().map(|&name| AddedToken::from(name, special).normalized(false)).collect::<Vec<_>>()
    };
    tokenizer.add_tokens(tokens(added, false)).map_err(failed)?;
    tokenizer.add_special_tokens(tokens(&special_names, true)).map_err(failed)?;
    Codec::new(&tokenizer, special)
}

/// The stretches of a text between the given strings; of two that begin at the same place the longer one counts.
fn without(text: &str, strings: &[&str]) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let first =
            strings.iter().filter_map(|string| rest.find(string).map(|start| (start, Reverse(string.len())))).min();
        let Some((start, Reverse(length))) = first else { break };
        pieces.push(rest[..start].to_owned());
        rest = &rest[start + length..];
    }
    pieces.push(rest.to_owned());
    pieces
}

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, false, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_tokens_are_cut_out_of_the_training_texts() {
        assert_eq!(without("a<x>b<xy>c", &["<x>", "<xy>"]), ["a", "b", "c"]);
        assert_eq!(without("<|a|><|a|>long", &["<|a|>", "<|a|><|"]), ["", "a|>long"]);
        assert_eq!(without("plain", &["<x>"]), ["plain"]);
    }

    #[test]
    fn impossible_vocabularies_are_refused() {
        let refused = |size, added: &[&str]| {
            train_bpe(std::iter::empty(), size, added, &SpecialTokens::default()).unwrap_err().to_string()
        };
        assert!(refused(256, &["<a>"]).contains("at least 257"));
        assert!(refused(300, &[""]).contains("ASCII"));
        assert!(refused(300, &["\u{e9}"]).contains("ASCII"));
    }
}
