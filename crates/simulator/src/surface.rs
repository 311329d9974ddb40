//! A test of whether useful and noisy documents can be told apart without reading them.
//!
//! A simulator whose noisy documents are shorter, or off the subject, teaches a policy to look at that and at nothing
//! else. The measure is a logistic regression on features of the surface, cross-validated over queries.

use std::collections::{HashMap, HashSet};

use zerosearch_reward::normalize_answer;
use zerosearch_search::Quality;

use crate::LabelledInteraction;

const FEATURES: usize = 8;
type Features = [f64; FEATURES];

/// Parts of the queries, each scored by a fit on the others.
const FOLDS: usize = 5;
const ITERATIONS: usize = 400;
const RATE: f64 = 0.5;
const DECAY: f64 = 0.01;

/// The area under the ROC curve of a logistic regression that tells `useful` from `noisy` documents by their length, their
/// number, the share of the query's words in them, punctuation, digits, capitals, length of words and type-token ratio:
/// 0.5 is chance, 1 is certainty. `None` where one quality is missing.
///
/// ```
/// use zerosearch_search::Quality;
/// use zerosearch_simulator::{Interaction, LabelledInteraction, surface_auc};
///
/// let row = |index: usize, quality, document: &str| {
///     let (query, documents) = (format!("q{index}"), vec![document.to_string()]);
///     let interaction = Interaction { question: "?".into(), golden_answers: vec![], query, documents };
///     LabelledInteraction { interaction, quality }
/// };
/// let rows: Vec<_> = (0..20)
///     .flat_map(|i| [row(i, Quality::Useful, "long and full of words"), row(i, Quality::Noisy, "short")])
///     .collect();
/// assert_eq!(surface_auc(&rows), Some(1.0));
/// ```
pub fn surface_auc(rows: &[LabelledInteraction]) -> Option<f64> {
    let features = standardized(rows.iter().map(features).collect());
    let labels: Vec<bool> = rows.iter().map(|row| row.quality == Quality::Useful).collect();
    // All results of one query are in one part.
    let mut part_of = HashMap::new();
    let asked = rows.iter().map(|row| (&row.interaction.question, &row.interaction.query));
    let parts: Vec<usize> = asked
        .map(|asked| {
            let next = part_of.len() % FOLDS;
            *part_of.entry(asked).or_insert(next)
        })
        .collect();
    let mut scored = Vec::with_capacity(rows.len());
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|index| parts[*index] == fold);
        let weights = fit(&features, &labels, &outside);
        scored.extend(inside.into_iter().map(|index| (score(&weights, &features[index]), labels[index])));
    }
    area(&scored)
}

fn features(row: &LabelledInteraction) -> Features {
    let documents = &row.interaction.documents;
    let text = documents.join(" ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let normal = normalize_answer(&text);
    let types: HashSet<&str> = normal.split(' ').collect();
    let query = normalize_answer(&row.interaction.query);
    let asked: HashSet<&str> = query.split(' ').collect();
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    let of_letters = |is: fn(&char) -> bool| share(text.chars().filter(is).count(), text.chars().count());
    [
        words.len() as f64,
        documents.len() as f64,
        share(asked.intersection(&types).count(), asked.len()),
        of_letters(char::is_ascii_punctuation),
        of_letters(|c| c.is_numeric()),
        of_letters(|c| c.is_uppercase()),
        share(text.chars().count(), words.len()),
        share(types.len(), normal.split(' ').count()),
    ]
}

/// Mean 0 and variance 1.
fn standardized(mut rows: Vec<Features>) -> Vec<Features> {
    let n = rows.len().max(1) as f64;
    for feature in 0..FEATURES {
        let mean = rows.iter().map(|row| row[feature]).sum::<f64>() / n;
        let deviation = (rows.iter().map(|row| (row[feature] - mean).powi(2)).sum::<f64>() / n).sqrt();
        for row in &mut rows {
            row[feature] = (row[feature] - mean) / deviation.max(1e-9);
        }
    }
    rows
}

/// Weights of the features, and the constant.
fn fit(rows: &[Features], labels: &[bool], chosen: &[usize]) -> (Features, f64) {
    let (mut weights, mut constant) = ([0.0; FEATURES], 0.0);
    let n = chosen.len().max(1) as f64;
    for _ in 0..ITERATIONS {
        let (mut slopes, mut slope) = ([0.0; FEATURES], 0.0);
        for index in chosen {
            let p = 1.0 / (1.0 + (-score(&(weights, constant), &rows[*index])).exp());
            let error = p - f64::from(u8::from(labels[*index]));
            slope += error / n;
            slopes.iter_mut().zip(&rows[*index]).for_each(|(slope, x)| *slope += error * x / n);
        }
        constant -= RATE * slope;
        weights.iter_mut().zip(slopes).for_each(|(weight, slope)| *weight -= RATE * (slope + DECAY * *weight));
    }
    (weights, constant)
}

fn score((weights, constant): &(Features, f64), row: &Features) -> f64 {
    weights.iter().zip(row).map(|(weight, x)| weight * x).sum::<f64>() + constant
}

/// The share of pairs of a positive and a negative in which the positive scores higher; ties count half.
fn area(scored: &[(f64, bool)]) -> Option<f64> {
    let (positive, negative): (Vec<_>, Vec<_>) = scored.iter().partition(|(_, positive)| *positive);
    let won = |p: f64, n: f64| {
        if p > n {
            1.0
        } else if p < n {
            0.0
        } else {
            0.5
        }
    };
    let wins: f64 = positive.iter().map(|(p, _)| negative.iter().map(|(n, _)| won(*p, *n)).sum::<f64>()).sum();
    let pairs = positive.len() * negative.len();
    (pairs > 0).then(|| wins / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interaction;

    fn rows(document: impl Fn(usize, Quality) -> String) -> Vec<LabelledInteraction> {
        let pair = |index: usize| {
            [Quality::Useful, Quality::Noisy].map(|quality| {
                let interaction = Interaction {
                    question: "?".into(),
                    golden_answers: Vec::new(),
                    query: format!("q{index}"),
                    documents: vec![document(index, quality)],
                };
                LabelledInteraction { interaction, quality }
            })
        };
        (0..60).flat_map(pair).collect()
    }

    #[test]
    fn a_telltale_surface_shows_and_content_alone_does_not() {
        let longer =
            rows(|index, quality| "word ".repeat(4 + index % 7 + if quality == Quality::Useful { 9 } else { 0 }));
        assert!(surface_auc(&longer).unwrap() > 0.95);
        let same = rows(|index, quality| {
            let word = if quality == Quality::Useful { "right " } else { "wrong " };
            word.repeat(1 + index % 7)
        });
        assert!((surface_auc(&same).unwrap() - 0.5).abs() < 0.1);
        assert_eq!(surface_auc(&same[..1]), None);
    }

    #[test]
    fn the_area_counts_pairs() {
        assert_eq!(area(&[(2.0, true), (1.0, false), (0.0, true), (0.0, false)]), Some(0.625));
    }
}
