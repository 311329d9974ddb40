//! The documents of both engines for the same queries.

use std::collections::BTreeMap;

use zerosearch_eval::Estimate;
use zerosearch_search::Quality;
use zerosearch_simulator::{
    DocumentStatistics, Interaction, LabelledInteraction, TrainingText, mentions, style_distance, surface_auc,
};

use super::report::{DocumentGap, DocumentsReport};

/// Results of one engine by question, in the order in which the questions were asked.
type ByQuestion<'a> = Vec<Vec<&'a LabelledInteraction>>;

/// The real engine's results beside the simulator's, with the keyword useful and with noisy.
pub(super) fn compared(asked: &[Interaction], written: Vec<LabelledInteraction>) -> DocumentsReport {
    let label = |interaction: &Interaction, quality| LabelledInteraction { interaction: interaction.clone(), quality };
    let real: Vec<LabelledInteraction> = asked.iter().map(|row| label(row, Quality::Useful)).collect();
    let (useful, noisy): (Vec<_>, Vec<_>) = written.into_iter().partition(|row| row.quality == Quality::Useful);
    let all = [&real, &useful, &noisy];
    // A simulator that wrote nothing must not leave nothing to compare.
    let lengths = all.map(|rows| DocumentStatistics::words(rows));
    let words = lengths.into_iter().filter(|words| *words > 0).min().unwrap_or_default();
    let of_real = by_question(&real);
    let gap = |rows: &[LabelledInteraction]| {
        let grouped = by_question(rows);
        let distance = |of: &[usize]| style_distance(texts(&grouped, of), texts(&of_real, of)).unwrap_or(1.0);
        // The surface of the two engines, as if they were two qualities.
        let mixed: Vec<LabelledInteraction> =
            real.iter().cloned().chain(rows.iter().map(|row| label(&row.interaction, Quality::Noisy))).collect();
        figures(
            rows,
            &grouped,
            &real,
            words,
            Estimate::jackknife(grouped.len(), distance).of_share(),
            surface_auc(&mixed),
        )
    };
    DocumentsReport {
        real: {
            // Of one half of the questions to the other: a perfect simulator would be no further away.
            let halves = |of: &[usize]| {
                let (left, right): (Vec<usize>, Vec<usize>) = of.iter().partition(|index| *index % 2 == 0);
                style_distance(texts(&of_real, &left), texts(&of_real, &right)).unwrap_or(0.0)
            };
            // Whole pairs are left out, so that the halves stay halves.
            let pairs = of_real.len() / 2;
            let paired = |of: &[usize]| halves(&of.iter().flat_map(|i| [2 * i, 2 * i + 1]).collect::<Vec<_>>());
            figures(&real, &of_real, &real, words, Estimate::jackknife(pairs, paired).of_share(), None)
        },
        useful: gap(&useful),
        noisy: gap(&noisy),
    }
}

fn figures(
    rows: &[LabelledInteraction],
    grouped: &ByQuestion<'_>,
    real: &[LabelledInteraction],
    words: usize,
    style_distance: Estimate,
    surface_auc: Option<f64>,
) -> DocumentGap {
    let mean = |figure: &dyn Fn(&LabelledInteraction) -> f64| {
        let share = |of: &[usize]| {
            let rows = || of.iter().flat_map(|index| &grouped[*index]);
            rows().map(|row| figure(row)).sum::<f64>() / rows().count().max(1) as f64
        };
        Estimate::jackknife(grouped.len(), share)
    };
    let contains = |row: &LabelledInteraction| {
        let i = &row.interaction;
        f64::from(u8::from(i.documents.iter().any(|text| mentions(text, &i.golden_answers))))
    };
    let length = |row: &LabelledInteraction| DocumentStatistics::words(std::slice::from_ref(row)) as f64;
    let statistics = DocumentStatistics::of(rows, real, &TrainingText::default(), words);
    DocumentGap {
        contains: mean(&contains).of_share(),
        documents_per_result: mean(&|row| row.interaction.documents.len() as f64),
        words_per_result: mean(&length),
        distinct_1: statistics.distinct_1,
        distinct_2: statistics.distinct_2,
        style_distance,
        surface_auc,
    }
}

fn by_question(rows: &[LabelledInteraction]) -> ByQuestion<'_> {
    let mut places = BTreeMap::new();
    let mut grouped: ByQuestion<'_> = Vec::new();
    for row in rows {
        let place = *places.entry(&row.interaction.question).or_insert(grouped.len());
        if place == grouped.len() {
            grouped.push(Vec::new());
        }
        grouped[place].push(row);
    }
    grouped
}

fn texts<'a>(grouped: &'a ByQuestion<'_>, of: &'a [usize]) -> impl Iterator<Item = &'a String> {
    of.iter().flat_map(|index| &grouped[*index]).flat_map(|row| &row.interaction.documents)
}
