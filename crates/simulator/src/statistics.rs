//! Figures on documents that need no model: their length, their diversity, how much of them is copied, how close they are to the
//! real engine's.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use zerosearch_reward::normalize_answer;
use zerosearch_search::runs_words_together;

use crate::LabelledInteraction;

/// Words in a row that make a copy.
const COPIED: usize = 8;

/// Figures on the documents of several results.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentStatistics {
    /// Results: one for each query and keyword.
    pub results: usize,
    /// Mean number of documents in a result.
    pub documents_per_result: f64,
    /// Mean number of words in a document.
    pub words_per_document: f64,
    /// Different words, as a share of the words; see [`DocumentStatistics::of`].
    pub distinct_1: f64,
    /// Different pairs of adjacent words, as a share of the pairs.
    pub distinct_2: f64,
    /// Share of the runs of eight words that stand word for word in a training document; `None` where no document has eight words.
    pub copy_rate: Option<f64>,
    /// The [`style_distance`] to the real engine's documents; `None` where one side has no documents.
    pub style_distance: Option<f64>,
}

impl DocumentStatistics {
    /// The number of words in the documents of these rows, for the last argument of [`of`](Self::of).
    pub fn words(rows: &[LabelledInteraction]) -> usize {
        rows.iter().flat_map(|row| &row.interaction.documents).map(|text| words_of(text).len()).sum()
    }

    /// Figures on these results. Diversity falls as a text grows, so that `distinct_1` and `distinct_2` (Li et al. 2016) look at the first
    /// `words` words only: give what all that is compared has. Words are counted as [`normalize_answer`] leaves them, each character
    /// of a script without blanks as one.
    pub fn of(
        rows: &[LabelledInteraction],
        real: &[LabelledInteraction],
        training: &TrainingText,
        words: usize,
    ) -> Self {
        let texts = || rows.iter().flat_map(|row| &row.interaction.documents);
        let (documents, total) = (texts().count(), Self::words(rows));
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Self {
            results: rows.len(),
            documents_per_result: share(documents, rows.len()),
            words_per_document: share(total, documents),
            distinct_1: distinct(texts(), 1, words),
            distinct_2: distinct(texts(), 2, words),
            copy_rate: training.copy_rate(texts()),
            style_distance: style_distance(texts(), real.iter().flat_map(|row| &row.interaction.documents)),
        }
    }
}

/// Every run of eight words in the documents that a simulator learnt from.
#[derive(Clone, Debug, Default)]
pub struct TrainingText(HashSet<u64>);

impl TrainingText {
    /// Of the documents of these rows.
    pub fn of(rows: &[LabelledInteraction]) -> Self {
        let texts = rows.iter().flat_map(|row| &row.interaction.documents);
        Self(texts.flat_map(|text| runs(&words_of(text), COPIED)).collect())
    }

    /// The share of the runs of eight words that are among them; `None` without such runs.
    ///
    /// ```
    /// use zerosearch_search::Quality;
    /// use zerosearch_simulator::{Interaction, LabelledInteraction, TrainingText};
    ///
    /// let documents = vec!["one two three four five six seven eight nine".to_string()];
    /// let interaction = Interaction { question: "?".into(), golden_answers: vec![], query: "q".into(), documents };
    /// let training = TrainingText::of(&[LabelledInteraction { interaction, quality: Quality::Noisy }]);
    /// assert_eq!(training.copy_rate(["zero one two three four five six seven eight"]), Some(0.5));
    /// assert_eq!(training.copy_rate(["too short"]), None);
    /// ```
    pub fn copy_rate(&self, documents: impl IntoIterator<Item = impl AsRef<str>>) -> Option<f64> {
        let (mut copied, mut all) = (0_usize, 0_usize);
        for text in documents {
            for run in runs(&words_of(text.as_ref()), COPIED) {
                all += 1;
                copied += usize::from(self.0.contains(&run));
            }
        }
        (all > 0).then(|| copied as f64 / all as f64)
    }
}

/// The Jensen-Shannon distance between the character trigrams of two sets of documents, capitals and punctuation included: 0 for the
/// same shares, 1 for nothing in common. The square root of the divergence in bits (Endres and Schindelin 2003). Small sets differ by
/// chance: two halves of one engine's documents show by how much. `None` where a set is empty.
///
/// ```
/// use zerosearch_simulator::style_distance;
///
/// assert_eq!(style_distance(["a document"], ["a document"]), Some(0.0));
/// assert_eq!(style_distance(["aaaa"], ["bbbb"]), Some(1.0));
/// ```
pub fn style_distance(
    left: impl IntoIterator<Item = impl AsRef<str>>,
    right: impl IntoIterator<Item = impl AsRef<str>>,
) -> Option<f64> {
    // In order, so that the sums round alike every time.
    let mut counts: BTreeMap<[char; 3], [u32; 2]> = BTreeMap::new();
    for text in left {
        trigrams(text.as_ref()).for_each(|trigram| counts.entry(trigram).or_default()[0] += 1);
    }
    for text in right {
        trigrams(text.as_ref()).for_each(|trigram| counts.entry(trigram).or_default()[1] += 1);
    }
    let totals = [0, 1].map(|side| counts.values().map(|count| f64::from(count[side])).sum::<f64>());
    if totals.contains(&0.0) {
        return None;
    }
    let divergence: f64 = counts
        .values()
        .map(|count| {
            let shares = [0, 1].map(|side: usize| f64::from(count[side]) / totals[side]);
            let middle = (shares[0] + shares[1]) / 2.0;
            shares.iter().filter(|share| **share > 0.0).map(|share| share / 2.0 * (share / middle).log2()).sum::<f64>()
        })
        .sum();
    Some(divergence.clamp(0.0, 1.0).sqrt())
}

