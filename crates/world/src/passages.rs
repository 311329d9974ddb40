//! The corpus: short passages, each one topic of one entity among facts that no question asks for.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::phrases::{ACROSS, asides, render, sentence, topics};
use crate::split::names_within;
use crate::{Entity, Field, Kind, World, draw};

/// How many passages state a topic of an entity, each in other words.
const TELLINGS: usize = 4;
/// A passage is filled up with asides to at least this many words.
const FEWEST_WORDS: usize = 20;
/// An aside that would make it longer than this is left out.
const MOST_WORDS: usize = 34;
/// One passage in this many also mentions a neighbour.
const ACROSS_EVERY: u32 = 5;

/// A short text about one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Unique in its world.
    pub id: String,
    /// The entity it is about.
    pub entity: String,
    /// The topic it states, such as `capital`.
    pub topic: &'static str,
    /// The text, one paragraph.
    pub contents: String,
}

impl World {
    /// Renders the world into passages of about 30 words; the seed decides on wording and company.
    ///
    /// Each holds one *topic* (say, the capital, or the highest point with its height) and some
    /// asides. No two topics share a passage, so that the answer to a question of several hops never
    /// stands beside what the question gives.
    pub fn passages(&self, seed: u64) -> Vec<Passage> {
        let by_name: BTreeMap<&str, &Entity> = self.entities.iter().map(|e| (e.name.as_str(), e)).collect();
        let mut passages = Vec::new();
        for entity in &self.entities {
            let mut rng = draw::stream(seed, "passages", &entity.name);
            let mut company = Company::new(entity, &mut rng);
            for topic in topics(entity.kind) {
                let mut phrases: Vec<&str> = topic.phrases.to_vec();
                phrases.shuffle(&mut rng);
                // The most informative phrases first.
                phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.matches('{').count()));
                for phrase in phrases.into_iter().filter_map(|phrase| render(phrase, entity)).take(TELLINGS) {
                    let neighbour = neighbour_aside(entity, &by_name, &mut rng);
                    let contents = company.around(phrase, neighbour, &mut rng);
                    let id = format!("w{}", passages.len());
                    passages.push(Passage { id, entity: entity.name.clone(), topic: topic.name, contents });
                }
            }
        }
        passages
    }
}

/// The asides of an entity, dealt out in turn so that each is told about equally often.
struct Company<'a> {
    entity: &'a Entity,
    groups: Vec<Vec<String>>,
    next: usize,
}

impl<'a> Company<'a> {
    fn new(entity: &'a Entity, rng: &mut ChaCha8Rng) -> Self {
        let mut groups: Vec<Vec<String>> = asides(entity.kind)
            .iter()
            .map(|group| group.iter().filter_map(|phrase| render(phrase, entity)).collect::<Vec<_>>())
            .filter(|group| !group.is_empty())
            .collect();
        groups.shuffle(rng);
        Company { entity, groups, next: 0 }
    }

    fn around(&mut self, topic: String, neighbour: Option<String>, rng: &mut ChaCha8Rng) -> String {
        let mut length = words(&topic) + neighbour.as_deref().map_or(0, words);
        let mut told: Vec<String> = Vec::new();
        let mut used = BTreeSet::new();
        let least = FEWEST_WORDS + rng.random_range(0..6);
        for _ in 0..self.groups.len() {
            if length >= least {
                break;
            }
            let at = self.next % self.groups.len();
            self.next += 1;
            let aside = draw::pick(&self.groups[at], rng);
            if length + words(&aside) <= MOST_WORDS && used.insert(at) && !gives_away(&aside, self.entity) {
                length += words(&aside);
                told.push(aside);
            }
        }
        told.insert(rng.random_range(0..=told.len()), topic);
        told.extend(neighbour);
        told.iter().map(|part| sentence(part)).collect::<Vec<_>>().join(" ")
    }
}

/// Whether an aside spells out what a topic of the entity tells (a port that is the capital, say).
fn gives_away(aside: &str, entity: &Entity) -> bool {
    use Field::{
        Anthem, Capital, Height, IndependenceYear, LongestBorder, Number, OnlyBorder, Peak, Symbol, Tld, Year,
    };
    let topics: &[Field] = match entity.kind {
        Kind::Country => &[Capital, Tld, Peak, Height, IndependenceYear, Anthem, Symbol, LongestBorder, OnlyBorder],
        // Not the symbol: `In` and `As` are words of every other sentence.
        Kind::Element => &[Number, Year],
    };
    let without_name = aside.replace(&entity.name, " ");
    topics.iter().filter_map(|&field| entity.value(field)).any(|value| names_within(&without_name, value))
}

fn neighbour_aside(entity: &Entity, by_name: &BTreeMap<&str, &Entity>, rng: &mut ChaCha8Rng) -> Option<String> {
    if !rng.random_ratio(1, ACROSS_EVERY) {
        return None;
    }
    let (name, _) = entity.neighbours.get(rng.random_range(0..entity.neighbours.len().max(1)))?;
    // The neighbour with the longest border is part of the answer to some questions.
    if [Field::LongestBorder, Field::OnlyBorder].iter().any(|&f| entity.value(f) == Some(name.as_str())) {
        return None;
    }
    let neighbour = by_name.get(name.as_str())?;
    let group = asides(neighbour.kind).get(rng.random_range(0..asides(neighbour.kind).len()))?;
    let said: Vec<String> = group.iter().filter_map(|phrase| render(phrase, neighbour)).collect();
    let said = draw::pick(&said, rng);
    let aside = format!("{}{said}", draw::pick(ACROSS, rng));
    (!said.is_empty() && !gives_away(&aside, entity)).then_some(aside)
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}
