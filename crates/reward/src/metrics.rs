//! Exact match, F1 and containment of one prediction against all golden answers.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::normalize::{keeping_articles, keeping_punctuation};
use crate::normalize_answer;

/// Whether the normalised prediction **equals** a normalised golden answer. False without golden answers.
///
/// A golden answer of which normalisation leaves nothing, such as the band *The The* or the vitamin *A*, is compared
/// with its articles; if that is nothing still, as of the band *!!!*, with its punctuation too. The released scripts
/// compare nothing with nothing there: every prediction that vanishes as well is right, and F1 is always 0.
pub fn exact_match<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> bool {
    let usual = normalize_answer(prediction);
    pairs(prediction, &usual, golden_answers).any(|pair| pair.golden == pair.prediction)
}

/// Whether a normalised golden answer is a **substring** of the normalised prediction. False without golden answers.
///
/// A golden answer that vanishes, as in [`exact_match`], must be there as whole words: the released scripts find
/// nothing in every prediction.
pub fn contains<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> bool {
    let usual = normalize_answer(prediction);
    pairs(prediction, &usual, golden_answers).any(|pair| match pair.vanishes {
        false => pair.prediction.contains(&pair.golden),
        true => format!(" {} ", pair.prediction).contains(&format!(" {} ", pair.golden)),
    })
}

/// The best word-level F1 with any golden answer, in `[0, 1]`: `2·IN / (PN + RN)`.
///
/// PN and RN are the numbers of normalised words in prediction and golden answer, IN the size of
/// the intersection of the two multisets (SQuAD, Rajpurkar et al. 2016). 0 when they share no word,
/// also when both are empty, and without golden answers. A golden answer that vanishes is compared as in
/// [`exact_match`].
pub fn f1<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> f64 {
    let usual = normalize_answer(prediction);
    pairs(prediction, &usual, golden_answers).map(|pair| word_f1(&pair.prediction, &pair.golden)).fold(0.0, f64::max)
}

/// A prediction and a golden answer, normalised in the same way.
struct Pair<'a> {
    prediction: Cow<'a, str>,
    golden: String,
    /// Whether the usual normalisation leaves nothing of the golden answer.
    vanishes: bool,
}

/// `usual` is the prediction after [`normalize_answer`].
fn pairs<'a, S: AsRef<str>>(
    prediction: &'a str,
    usual: &'a str,
    golden_answers: &'a [S],
) -> impl Iterator<Item = Pair<'a>> {
    golden_answers.iter().map(move |golden| {
        let golden = golden.as_ref();
        let mut others = [keeping_articles, keeping_punctuation].into_iter();
        match normalize_answer(golden) {
            // A blank golden answer stays blank.
            normal
                if normal.is_empty()
                    && let Some(other) = others.find(|other| !other(golden).is_empty()) =>
            {
                Pair { prediction: other(prediction).into(), golden: other(golden), vanishes: true }
            }
            normal => Pair { prediction: usual.into(), golden: normal, vanishes: false },
        }
    })
}

fn word_f1(prediction: &str, golden: &str) -> f64 {
    let mut unmatched = HashMap::<&str, usize>::new();
    let mut golden_words = 0;
    for word in golden.split(' ').filter(|word| !word.is_empty()) {
        *unmatched.entry(word).or_default() += 1;
        golden_words += 1;
    }
    let (mut words, mut shared) = (0, 0);
    for word in prediction.split(' ').filter(|word| !word.is_empty()) {
        words += 1;
        if let Some(left) = unmatched.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1;
        }
    }
    if shared == 0 { 0.0 } else { 2.0 * f64::from(shared) / f64::from(words + golden_words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_counts_words_with_their_multiplicity() {
        assert_eq!(f1("yes yes yes", &["yes"]), 0.5);
        assert_eq!(f1("yes", &["yes yes yes"]), 0.5);
        assert_eq!(f1("cat dog cat", &["cat cat dog dog"]), 6.0 / 7.0);
        assert_eq!(f1("5 May 1990", &["May 5, 1990"]), 1.0);
        assert_eq!(f1("", &[""]), 0.0);
        assert_eq!(f1("Paris", &[] as &[&str]), 0.0);
    }

    #[test]
    fn an_answer_that_vanishes_is_compared_as_it_was() {
        for (golden, prediction, expected) in [
            ("The The", "the the", (true, true, 1.0)),
            ("The The", "The The.", (true, true, 1.0)),
            ("The The", "It is The The", (false, true, 2.0 * 2.0 / 6.0)),
            ("The The", "the", (false, false, 2.0 / 3.0)),
            ("The The", "Matt Johnson", (false, false, 0.0)),
            ("The The", "", (false, false, 0.0)),
            ("A", "A", (true, true, 1.0)),
            ("A", "vitamin a", (false, true, 2.0 / 3.0)),
            ("A", "banana", (false, false, 0.0)),
            ("A", "the", (false, false, 0.0)),
            ("An", "!", (false, false, 0.0)),
            ("!!!", "!!!", (true, true, 1.0)),
            ("!!!", "The band !!!", (false, true, 0.5)),
            ("!!!", "...", (false, false, 0.0)),
            ("!!!", "Nick Offer", (false, false, 0.0)),
            ("?", "", (false, false, 0.0)),
        ] {
            let golden = [golden];
            let scores = (exact_match(prediction, &golden), contains(prediction, &golden), f1(prediction, &golden));
            assert_eq!(scores, expected, "{prediction:?} against {golden:?}");
        }
        // One alias that vanishes makes no other answer right.
        assert!(!contains("Moundou", &["N'Djamena", "?"]) && contains("It is N'Djamena", &["?", "N'Djamena"]));
        assert!(!exact_match("the", &["Paris", "A"]));
    }

    #[test]
    fn the_three_metrics_differ() {
        let golden = ["Paris"];
        let scores =
            |prediction| (exact_match(prediction, &golden), contains(prediction, &golden), f1(prediction, &golden));
        assert_eq!(scores("the Paris!"), (true, true, 1.0));
        assert_eq!(scores("Paris, France"), (false, true, 2.0 / 3.0));
        assert_eq!(scores("Parisian"), (false, true, 0.0));
        assert_eq!(scores("Par"), (false, false, 0.0));
    }
}