/// Different runs of `length` words as a share of all in the first `limit` words.
fn distinct<'t>(documents: impl Iterator<Item = &'t String>, length: usize, limit: usize) -> f64 {
    let (mut seen, mut all, mut left) = (HashSet::new(), 0_usize, limit);
    for text in documents {
        let mut words = words_of(text);
        words.truncate(left);
        left -= words.len();
        for run in runs(&words, length) {
            all += 1;
            seen.insert(run);
        }
    }
    seen.len() as f64 / all.max(1) as f64
}

/// Hashes of all runs of so many words.
fn runs(words: &[String], length: usize) -> Vec<u64> {
    let hash = |run: &[String]| {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        hasher.finish()
    };
    words.windows(length).map(hash).collect()
}

fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in normalize_answer(text).split_whitespace() {
        let mut word = String::new();
        for c in part.chars() {
            if runs_words_together(c) {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push(c.to_string());
            } else {
                word.push(c);
            }
        }
        words.extend((!word.is_empty()).then_some(word));
    }
    words
}

fn trigrams(text: &str) -> impl Iterator<Item = [char; 3]> {
    let squeezed: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    (2..squeezed.len()).map(move |end| [squeezed[end - 2], squeezed[end - 1], squeezed[end]])
}

#[cfg(test)]
mod tests {
    use zerosearch_search::Quality;

    use super::*;
    use crate::Interaction;

    fn row(documents: &[&str]) -> LabelledInteraction {
        let documents = documents.iter().map(|document| (*document).to_string()).collect();
        let interaction = Interaction { question: "?".into(), golden_answers: vec![], query: "q".into(), documents };
        LabelledInteraction { interaction, quality: Quality::Useful }
    }

    #[test]
    fn words_are_normalised_and_signs_without_blanks_count_one_by_one() {
        for (text, words) in
            [("The cat, a CAT!", vec!["cat", "cat"]), ("東京 Tokyo都", vec!["東", "京", "tokyo", "都"]), ("", vec![])]
        {
            assert_eq!(words_of(text), words, "{text:?}");
        }
    }

    #[test]
    fn figures_on_a_few_documents() {
        let rows = [row(&["red red blue", "red blue"]), row(&["green"])];
        let training = TrainingText::of(&rows);
        let all = DocumentStatistics::of(&rows, &rows, &training, DocumentStatistics::words(&rows));
        assert_eq!((all.results, all.documents_per_result, all.words_per_document), (2, 1.5, 2.0));
        // red, blue, green of 6 words; "red red" and "red blue" of 3 pairs.
        assert_eq!((all.distinct_1, all.distinct_2), (0.5, 2.0 / 3.0));
        assert_eq!((all.copy_rate, all.style_distance), (None, Some(0.0)));
        // Only the first two words.
        assert_eq!(DocumentStatistics::of(&rows, &rows, &training, 2).distinct_1, 0.5);
        let none = DocumentStatistics::of(&[], &rows, &training, 0);
        assert_eq!((none.distinct_1, none.style_distance, none.documents_per_result), (0.0, None, 0.0));
    }

    #[test]
    fn a_copy_counts_across_case_and_punctuation_and_not_across_documents() {
        let training = TrainingText::of(&[row(&["one two three four five six seven eight", "nine ten"])]);
        for (text, rate) in [
            ("One, two, three, four, five, six, seven, EIGHT.", Some(1.0)),
            ("two three four five six seven eight nine", Some(0.0)),
            ("one two three four five six seven eight one two three four five six seven eight", Some(2.0 / 9.0)),
            ("one two", None),
        ] {
            assert_eq!(training.copy_rate([text]), rate, "{text}");
        }
    }

    #[test]
    fn the_distance_is_symmetric_and_grows_with_the_difference() {
        let real = ["The river flows north.", "The city lies on the river."];
        let near = ["The river flows south.", "The town lies on the river."];
        let far = ["42 % OF $$$", "CALL NOW!!!"];
        let distance = |a: [&str; 2], b: [&str; 2]| style_distance(a, b).unwrap();
        assert_eq!(distance(real, near), distance(near, real));
        assert!(distance(real, near) < 0.6 && distance(real, far) > 0.9, "{}", distance(real, near));
        assert_eq!(style_distance([""; 0], ["abc"]), None);
        // Shares (1/2, 1/2) and (1, 0), their middle (3/4, 1/4).
        let expected: f64 = 0.25 * (0.5_f64 / 0.75).log2() + 0.25 * 2.0_f64.log2() + 0.5 * (1.0_f64 / 0.75).log2();
        assert!((style_distance(["abc", "xyz"], ["abc"]).unwrap() - expected.sqrt()).abs() < 1e-12);
    }
}
