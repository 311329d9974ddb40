//! The normalisation of the SQuAD evaluation script.

use zerosearch_grammar::is_space;

use crate::word::is_word_char;

/// Lower-cases, drops ASCII punctuation, drops the words a / an / the, squeezes white space.
///
/// In this order, as in the SQuAD v1.1 evaluation script; words and white space are Python's, so
/// that scores agree with the released ones to the last character.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut kept = String::with_capacity(lower.len());
    let mut word_start = 0;
    // A blank at the end closes the last word; the squeeze below drops it again.
    for c in lower.chars().filter(|c| !c.is_ascii_punctuation()).chain([' ']) {
        if !is_word_char(c) {
            if matches!(&kept[word_start..], "a" | "an" | "the") {
                kept.truncate(word_start);
                kept.push(' ');
            }
            kept.push(c);
            word_start = kept.len();
        } else {
            kept.push(c);
        }
    }
    squeezed(&kept)
}

/// [`normalize_answer`] without the removal of articles.
pub(crate) fn keeping_articles(text: &str) -> String {
    squeezed(&text.to_lowercase().replace(|c: char| c.is_ascii_punctuation(), ""))
}

/// [`normalize_answer`] without the removal of articles and punctuation.
pub(crate) fn keeping_punctuation(text: &str) -> String {
    squeezed(&text.to_lowercase())
}

fn squeezed(text: &str) -> String {
    text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_by_itself() {
        for (text, expected) in [
            ("PARIS", "paris"),
            ("U.S.A.", "usa"),
            ("rock 'n' roll", "rock n roll"),
            ("the end of an era, a", "end of era"),
            ("The The", ""),
            ("theatre another", "theatre another"),
            ("  new \u{a0}\t york\n", "new york"),
            ("a\u{1c}b", "b"),
            ("«the» cat", "« » cat"),
            ("don’t", "don’t"),
            ("ΟΔΟΣ", "οδος"), // with a final sigma
        ] {
            assert_eq!(normalize_answer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn punctuation_goes_before_articles() {
        assert_eq!(normalize_answer("the-atre"), "theatre");
        assert_eq!(normalize_answer("the_the"), "thethe");
        assert_eq!(normalize_answer("a/the"), "athe");
        assert_eq!(normalize_answer("“the cat”"), "“ cat”");
    }
}
