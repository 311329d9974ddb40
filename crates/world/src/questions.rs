//! Questions of one to three hops, each with its gold chain of searches.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::phrases::{named, sentence};
use crate::split::words;
use crate::wording::{BRIDGES, Bridge, NEIGHBOURS, Neighbour, OVER_BORDERS, TARGETS, TWO_HOPS, Target};
use crate::{Entity, Kind, Split, World, draw};

/// A question about a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldQuestion {
    /// Unique in its world: the kind and the entity it starts from.
    pub id: String,
    /// The text.
    pub question: String,
    /// All spellings that count as right, the passages' own first.
    pub golden_answers: Vec<String>,
    /// How many searches it takes: 1, 2 or 3.
    pub hops: usize,
    /// The chain of relations, such as `capital` or `capital_longest_border_capital`.
    pub kind: String,
    /// Every entity that the question, its answers or its chain names.
    pub entities: Vec<String>,
    /// The gold chain; the answer of the last step is the first golden answer.
    pub steps: Vec<Step>,
    /// The split of the question and of all its entities.
    pub split: Split,
}

/// One link of a gold chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step as a question.
    pub ask: String,
    /// A search query that finds it.
    pub query: String,
    /// The step's answer, as passages spell it.
    pub answer: String,
}

impl World {
    /// Every question that has one answer, in a fixed order.
    ///
    /// Left out are questions that give their own answer away, those whose clue fits several
    /// entities, and those that would name entities of both splits.
    pub fn questions(&self) -> Vec<WorldQuestion> {
        let asker = Asker::new(self);
        let mut questions = Vec::new();
        for entity in &self.entities {
            asker.about(entity, &mut questions);
        }
        asker.only_sound(questions)
    }
}

/// A description that stands for an entity in a question, with the searches that resolve it.
#[derive(Clone)]
struct Clue {
    key: String,
    description: String,
    steps: Vec<Step>,
    entities: Vec<String>,
}

struct Asker<'a> {
    world: &'a World,
    by_name: BTreeMap<&'a str, &'a Entity>,
    /// How many entities have a value, by the bridge's position and the value's words.
    holders: BTreeMap<(usize, String), usize>,
}

impl<'a> Asker<'a> {
    fn new(world: &'a World) -> Self {
        let mut holders = BTreeMap::new();
        for entity in &world.entities {
            for (at, bridge) in BRIDGES.iter().enumerate().filter(|(_, bridge)| bridge.kind == entity.kind) {
                if let Some(value) = entity.value(bridge.field) {
                    *holders.entry((at, words(value))).or_insert(0) += 1;
                }
            }
        }
        Asker { world, by_name: world.entities.iter().map(|e| (e.name.as_str(), e)).collect(), holders }
    }

    /// All questions whose chain starts at one entity.
    fn about(&self, entity: &Entity, out: &mut Vec<WorldQuestion>) {
        let plain = Clue {
            key: String::new(),
            description: named(&entity.name).into_owned(),
            steps: Vec::new(),
            entities: vec![entity.name.clone()],
        };
        for target in TARGETS.iter().filter(|t| t.kind == entity.kind) {
            out.extend(ask_target(&plain, entity, target, entity));
        }
        let mut described = Vec::new();
        for (at, bridge) in BRIDGES.iter().enumerate().filter(|(_, bridge)| bridge.kind == entity.kind) {
            let Some(value) = entity.value(bridge.field) else { continue };
            if self.holders.get(&(at, words(value))) != Some(&1) {
                continue;
            }
            out.push(ask_bridge(entity, bridge, value));
            let clue = bridge_clue(entity, bridge, value);
            for target in two_hop_targets(bridge.key, entity.kind) {
                out.extend(ask_target(&clue, entity, target, entity));
            }
            described.push((bridge.key, clue));
        }
        for neighbour in NEIGHBOURS {
            let Some(other) = entity.value(neighbour.field).and_then(|name| self.by_name.get(name).copied()) else {
                continue;
            };
            out.push(ask_neighbour(&plain, entity, neighbour, other));
            if let Some((_, clue)) = described.iter().find(|(key, _)| *key == "capital") {
                out.push(ask_neighbour(clue, entity, neighbour, other));
            }
            for (asked, givens) in OVER_BORDERS {
                for target in TARGETS.iter().filter(|t| t.key == *asked && t.kind == Kind::Country) {
                    let clues = described.iter().filter(|(key, _)| givens.contains(key)).map(|(_, clue)| clue);
                    for clue in std::iter::once(&plain).chain(clues) {
                        let over = neighbour_clue(clue, entity, neighbour, other);
                        out.extend(ask_target(&over, other, target, entity));
                    }
                }
            }
        }
    }

