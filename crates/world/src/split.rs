//! Training and test entities, divided so that no question crosses the border.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{Entity, Field, Kind, World, draw};

/// Fixed for good: figures are comparable only on the same split.
const SPLIT_SEED: u64 = 20;
const TEST_SHARE: f64 = 0.25;

/// The use of an entity's questions: learning or evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learning.
    Train,
    /// Evaluation: nothing is ever learned from it.
    Test,
}

impl World {
    /// Puts about a quarter of the countries and a quarter of the elements into the test split, whole families at a time.
    ///
    /// A family holds the entities that one question can name together (a country and the neighbour
    /// with its longest or only border) and those whose names contain each other (Niger, Nigeria).
    pub(crate) fn assign_splits(&mut self) {
        for kind in [Kind::Country, Kind::Element] {
            let members: Vec<usize> = (0..self.entities.len()).filter(|&i| self.entities[i].kind == kind).collect();
            let wanted = (members.len() as f64 * TEST_SHARE).round() as usize;
            let mut families = self.families(&members);
            families.shuffle(&mut draw::stream(
                SPLIT_SEED,
                "split",
                if kind == Kind::Country { "country" } else { "element" },
            ));
            let mut taken = 0;
            for family in families {
                // The largest families stay in training: one of them would make the test set lopsided.
                if taken + family.len() <= wanted && family.len() * 4 <= wanted {
                    taken += family.len();
                    for member in family {
                        self.entities[member].split = Split::Test;
                    }
                }
            }
        }
    }

    fn families(&self, members: &[usize]) -> Vec<Vec<usize>> {
        let mut parent: BTreeMap<usize, usize> = members.iter().map(|&i| (i, i)).collect();
        for &a in members {
            for &b in members {
                if a != b && related(&self.entities[a], &self.entities[b]) {
                    let (root_a, root_b) = (root(&parent, a), root(&parent, b));
                    parent.insert(root_a.max(root_b), root_a.min(root_b));
                }
            }
        }
        let mut families: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &member in members {
            families.entry(root(&parent, member)).or_default().push(member);
        }
        families.into_values().collect()
    }
}

fn root(parent: &BTreeMap<usize, usize>, mut node: usize) -> usize {
    while let Some(&up) = parent.get(&node)
        && up != node
    {
        node = up;
    }
    node
}

fn related(a: &Entity, b: &Entity) -> bool {
    let borders = [Field::LongestBorder, Field::OnlyBorder].iter().any(|&f| a.value(f) == Some(b.name.as_str()));
    let nested = b.name.to_lowercase().contains(&a.name.to_lowercase());
    let named = b.names().any(|long| a.names().any(|short| names_within(long, short)));
    borders || nested || named
}

/// Whether `text` names `name`, whole words, whatever the case and punctuation.
pub(crate) fn names_within(text: &str, name: &str) -> bool {
    let (text, name) = (format!(" {} ", words(text)), words(name));
    !name.is_empty() && text.contains(&format!(" {name} "))
}

/// Lower-case words divided by single blanks.
pub(crate) fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}
