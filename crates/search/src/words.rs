//! The words by which a text is found, in scripts with and without blanks between words.

use std::borrow::Cow;

use tantivy::tokenizer::{PreTokenizedStream, PreTokenizedString, Token, Tokenizer};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_script::{Script, UnicodeScript};

/// The version of [`words`]: raised with every change of what it makes of a text, so that an index on disk is built anew.
pub(crate) const ANALYSER: u32 = 1;

/// Splits a text into the words that are indexed, lower-cased, in order.
///
/// - A run of letters, digits and the vowel signs and other marks of their script is a word.
/// - Where a script leaves no blanks between words, or lets particles stick to them
///   ([`runs_words_together`]), a run becomes its single characters and its pairs of neighbours, so
///   that any part of it is found, whole words before scattered characters.
/// - Two spellings of the same character are one: composed and decomposed letters, wide and narrow
///   forms. Accents that no composed letter has, joiners and variation selectors do not count.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    // The run that is being read: a word, or the characters of a run without blanks.
    let (mut word, mut characters) = (String::new(), Vec::<String>::new());
    for c in spelled_alike(text).chars() {
        match (Kind::of(c), characters.last_mut()) {
            (Kind::Unseen, _) => {}
            (Kind::Mark, Some(character)) => character.push(c),
            (Kind::Mark, None) if word.is_empty() => {}
            (Kind::Mark, None) => word.push(c),
            (Kind::Letter, _) => {
                flush_characters(&mut characters, &mut words);
                word.extend(c.to_lowercase());
            }
            (Kind::Character, _) => {
                flush_word(&mut word, &mut words);
                characters.push(c.to_string());
            }
            (Kind::Gap, _) => {
                flush_word(&mut word, &mut words);
                flush_characters(&mut characters, &mut words);
            }
        }
    }
    flush_word(&mut word, &mut words);
    flush_characters(&mut characters, &mut words);
    words
}

/// The part that a character has in a word.
enum Kind {
    /// A letter or digit.
    Letter,
    /// A letter or digit of a script without blanks.
    Character,
    /// A vowel sign or another mark of a script, which belongs to the character before it.
    Mark,
    /// An accent, joiner or variation selector of no script.
    Unseen,
    /// All else, which ends a word.
    Gap,
}

impl Kind {
    fn of(c: char) -> Self {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() { Self::Letter } else { Self::Gap }
        } else if c.script() == Script::Inherited {
            Self::Unseen
        } else if is_combining_mark(c) {
            Self::Mark
        } else if !c.is_alphanumeric() {
            Self::Gap
        } else if runs_words_together(c) {
            Self::Character
        } else {
            Self::Letter
        }
    }
}

fn flush_word(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

fn flush_characters(characters: &mut Vec<String>, words: &mut Vec<String>) {
    words.extend(characters.windows(2).map(|pair| pair.concat()));
    words.append(characters);
}

/// Whether words of this character's script stand side by side without blanks, as in Chinese,
/// Japanese and Thai, or with particles stuck to them, as in Korean: the end of a word cannot be
/// told from its neighbours. So it is with the punctuation of East Asia.
pub fn runs_words_together(c: char) -> bool {
    const SCRIPTS: [Script; 15] = [
        Script::Han,
        Script::Hiragana,
        Script::Katakana,
        Script::Bopomofo,
        Script::Hangul,
        Script::Thai,
        Script::Lao,
        Script::Khmer,
        Script::Myanmar,
        Script::Tai_Le,
        Script::New_Tai_Lue,
        Script::Tai_Tham,
        Script::Tai_Viet,
        Script::Javanese,
        Script::Balinese,
    ];
    if c.is_ascii() {
        return false;
    }
    // The long-vowel mark belongs to both kana, punctuation such as `。` to all of East Asia.
    let scripts = c.script_extension();
    let of_no_script = scripts.is_common() || scripts.is_inherited();
    let wide_punctuation = ('\u{ff01}'..='\u{ff65}').contains(&c) && !c.is_alphanumeric();
    wide_punctuation || !of_no_script && SCRIPTS.into_iter().any(|script| scripts.contains_script(script))
}

/// The text with narrow letters for wide ones, wide kana for narrow ones, and composed characters.
fn spelled_alike(text: &str) -> Cow<'_, str> {
    let resized = |c: char| ('\u{ff01}'..='\u{ffdc}').contains(&c);
    if text.is_ascii() || !text.contains(resized) && is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if resized(c) {
            plain.extend(c.nfkd());
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain.nfc().collect())
}

