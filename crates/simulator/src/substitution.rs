//! The same interactions with other answers, so that an answer is read from the prompt and not remembered.
//!
//! A few hundred interactions are about a few dozen entities. A simulator that sees them again and again learns them by heart,
//! and then writes a remembered answer where it should copy the one it is given; for an entity that it never saw it has none.
//! Substitution takes that way away (Longpre et al. 2021, "Entity-Based Knowledge Conflicts in Question Answering").

use rand::Rng;
use rand::seq::IndexedRandom;
use zerosearch_search::Quality;

use crate::{LabelledInteraction, mentions};

/// How often another answer is tried before the interaction stays as it is.
const TRIES: usize = 8;

/// The answers of a set of interactions, to be dealt out anew.
#[derive(Clone, Debug, Default)]
pub struct Substitution {
    answers: Vec<String>,
}

impl Substitution {
    /// The pool of these interactions' answers.
    pub fn new(rows: &[LabelledInteraction]) -> Self {
        Self { answers: rows.iter().filter_map(|row| row.interaction.golden_answers.first().cloned()).collect() }
    }

    /// The interaction with another answer of the same kind, in its documents too if it is useful: a figure for a figure, for a name
    /// another name or two of them recombined. As it was where no such answer is found, or where question or query contain the answer.
    pub fn draw(&self, row: &LabelledInteraction, rng: &mut impl Rng) -> LabelledInteraction {
        let kind = |answer: &str| answer.chars().any(|c| c.is_ascii_digit());
        let golden = row.interaction.golden_answers.first().map_or("", String::as_str);
        for _ in 0..TRIES {
            let (Some(first), Some(second)) = (self.answers.choose(rng), self.answers.choose(rng)) else { break };
            let recombine = rng.next_u32().is_multiple_of(2) && !kind(golden);
            let other = if recombine { recombined(first, second) } else { first.clone() };
            if other != golden
                && kind(&other) == kind(golden)
                && let Some(row) = substituted(row, &other)
            {
                return row;
            }
        }
        row.clone()
    }
}

/// The first half of one answer's words and the second half of another's: a name that nothing can remember.
fn recombined(first: &str, second: &str) -> String {
    let (first, second): (Vec<&str>, Vec<&str>) = (first.split(' ').collect(), second.split(' ').collect());
    [&first[..first.len().div_ceil(2)], &second[second.len() / 2..]].concat().join(" ")
}

/// The interaction with `answer` in the place of every golden one, or `None` where its quality would not stay.
fn substituted(row: &LabelledInteraction, answer: &str) -> Option<LabelledInteraction> {
    let mut row = row.clone();
    let i = &mut row.interaction;
    let mut old = std::mem::replace(&mut i.golden_answers, vec![answer.to_string()]);
    let new = &i.golden_answers;
    let asked = [&i.question, &i.query];
    if asked.iter().any(|text| mentions(text, &old) || mentions(text, new))
        || i.documents.iter().any(|d| mentions(d, new))
    {
        return None;
    }
    if row.quality == Quality::Useful {
        // The longest first: an alias is often a part of another.
        old.sort_by_key(|alias| std::cmp::Reverse(alias.len()));
        for document in &mut i.documents {
            for alias in &old {
                *document = replaced(document, alias, answer);
            }
        }
        let remains = i.documents.iter().any(|document| mentions(document, &old));
        if remains || !i.documents.iter().any(|document| mentions(document, new)) {
            return None;
        }
    }
    Some(row)
}

/// `text` with `new` wherever `old` stands as whole words.
fn replaced(text: &str, old: &str, new: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(old).filter(|_| !old.is_empty()) {
        let (before, after) = (&rest[..at], &rest[at + old.len()..]);
        let begins = result.chars().chain(before.chars()).next_back();
        let inside = [begins, after.chars().next()].into_iter().flatten().any(char::is_alphanumeric);
        result += before;
        result += if inside { old } else { new };
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interaction, Judge, RuleJudge};
    use zerosearch_generate::Stream;

    fn row(answers: &[&str], query: &str, documents: &[&str]) -> LabelledInteraction {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_string()).collect::<Vec<_>>();
        let interaction = Interaction {
            question: "What is the capital of Chad?".into(),
            golden_answers: strings(answers),
            query: query.into(),
            documents: strings(documents),
        };
        let quality = RuleJudge.judge(std::slice::from_ref(&interaction)).unwrap()[0];
        LabelledInteraction { interaction, quality }
    }

    #[test]
    fn another_answer_takes_the_place_of_every_alias_and_the_label_stays() {
        let useful =
            row(&["N'Djamena", "N'Djamena City"], "chad", &["It is N'Djamena City.", "N'Djamena lies in Chad."]);
        let now = substituted(&useful, "Bongor").unwrap();
        assert_eq!(now.interaction.documents, ["It is Bongor.", "Bongor lies in Chad."]);
        assert_eq!((now.interaction.golden_answers, now.quality), (vec!["Bongor".to_string()], Quality::Useful));

        let noisy = row(&["N'Djamena"], "chad", &["Chad has a river."]);
        let now = substituted(&noisy, "Bongor").unwrap();
        assert_eq!((now.interaction.documents, now.quality), (noisy.interaction.documents.clone(), Quality::Noisy));
        assert_eq!(substituted(&noisy, "river"), None, "it would not be noisy any more");
        assert_eq!(substituted(&row(&["Chad"], "chad", &["It is Chad."]), "Niger"), None, "the query names it");
    }

    #[test]
    fn names_are_recombined_at_words() {
        assert_eq!(recombined("Mount Ararat", "Song of the Germans"), "Mount the Germans");
        assert_eq!(recombined("Sofia", "Bongor"), "Sofia Bongor");
    }

    #[test]
    fn words_stay_whole() {
        assert_eq!(replaced("On Oman, Oman's and Romania", "Oman", "Iran"), "On Iran, Iran's and Romania");
        assert_eq!(replaced("Womany", "man", "x"), "Womany");
        assert_eq!(replaced("a", "", "x"), "a");
    }

    #[test]
    fn figures_take_the_place_of_figures() {
        let rows =
            [row(&["1960"], "chad", &["Since 1960."]), row(&["Bongor"], "chad", &[]), row(&["1821"], "chad", &[])];
        let pool = Substitution::new(&rows);
        let mut rng = Stream::default().rng();
        for _ in 0..20 {
            let now = pool.draw(&rows[0], &mut rng).interaction;
            assert!(now.golden_answers[0] == "1821" || now == rows[0].interaction, "{now:?}");
        }
    }
}
