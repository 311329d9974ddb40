//! The way from labelled interactions to examples for fine-tuning.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use zerosearch_search::Quality;

use crate::{LabelledInteraction, Lesson, SimulatorError, Substitution, evidence_first};

/// How interactions become examples. The default makes a simulator copy its answer out of the prompt;
/// [`as_found`](Self::as_found) changes nothing in them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lessons {
    /// Share of the examples whose answer is another one, in prompt and documents, each time that they are seen: 0 to 1. See
    /// [`Substitution`].
    pub substitution: f64,
    /// Share of the noisy examples that are useful ones with another answer in the documents than in the prompt: 0 to 1.
    pub contradiction: f64,
    /// Whether documents that mention the answer come before the others: see [`evidence_first`].
    pub evidence_first: bool,
    /// The most documents with evidence in a twin, 0 for all but one: see [`contrast`](crate::contrast).
    pub evidence: usize,
    /// How much more than another a token of a golden answer weighs in a document: a dozen of two hundred tokens decide whether the
    /// simulator obeys its keyword.
    pub answer_weight: f32,
    /// The same for the other answer in a contradiction. More makes noisy documents mention the golden answer less often, and useful ones as well.
    pub contradiction_weight: f32,
    /// How much more the tokens before either answer weigh in its sentence: an answer is stated when its sentence is begun.
    pub sentence_weight: f32,
    /// Share of the examples of which only the first document is learnt: the one with the evidence, at less cost.
    pub first_document: f64,
}

impl Default for Lessons {
    fn default() -> Self {
        Self {
            substitution: 1.0,
            contradiction: 0.75,
            evidence_first: true,
            evidence: 0,
            answer_weight: 20.0,
            contradiction_weight: 4.0,
            sentence_weight: 4.0,
            first_document: 0.7,
        }
    }
}

impl Lessons {
    /// Interactions as they were found, with one document of evidence in a twin.
    pub fn as_found() -> Self {
        Self {
            substitution: 0.0,
            contradiction: 0.0,
            evidence_first: false,
            evidence: 1,
            answer_weight: 6.0,
            contradiction_weight: 1.0,
            sentence_weight: 1.0,
            first_document: 0.0,
        }
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), SimulatorError> {
        let refuse = |key, value: String, expected| Err(SimulatorError::Lessons { key, value, expected });
        let shares = [
            ("substitution", self.substitution),
            ("contradiction", self.contradiction),
            ("first_document", self.first_document),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return refuse(key, share.to_string(), "0 to 1");
            }
        }
        let weights = [
            ("answer_weight", self.answer_weight),
            ("contradiction_weight", self.contradiction_weight),
            ("sentence_weight", self.sentence_weight),
        ];
        if let Some((key, weight)) = weights.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight > 0.0)) {
            return refuse(key, weight.to_string(), "a finite number above 0");
        }
        Ok(())
    }

    /// The rows in the order of their documents that is learnt.
    pub fn ordered(&self, rows: &[LabelledInteraction]) -> Vec<LabelledInteraction> {
        let rows = rows.iter().cloned();
        if self.evidence_first { rows.map(evidence_first).collect() } else { rows.collect() }
    }

    /// A row as it is learnt this time. `useful` are the rows that a contradiction can be made of.
    pub fn draw(
        &self,
        row: &LabelledInteraction,
        answers: &Substitution,
        useful: &[&LabelledInteraction],
        rng: &mut impl Rng,
    ) -> Lesson {
        let contradiction = (row.quality == Quality::Noisy && rng.random_bool(self.contradiction))
            .then(|| answers.contradict(useful.choose(rng)?, rng))
            .flatten();
        let lesson = match contradiction {
            Some((row, other)) => Lesson { decisive: vec![other], ..Lesson::new(row, self.contradiction_weight) },
            None if rng.random_bool(self.substitution) => Lesson::new(answers.draw(row, rng), self.answer_weight),
            None => Lesson::new(row.clone(), self.answer_weight),
        };
        Lesson { sentence_weight: self.sentence_weight, is_cut: rng.random_bool(self.first_document), ..lesson }
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_generate::Stream;

    use super::*;
    use crate::Interaction;

    fn rows() -> Vec<LabelledInteraction> {
        let row = |(answer, documents): (&str, &[&str])| {
            let interaction = Interaction {
                question: "What is the capital?".into(),
                golden_answers: vec![answer.into()],
                query: "capital".into(),
                documents: documents.iter().map(|text| (*text).to_string()).collect(),
            };
            let quality =
                if documents.iter().any(|text| text.contains(answer)) { Quality::Useful } else { Quality::Noisy };
            LabelledInteraction { interaction, quality }
        };
        [("Bongor", &["A river.", "It is Bongor."][..]), ("Sarhan", &["A lake."]), ("Moundo", &["It is Moundo."])]
            .map(row)
            .into()
    }

    #[test]
    fn as_found_changes_nothing_and_the_default_never_leaves_a_noisy_row_the_answer() {
        let rows = rows();
        let (answers, useful) = (Substitution::new(&rows), [&rows[0], &rows[2]]);
        assert_eq!(Lessons::as_found().ordered(&rows), rows);
        assert_eq!(Lessons::default().ordered(&rows)[0].interaction.documents, ["It is Bongor.", "A river."]);
        let mut seen = 0;
        for step in 0..40 {
            let mut rng = Stream { step, ..Stream::default() }.rng();
            for row in &rows {
                assert_eq!(Lessons::as_found().draw(row, &answers, &useful, &mut rng), Lesson::new(row.clone(), 6.0));
                let Lesson { row: learnt, decisive, weight, .. } =
                    Lessons::default().draw(row, &answers, &useful, &mut rng);
                let Interaction { documents, golden_answers, .. } = &learnt.interaction;
                let mentions = documents.iter().any(|text| crate::mentions(text, golden_answers));
                assert_eq!((learnt.quality, mentions), (row.quality, row.quality == Quality::Useful));
                // A contradiction's weight is on what it says, not on what it withholds.
                let said = documents.iter().any(|text| crate::mentions(text, &decisive));
                let contradicts = decisive != *golden_answers;
                assert!(said == (mentions || contradicts) && !(contradicts && mentions), "{learnt:?} {decisive:?}");
                assert_eq!(weight, if contradicts { 4.0 } else { 20.0 });
                seen += usize::from(learnt.interaction != row.interaction);
            }
        }
        assert!(seen > 60, "{seen} of 120 changed");
    }

    #[test]
    fn values_out_of_range_are_refused_by_their_key() {
        assert!(Lessons::default().validate().is_ok() && Lessons::as_found().validate().is_ok());
        for (lessons, key) in [
            (Lessons { substitution: 1.5, ..Lessons::default() }, "`substitution` is 1.5"),
            (Lessons { contradiction: -0.1, ..Lessons::default() }, "`contradiction` is -0.1"),
            (Lessons { contradiction_weight: f32::NAN, ..Lessons::default() }, "`contradiction_weight` is NaN"),
            (Lessons { answer_weight: 0.0, ..Lessons::default() }, "`answer_weight` is 0"),
        ] {
            let message = lessons.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
