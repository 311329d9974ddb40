//! Interactions with substituted answers, so that the simulator copies the answer from its prompt instead of remembering one.
//!
//! A few hundred interactions are about a few dozen entities. A simulator that sees them again and again learns them by heart,
//! and then writes a remembered answer where it should copy the one it is given; for an entity that it never saw it has none.
//! Substitution takes that way away (Longpre et al. 2021, "Entity-Based Knowledge Conflicts in Question Answering").

use std::collections::HashMap;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use zerosearch_search::Quality;

use crate::{LabelledInteraction, mentions};

/// How often another answer is tried before the interaction stays as it is.
const TRIES: usize = 8;

/// The answers of a set of interactions, to be dealt out anew.
#[derive(Clone, Debug, Default)]
pub struct Substitution {
    answers: HashMap<Kind, Vec<String>>,
}

impl Substitution {
    /// The pool of these interactions' answers.
    pub fn new(rows: &[LabelledInteraction]) -> Self {
        let mut answers: HashMap<Kind, Vec<String>> = HashMap::new();
        for answer in rows.iter().filter_map(|row| row.interaction.golden_answers.first()) {
            answers.entry(kind(answer)).or_default().push(answer.clone());
        }
        Self { answers }
    }

    /// The interaction with another answer of the same kind, in its documents too if it is useful: a year for a year, for a name
    /// another name or the beginning of one and the end of another. As it was where no such answer is found, or where question or
    /// query contain the answer.
    pub fn draw(&self, row: &LabelledInteraction, rng: &mut impl Rng) -> LabelledInteraction {
        (0..TRIES).find_map(|_| substituted(row, &self.other(row, rng)?)).unwrap_or_else(|| row.clone())
    }

    /// A noisy interaction made of a useful one, whose documents say another answer than the one that is asked for, and that other answer.
    /// `None` where none is found.
    pub fn contradict(&self, row: &LabelledInteraction, rng: &mut impl Rng) -> Option<(LabelledInteraction, String)> {
        let told = self.draw(row, rng);
        (0..TRIES).find_map(|_| {
            let other = self.other(&told, rng)?;
            let mut row = substituted(&told, &other)?;
            row.interaction.golden_answers.clone_from(&told.interaction.golden_answers);
            row.quality = Quality::Noisy;
            Some((row, other))
        })
    }

    /// Another answer of the kind of this interaction's.
    fn other(&self, row: &LabelledInteraction, rng: &mut impl Rng) -> Option<String> {
        let golden = row.interaction.golden_answers.first()?;
        let alike = self.answers.get(&kind(golden))?;
        let (first, second) = (alike.choose(rng)?, alike.choose(rng)?);
        let other = if rng.random_bool(0.5) { first.clone() } else { spliced(first, second, rng) };
        (other != *golden && kind(&other) == kind(golden)).then_some(other)
    }
}

/// The sort of each of an answer's first four characters: enough to tell a year from a height, a code from a name.
type Kind = String;

fn kind(answer: &str) -> Kind {
    let sort = |c: char| match c {
        c if c.is_numeric() => '0',
        c if c.is_uppercase() => 'A',
        c if c.is_alphabetic() => 'a',
        c => c,
    };
    answer.chars().take(4).map(sort).collect()
}

/// The beginning of one answer and the end of another, cut anywhere: a name that nothing can remember.
fn spliced(first: &str, second: &str, rng: &mut impl Rng) -> String {
    let (first, second): (Vec<char>, Vec<char>) = (first.chars().collect(), second.chars().collect());
    let (head, tail) = (rng.random_range(1..=first.len()), rng.random_range(0..second.len()));
    first[..head].iter().chain(&second[tail..]).collect()
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
    fn answers_that_look_alike_are_of_one_kind() {
        let alike = |a: &str, b: &str| kind(a) == kind(b);
        assert!(alike("1960", "1821") && alike("4,211", "5,870") && alike(".td", ".ch") && alike("Sofia", "Bongor"));
        assert!(!alike("1960", "5,870") && !alike("1960", "31") && !alike("Sofia", "lion") && !alike("Rn", "Sofia"));
    }

    #[test]
    fn a_contradiction_says_another_answer_than_its_prompt() {
        let useful = row(&["Bongor"], "chad", &["It is Bongor.", "Chad has a river."]);
        let pool = Substitution::new(&[useful.clone(), row(&["Moundou"], "chad", &[])]);
        let (noisy, other) = pool.contradict(&useful, &mut Stream::default().rng()).unwrap();
        assert_eq!(noisy.interaction.documents[0], format!("It is {other}."));
        assert_ne!(other, noisy.interaction.golden_answers[0]);
        assert!(noisy.interaction.documents[0].starts_with("It is "), "{noisy:?}");
        assert_eq!(noisy.interaction.documents[1], useful.interaction.documents[1]);
        assert_eq!(
            (noisy.quality, RuleJudge.judge(&[noisy.interaction]).unwrap()),
            (Quality::Noisy, vec![Quality::Noisy])
        );
        assert_eq!(
            pool.contradict(&row(&["Bongor"], "Bongor", &["It is Bongor."]), &mut Stream::default().rng()),
            None
        );
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
            assert_eq!(kind(&now.golden_answers[0]), "0000", "{now:?}");
        }
    }
}