    fn only_sound(&self, questions: Vec<WorldQuestion>) -> Vec<WorldQuestion> {
        let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for question in &questions {
            answers.entry(words(&question.question)).or_default().insert(words(&question.golden_answers[0]));
        }
        let names: Vec<(&Entity, Vec<String>)> = self
            .world
            .entities
            .iter()
            .map(|e| (e, e.names().map(|name| format!(" {} ", words(name))).collect()))
            .collect();
        let divided = self.world.entities.iter().any(|e| e.split != self.world.entities[0].split);
        let mut seen = BTreeSet::new();
        questions
            .into_iter()
            .filter_map(|mut question| {
                let text = words(&question.question);
                let answer = words(&question.golden_answers[0]);
                let ambiguous = answers.get(&text).is_none_or(|different| different.len() > 1);
                let given_away = answer.is_empty() || format!(" {text} ").contains(&format!(" {answer} "));
                if ambiguous || given_away || !seen.insert(text.clone()) {
                    return None;
                }
                if divided {
                    let kind = self.by_name.get(question.entities[0].as_str())?.kind;
                    let golden =
                        question.golden_answers.iter().map(|answer| words(answer)).collect::<Vec<_>>().join(" | ");
                    let said = format!(" {text} | {golden} ");
                    let mentioned = names
                        .iter()
                        .filter(|(e, spellings)| e.kind == kind && spellings.iter().any(|s| said.contains(s)));
                    question.entities.extend(mentioned.map(|(e, _)| e.name.clone()));
                }
                let mut listed = BTreeSet::new();
                question.entities.retain(|name| listed.insert(name.clone()));
                let splits: BTreeSet<Split> = question
                    .entities
                    .iter()
                    .filter_map(|name| self.by_name.get(name.as_str()))
                    .map(|e| e.split)
                    .collect();
                question.split = *splits.first()?;
                (splits.len() == 1).then_some(question)
            })
            .collect()
    }
}

fn two_hop_targets(given: &str, kind: Kind) -> impl Iterator<Item = &'static Target> {
    let asked = TWO_HOPS.iter().find(|(key, _)| *key == given).map_or(&[][..], |(_, asked)| asked);
    TARGETS.iter().filter(move |target| target.kind == kind && asked.contains(&target.key))
}

fn ask_target(clue: &Clue, holder: &Entity, target: &Target, start: &Entity) -> Option<WorldQuestion> {
    let fact = holder.facts.get(&target.field)?;
    let kind = kind_name(start.kind, &[&clue.key, target.key]);
    let mut steps = clue.steps.clone();
    steps.push(Step {
        ask: target.questions[0].replace("{e}", &named(&holder.name)),
        query: target.query.replace("{e}", &holder.name),
        answer: fact.value.clone(),
    });
    let answers = std::iter::once(&fact.value).chain(&fact.aliases).cloned().collect();
    let question = wording(target.questions, &kind, start).replace("{e}", &clue.description);
    Some(finish(kind, start, question, answers, clue.entities.clone(), steps))
}

fn ask_bridge(entity: &Entity, bridge: &Bridge, value: &str) -> WorldQuestion {
    let kind = kind_name(entity.kind, &["", bridge.reverse]);
    let question = wording(bridge.questions, &kind, entity).replace("{v}", value);
    let steps = bridge_clue(entity, bridge, value).steps;
    finish(kind, entity, question, entity.names().map(str::to_owned).collect(), vec![entity.name.clone()], steps)
}

fn ask_neighbour(clue: &Clue, entity: &Entity, neighbour: &Neighbour, other: &Entity) -> WorldQuestion {
    let kind = match clue.key.as_str() {
        "" if neighbour.key == "border" => "only_border".to_owned(),
        _ => kind_name(Kind::Country, &[&clue.key, neighbour.key]),
    };
    let question = wording(neighbour.questions, &kind, entity).replace("{e}", &clue.description);
    let over = neighbour_clue(clue, entity, neighbour, other);
    finish(kind, entity, question, other.names().map(str::to_owned).collect(), over.entities, over.steps)
}

fn bridge_clue(entity: &Entity, bridge: &Bridge, value: &str) -> Clue {
    let valued = |phrase: &str| phrase.replace("{v}", value);
    Clue {
        key: bridge.key.to_owned(),
        description: valued(&wording(bridge.descriptions, bridge.key, entity)),
        steps: vec![Step {
            ask: valued(bridge.questions[0]),
            query: valued(bridge.query),
            answer: entity.name.clone(),
        }],
        entities: vec![entity.name.clone()],
    }
}

fn neighbour_clue(clue: &Clue, entity: &Entity, neighbour: &Neighbour, other: &Entity) -> Clue {
    let key = if clue.key.is_empty() { neighbour.key.to_owned() } else { format!("{}_{}", clue.key, neighbour.key) };
    let description = wording(neighbour.descriptions, &key, entity).replace("{e}", &clue.description);
    let mut steps = clue.steps.clone();
    steps.push(Step {
        ask: neighbour.questions[0].replace("{e}", &named(&entity.name)),
        query: neighbour.query.replace("{e}", &entity.name),
        answer: other.name.clone(),
    });
    let mut entities = clue.entities.clone();
    entities.push(other.name.clone());
    Clue { key, description, steps, entities }
}

/// One of the wordings, always the same for a kind and an entity.
fn wording(wordings: &[&str], kind: &str, entity: &Entity) -> String {
    let at = draw::hash(&format!("{kind}\u{0}{}", entity.name)) % wordings.len().max(1) as u64;
    wordings.get(at as usize).copied().unwrap_or_default().to_owned()
}

fn kind_name(kind: Kind, parts: &[&str]) -> String {
    let prefix = if kind == Kind::Element { "element" } else { "" };
    std::iter::once(prefix).chain(parts.iter().copied()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

fn finish(
    kind: String,
    start: &Entity,
    question: String,
    answers: Vec<String>,
    entities: Vec<String>,
    steps: Vec<Step>,
) -> WorldQuestion {
    let mut seen = BTreeSet::new();
    WorldQuestion {
        id: format!("{kind}/{}", start.name),
        question: sentence(&question),
        golden_answers: answers.into_iter().filter(|answer| seen.insert(answer.clone())).collect(),
        hops: steps.len(),
        kind,
        entities,
        steps,
        split: start.split,
    }
}