/// [`words`] for tantivy.
#[derive(Clone)]
pub(crate) struct Words;

impl Tokenizer for Words {
    type TokenStream<'a> = PreTokenizedStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> PreTokenizedStream {
        let token = |(position, text)| Token { position, text, ..Token::default() };
        let tokens = words(text).into_iter().enumerate().map(token).collect();
        PreTokenizedString { text: String::new(), tokens }.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tantivy::tokenizer::{LowerCaser, SimpleTokenizer, TextAnalyzer, TokenStream};

    use super::*;

    #[test]
    fn each_script_has_its_words() {
        for (text, expected) in [
            ("Internet code .td, N'Djamena", "internet code td n djamena"),
            ("5 km² of Élysée ΟΔΟΣ", "5 km² of élysée οδοσ"),
            ("東京都", "東京 京都 東 京 都"),
            ("2008年奥运会", "2008 年奥 奥运 运会 年 奥 运 会"),
            ("iPhone15を買う", "iphone15 を買 買う を 買 う"),
            ("コーヒー", "コー ーヒ ヒー コ ー ヒ ー"),
            ("한국의", "한국 국의 한 국 의"),
            ("京、都", "京 都"),
            ("𠮷野家", "𠮷野 野家 𠮷 野 家"),
            // A consonant with its vowel signs and tone is one character.
            ("กรุงเทพ", "กรุ รุง งเ เท ทพ ก รุ ง เ ท พ"),
            ("ភ្នំ", "ភ្នំ ភ្ នំ"),
            // Vowel signs and viramas are inside of words.
            ("हिन्दी भाषा", "हिन्दी भाषा"),
            ("العربية", "العربية"),
            ("தமிழ்", "தமிழ்"),
            // One character in two spellings.
            ("ＮＨＫ２０", "nhk20"),
            ("ｶﾞｰ", "ガー ガ ー"),
            ("Cafe\u{301}s", "cafés"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("Москва\u{301}", "москва"),
            ("葛\u{e0100}", "葛"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("1\u{fe0f}\u{20e3}", "1"),
            ("\u{301} ! \u{93e}", ""),
        ] {
            assert_eq!(words(text), expected.split_whitespace().collect::<Vec<_>>(), "{text:?}");
        }
    }

    #[test]
    fn the_version_stands_for_what_is_made_of_every_character() {
        // Also of the tables of Unicode that the compiler and the libraries bring along.
        let characters = (0..0x1_0000).chain(0x1_f000..0x2_0800).filter_map(char::from_u32);
        let text: String = characters.flat_map(|c| ['a', c, 'b', c, c, ' ']).collect();
        let mut hash = zerosearch_data::Fingerprint::default();
        words(&text).iter().for_each(|word| hash.text(word));
        assert_eq!(
            (ANALYSER, hash.to_string().as_str()),
            (1, "5e49d066362ea763"),
            "raise ANALYSER, and write the new pair down here"
        );
    }

    proptest! {
        #[test]
        fn letters_of_europe_are_split_as_tantivy_splits_them(text in "[ -~\u{a0}-\u{17f}\u{376}-\u{37d}\u{37f}-\u{3ff}\u{400}-\u{482}\u{48a}-\u{52f}\u{1e00}-\u{1e99}\u{2010}-\u{2027}\u{20a0}-\u{20b0}\u{2150}-\u{2188}\n]{0,40}") {
            let mut analyzer = TextAnalyzer::builder(SimpleTokenizer::default()).filter(LowerCaser).build();
            let mut stream = analyzer.token_stream(&text);
            let mut expected = Vec::new();
            stream.process(&mut |token| expected.push(token.text.clone()));
            drop(stream);
            prop_assert_eq!(words(&text), expected);
        }
    }
}
