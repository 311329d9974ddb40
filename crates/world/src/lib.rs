//! A world of facts, real or invented, and what is written and asked about it.
//!
//! The real world holds short facts about countries and chemical elements (public-domain sources,
//! see `facts/README.md`). [`World::passages`] renders any world into a corpus of short passages,
//! [`World::questions`] into questions of one to three hops with their gold chains of searches.
//! Invented and shuffled worlds have the same schema, so that a model can learn the *language* of
//! the corpus without learning a single fact of it.
//!
//! ```
//! use zerosearch_world::{NameSource, Split, World};
//!
//! let real = World::real()?;
//! let train = real.restricted(Split::Train);
//! assert!(train.entities.iter().all(|entity| entity.split == Split::Train));
//!
//! let names = NameSource::learn(&train, &real);
//! let invented = World::invented(7, 20, 10, &names);
//! assert_eq!(invented.entities.len(), 30);
//! assert!(invented.questions().iter().any(|question| question.hops == 3));
//! # Ok::<(), zerosearch_data::DataError>(())
//! ```

#![forbid(unsafe_code)]

mod borders;
mod draw;
mod field;
mod invent;
mod names;
mod passages;
mod phrases;
mod questions;
mod split;
mod wording;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use field::Field;
pub use names::{NameClass, NameSource};
pub use passages::Passage;
pub use questions::{Step, WorldQuestion};
pub use split::Split;

use zerosearch_data::{DataError, Position};

const FACTS: &str = include_str!("../facts/world.json");

/// Entities and what is true of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Countries first, then elements; names are unique.
    pub entities: Vec<Entity>,
}

/// A country (or a territory with facts of its own) or a chemical element.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// How passages and questions name it.
    pub name: String,
    /// Country or element.
    pub kind: Kind,
    /// Other names that are accepted as answers.
    pub aliases: Vec<String>,
    /// The part of the world it lies in (countries, where known).
    pub region: Option<String>,
    /// Its facts, by attribute.
    pub facts: BTreeMap<Field, Fact>,
    /// The countries it shares a land border with, and the border's length in kilometres.
    pub neighbours: Vec<(String, f64)>,
    /// Whether questions about it are for training or for evaluation.
    pub split: Split,
}

/// The two kinds of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A country.
    Country,
    /// A chemical element.
    Element,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Fact {
    /// How passages spell it.
    pub value: String,
    /// Other spellings that are accepted as answers.
    pub aliases: Vec<String>,
}

impl From<Vec<String>> for Fact {
    fn from(values: Vec<String>) -> Self {
        let mut values = values.into_iter();
        Fact { value: values.next().unwrap_or_default(), aliases: values.collect() }
    }
}

impl From<Fact> for Vec<String> {
    fn from(fact: Fact) -> Self {
        std::iter::once(fact.value).chain(fact.aliases).collect()
    }
}

impl Fact {
    /// A fact with one spelling.
    pub fn plain(value: impl Into<String>) -> Self {
        Fact { value: value.into(), aliases: Vec::new() }
    }
}

impl Entity {
    /// The value of a fact as passages spell it.
    pub fn value(&self, field: Field) -> Option<&str> {
        self.facts.get(&field).map(|fact| fact.value.as_str())
    }

    /// Its name and its other names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsFile {
    countries: Vec<Row>,
    elements: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    region: Option<String>,
    facts: BTreeMap<Field, Fact>,
    #[serde(default)]
    neighbours: Vec<(String, f64)>,
}

impl World {
    /// The real world, from the facts that are compiled in.
    ///
    /// # Errors
    /// When the compiled-in facts do not parse, which a test rules out.
    pub fn real() -> Result<World, DataError> {
        let file: FactsFile = serde_json::from_str(FACTS).map_err(|source| DataError::Json {
            path: "facts/world.json".into(),
            position: Position::Line(source.line() as u64),
            source,
        })?;
        let entity = |row: Row, kind| Entity {
            name: row.name,
            kind,
            aliases: row.aliases,
            region: row.region,
            facts: row.facts,
            neighbours: row.neighbours,
            split: Split::Train,
        };
        let countries = file.countries.into_iter().map(|row| entity(row, Kind::Country));
        let mut entities: Vec<Entity> = countries.collect();
        entities.extend(file.elements.into_iter().map(|row| entity(row, Kind::Element)));
        let mut world = World { entities };
        world.derive_borders();
        world.assign_splits();
        Ok(world)
    }

    /// The entity of that name.
    pub fn entity(&self, name: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.name == name)
    }

    /// The part of the world that lies in one split: facts that name an entity of the other split are left out.
    #[must_use]
    pub fn restricted(&self, split: Split) -> World {
        let outside: BTreeSet<&str> =
            self.entities.iter().filter(|entity| entity.split != split).flat_map(Entity::names).collect();
        let mut entities: Vec<Entity> = self.entities.iter().filter(|entity| entity.split == split).cloned().collect();
        for entity in &mut entities {
            entity.neighbours.retain(|(name, _)| !outside.contains(name.as_str()));
            entity.facts.retain(|_, fact| !outside.iter().any(|name| split::names_within(&fact.value, name)));
        }
        let mut world = World { entities };
        world.derive_borders();
        world
    }
}
