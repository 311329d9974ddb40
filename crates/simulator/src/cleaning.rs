//! From collected interactions to rows to learn from and rows to measure on, which have nothing in common.

use std::collections::HashSet;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use zerosearch_generate::Stream;
use zerosearch_reward::normalize_answer;
use zerosearch_search::Quality;

use crate::{LabelledInteraction, SimulatorError, mentions};

/// Interactions in two parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Rows to learn from.
    pub train: Vec<LabelledInteraction>,
    /// Rows of questions that nothing is learnt from.
    pub held_out: Vec<LabelledInteraction>,
    /// The rows that are in neither.
    pub removed: Removed,
}

/// Numbers of rows that were left out, each counted for the first reason that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Rows with query, documents and label of an earlier one.
    pub duplicates: usize,
    /// Rows whose query mentions a golden answer.
    pub answer_in_query: usize,
    /// Rows to learn from with the query of a held-out question.
    pub held_out_query: usize,
    /// Rows to learn from that a held-out question's documents were all of, or the ones with the answer.
    pub held_out_document: usize,
    /// Documents of held-out questions that were taken out of rows to learn from; the rows have the others.
    pub documents: usize,
}

/// Leaves duplicates and leaks out and holds back a share of the questions, drawn by the seed, at least one of them. No question, no
/// query and no document is in both parts; texts are compared as [`normalize_answer`] writes them. A row to learn from loses the
/// documents of held-out questions, and goes where none is left, or where it is useful and no answer is left.
///
/// # Errors
/// When there are fewer than two questions, or a part would be empty.
pub fn split_by_question(
    mut rows: Vec<LabelledInteraction>,
    held_out: f64,
    seed: u64,
) -> Result<Split, SimulatorError> {
    let mut removed = Removed::default();
    let mut seen: HashSet<(String, Vec<String>, Quality)> = HashSet::new();
    rows.retain(|row| {
        let i = &row.interaction;
        let documents = i.documents.iter().map(|document| normalize_answer(document)).collect();
        let is_new = seen.insert((normalize_answer(&i.query), documents, row.quality));
        removed.duplicates += usize::from(!is_new);
        is_new
    });
    rows.retain(|row| {
        let tells = mentions(&row.interaction.query, &row.interaction.golden_answers);
        removed.answer_in_query += usize::from(tells);
        !tells
    });

    let question = |row: &LabelledInteraction| normalize_answer(&row.interaction.question);
    let mut known = HashSet::new();
    let mut questions: Vec<String> = rows.iter().map(question).filter(|text| known.insert(text.clone())).collect();
    let all = questions.len();
    if all < 2 {
        let message =
            format!("{all} question with interactions, expected at least 2: one to learn from and one to measure on");
        return Err(SimulatorError::Split(message));
    }
    questions.shuffle(&mut Stream { seed, purpose: "held-out questions", ..Stream::default() }.rng());
    questions.truncate(((all as f64 * held_out).round() as usize).clamp(1, all - 1));
    let chosen: HashSet<String> = questions.into_iter().collect();
    let (held_out, mut train): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| chosen.contains(&question(row)));

    let queries: HashSet<String> = held_out.iter().map(|row| normalize_answer(&row.interaction.query)).collect();
    let documents = held_out.iter().flat_map(|row| &row.interaction.documents);
    let documents: HashSet<String> = documents.map(|document| normalize_answer(document)).collect();
    train.retain_mut(|row| {
        let i = &mut row.interaction;
        if queries.contains(&normalize_answer(&i.query)) {
            removed.held_out_query += 1;
            return false;
        }
        let before = i.documents.len();
        i.documents.retain(|document| !documents.contains(&normalize_answer(document)));
        let taken = before - i.documents.len();
        let answers = || i.documents.iter().any(|document| mentions(document, &i.golden_answers));
        let is_left = taken == 0 || !i.documents.is_empty() && (row.quality == Quality::Noisy || answers());
        removed.held_out_document += usize::from(!is_left);
        removed.documents += if is_left { taken } else { 0 };
        is_left
    });
    if train.is_empty() {
        let message = format!(
            "nothing is left to learn from: all other rows have a query ({}) or the documents ({}) of {} held-out questions; \
             collect with more questions, or hold fewer back",
            removed.held_out_query,
            removed.held_out_document,
            chosen.len()
        );
        return Err(SimulatorError::Split(message));
    }
    Ok(Split { train, held_out, removed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Interaction;

    fn row(question: &str, query: &str, documents: &[&str], quality: Quality) -> LabelledInteraction {
        let interaction = Interaction {
            question: question.into(),
            golden_answers: vec!["Lima".into()],
            query: query.into(),
            documents: documents.iter().map(|document| (*document).into()).collect(),
        };
        LabelledInteraction { interaction, quality }
    }

    #[test]
    fn what_is_left_out_is_counted_by_its_reason() {
        let rows = vec![
            row("Q1", "capital of Peru", &["d1"], Quality::Useful),
            row("Q1", "Capital of Peru!", &["D1."], Quality::Useful),
            row("Q1", "capital of Peru", &["d1"], Quality::Noisy),
            row("Q1", "is it Lima", &["d9"], Quality::Useful),
            row("Q2", "other", &["d2"], Quality::Noisy),
        ];
        let split = split_by_question(rows, 0.5, 0).unwrap();
        let expected = Removed { duplicates: 1, answer_in_query: 1, ..Removed::default() };
        assert_eq!(split.removed, expected);
        assert_eq!(split.train.len() + split.held_out.len(), 3);
    }

    #[test]
    fn queries_and_documents_of_held_out_questions_are_not_learnt() {
        for (query, documents, quality, expected) in [
            ("SAME!", &["y"] as &[&str], Quality::Noisy, Removed { held_out_query: 1, ..Removed::default() }),
            ("else", &["Common."], Quality::Noisy, Removed { held_out_document: 1, ..Removed::default() }),
            ("else", &["y", "Common."], Quality::Noisy, Removed { documents: 1, ..Removed::default() }),
            ("else", &["Lima", "Common."], Quality::Useful, Removed { documents: 1, ..Removed::default() }),
            ("else", &["y", "Lima: common"], Quality::Useful, Removed { held_out_document: 1, ..Removed::default() }),
            ("else", &["Lima"], Quality::Useful, Removed::default()),
        ] {
            let held_out = row("Q1", "same", &["common", "Lima common"], Quality::Useful);
            let rows = vec![held_out.clone(), row("Q2", query, documents, quality), row("Q3", "q", &["z"], quality)];
            // Whichever seed holds Q1 back.
            let mut splits = (0..).map(|seed| split_by_question(rows.clone(), 0.34, seed).unwrap());
            let split = splits.find(|split| split.held_out == [held_out.clone()]).unwrap();
            assert_eq!(split.removed, expected, "{query} {documents:?}");
            let learnt = split.train.len();
            assert_eq!(learnt, 2 - expected.held_out_query - expected.held_out_document);
            let left: usize = split.train.iter().map(|row| row.interaction.documents.len()).sum();
            let dropped = if learnt < 2 { documents.len() } else { 0 };
            assert_eq!(left, documents.len() + 1 - dropped - expected.documents);
        }
    }

    #[test]
    fn too_little_is_an_error_that_counts() {
        let same = |question: &str| row(question, "same", &["d", question], Quality::Useful);
        let error = split_by_question(vec![same("Q1"), same("Q2")], 0.5, 0).unwrap_err().to_string();
        assert!(error.contains("nothing is left") && error.contains("a query (1)"), "{error}");
        let error = split_by_question(vec![same("Q1")], 0.5, 0).unwrap_err().to_string();
        assert!(error.contains("1 question with interactions"), "{error}");
    }

    proptest! {
        #[test]
        fn the_parts_have_no_question_query_or_document_in_common(
            cells in prop::collection::vec((0..9_u8, 0..9_u8, 0..20_u8, any::<bool>()), 0..40),
            share in 0.0..1.0_f64,
            seed in any::<u64>(),
        ) {
            let rows: Vec<_> = cells
                .iter()
                .map(|(question, query, document, useful)| {
                    let quality = if *useful { Quality::Useful } else { Quality::Noisy };
                    row(&format!("Q{question}"), &format!("q{query}"), &[&format!("d{document}")], quality)
                })
                .collect();
            let total = rows.len();
            if let Ok(Split { train, held_out, removed }) = split_by_question(rows.clone(), share, seed) {
                let Removed { duplicates, answer_in_query, held_out_query, held_out_document, .. } = removed;
                prop_assert_eq!(
                    train.len() + held_out.len() + duplicates + answer_in_query + held_out_query + held_out_document,
                    total
                );
                prop_assert!(!train.is_empty() && !held_out.is_empty());
                for (a, b) in train.iter().flat_map(|a| held_out.iter().map(move |b| (&a.interaction, &b.interaction))) {
                    prop_assert!(a.question != b.question && a.query != b.query && a.documents != b.documents);
                }
                prop_assert_eq!(split_by_question(rows, share, seed).unwrap().train, train);
            }
        }
    }
}
