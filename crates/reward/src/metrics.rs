//! Exact match, F1 and containment of one prediction against all golden answers.

use std::collections::HashMap;

use crate::normalize_answer;

/// Whether the normalised prediction **equals** a normalised golden answer. False without golden answers.
pub fn exact_match<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> bool {
    let prediction = normalize_answer(prediction);
    golden_answers.iter().any(|golden| normalize_answer(golden.as_ref()) == prediction)
}

/// Whether a normalised golden answer is a **substring** of the normalised prediction.
///
/// A golden answer that normalises to nothing, such as `?`, is in every prediction.
/// False without golden answers.
pub fn contains<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> bool {
    let prediction = normalize_answer(prediction);
    golden_answers.iter().any(|golden| prediction.contains(&normalize_answer(golden.as_ref())))
}

/// The best word-level F1 with any golden answer, in `[0, 1]`: `2·IN / (PN + RN)`.
///
/// PN and RN are the numbers of normalised words in prediction and golden answer, IN the size of
/// the intersection of the two multisets (SQuAD, Rajpurkar et al. 2016). 0 when they share no word,
/// also when both are empty, and without golden answers.
pub fn f1<S: AsRef<str>>(prediction: &str, golden_answers: &[S]) -> f64 {
    let prediction = normalize_answer(prediction);
    golden_answers.iter().map(|golden| word_f1(&prediction, &normalize_answer(golden.as_ref()))).fold(0.0, f64::max)
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
