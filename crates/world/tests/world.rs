//! Premises of the default run: facts are found with one search, chains are not, and the split is clean.

use std::collections::{BTreeMap, BTreeSet};

use zerosearch_search::{Bm25Index, Document, Query, SearchEngine};
use zerosearch_world::{Entity, Field, Kind, NameSource, Passage, Split, World, WorldQuestion};

/// An engine over a corpus, with the normalised texts beside it.
struct Corpus {
    engine: Bm25Index,
    texts: BTreeMap<String, String>,
}

impl Corpus {
    fn new(passages: &[Passage]) -> Self {
        let document =
            |p: &Passage| Document { id: Some(p.id.clone()), contents: p.contents.clone(), ..Default::default() };
        Corpus {
            engine: Bm25Index::new(passages.iter().map(document)).unwrap(),
            texts: passages.iter().map(|p| (p.id.clone(), normal(&p.contents))).collect(),
        }
    }

    /// The rank, from 0, of the first of the `top` results that contains one of the answers.
    fn rank(&self, query: &str, answers: &[String], top: usize) -> Option<usize> {
        let answers: Vec<String> = answers.iter().map(|answer| normal(answer)).collect();
        let found = self.engine.search(&Query { text: query, top_k: top, context: None }).unwrap();
        found.iter().position(|document| {
            let text = &self.texts[document.id.as_deref().unwrap()];
            answers.iter().any(|answer| text.contains(answer))
        })
    }
}

/// SQuAD normalisation.
fn normal(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    plain.split_whitespace().filter(|word| !["a", "an", "the"].contains(word)).collect::<Vec<_>>().join(" ")
}

/// Lower-case words with blanks around each.
fn words(text: &str) -> String {
    let words: Vec<String> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    format!(" {} ", words.join(" "))
}

fn share(hits: usize, all: usize) -> f64 {
    hits as f64 / all as f64
}

#[test]
fn the_corpus_is_large_and_its_passages_are_short_and_distinct() {
    let passages = World::real().unwrap().passages(1);
    let lengths: Vec<usize> = passages.iter().map(|p| p.contents.split_whitespace().count()).collect();
    let mean = share(lengths.iter().sum(), lengths.len());
    assert!(passages.len() >= 5_000, "{}", passages.len());
    assert!((20.0..=35.0).contains(&mean), "{mean}");
    assert!(lengths.iter().all(|&n| (14..=40).contains(&n)), "{:?}..{:?}", lengths.iter().min(), lengths.iter().max());
    assert_eq!(passages.iter().map(|p| &p.contents).collect::<BTreeSet<_>>().len(), passages.len());
    assert_eq!(passages.iter().map(|p| &p.id).collect::<BTreeSet<_>>().len(), passages.len());
}

#[test]
fn the_bare_question_finds_one_hop_answers_and_few_others() {
    let world = World::real().unwrap();
    let corpus = Corpus::new(&world.passages(1));
    let mut found: BTreeMap<bool, (usize, usize)> = BTreeMap::new();
    for question in world.questions() {
        let (hits, all) = found.entry(question.hops > 1).or_default();
        *hits += usize::from(corpus.rank(&question.question, &question.golden_answers, 5).is_some());
        *all += 1;
    }
    let one = share(found[&false].0, found[&false].1);
    let several = share(found[&true].0, found[&true].1);
    assert!(one >= 0.95, "one hop: {one}");
    assert!(several <= 0.35, "several hops: {several}");
}

#[test]
fn the_gold_queries_find_what_they_are_for() {
    let world = World::real().unwrap();
    let corpus = Corpus::new(&world.passages(1));
    let steps: BTreeSet<(String, String)> =
        world.questions().into_iter().flat_map(|q| q.steps).map(|step| (step.query, step.answer)).collect();
    let ranks: Vec<Option<usize>> =
        steps.iter().map(|(query, answer)| corpus.rank(query, std::slice::from_ref(answer), 3)).collect();
    let first = share(ranks.iter().filter(|rank| **rank == Some(0)).count(), ranks.len());
    let third = share(ranks.iter().flatten().count(), ranks.len());
    assert!(first >= 0.85, "first: {first}");
    assert!(third >= 0.95, "among three: {third}");
}

#[test]
fn no_passage_holds_both_ends_of_a_chain() {
    let world = World::real().unwrap();
    let passages = world.passages(1);
    let mut by_entity: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
    for passage in &passages {
        by_entity.entry(&passage.entity).or_default().push((&passage.contents, words(&passage.contents)));
    }
    let (mut together, mut all) = (Vec::new(), 0);
    for question in world.questions().iter().filter(|question| question.hops == 2) {
        let given = match question.kind.split('_').next().unwrap() {
            "capital" => Field::Capital,
            "tld" => Field::Tld,
            "peak" => Field::Peak,
            "anthem" => Field::Anthem,
            _ => continue,
        };
        let holder = world.entity(&question.steps[0].answer).unwrap();
        let (clue, answer) = (holder.value(given).unwrap(), words(&question.steps[1].answer));
        // The name of a capital named after its country stands everywhere.
        if words(&holder.name).contains(&words(clue)) || words(&holder.name).contains(&answer) {
            continue;
        }
        all += 1;
        // A code counts with its point only: `at` and `in` are words.
        let holds =
            |raw: &str, text: &str| if given == Field::Tld { raw.contains(clue) } else { text.contains(&words(clue)) };
        if by_entity[holder.name.as_str()].iter().any(|(raw, text)| holds(raw, text) && text.contains(&answer)) {
            together.push(question.id.clone());
        }
    }
    // Slovenia's symbol is its highest mountain; India's code is a word.
    assert!(all > 3_000 && together.len() <= 3, "{} of {all}: {together:?}", together.len());
}

#[test]
fn no_entity_of_a_test_question_occurs_in_a_training_question() {
    let world = World::real().unwrap();
    let questions = world.questions();
    let (test, train): (Vec<&WorldQuestion>, Vec<&WorldQuestion>) =
        questions.iter().partition(|q| q.split == Split::Test);
    let listed =
        |questions: &[&WorldQuestion]| questions.iter().flat_map(|q| q.entities.clone()).collect::<BTreeSet<_>>();
    assert!(listed(&test).is_disjoint(&listed(&train)));

    // Not by their lists only: neither does its name stand anywhere in text or answers.
    for kind in [Kind::Country, Kind::Element] {
        let is_kind = |q: &&&WorldQuestion| world.entity(&q.entities[0]).unwrap().kind == kind;
        let text = |questions: &[&WorldQuestion]| {
            questions
                .iter()
                .filter(is_kind)
                .map(|q| words(&format!("{} | {}", q.question, q.golden_answers.join(" | "))))
                .collect::<String>()
        };
        let (test_text, train_text) = (text(&test), text(&train));
        for entity in world.entities.iter().filter(|e| e.kind == kind) {
            let other = if entity.split == Split::Test { &train_text } else { &test_text };
            for name in entity.names() {
                assert!(!other.contains(&words(name)), "{name} of {:?} stands on the other side", entity.split);
            }
        }
    }
    let count = |several: bool| test.iter().filter(|q| (q.hops > 1) == several).count();
    assert!(count(true) >= 150 && count(false) >= 200, "{} {}", count(true), count(false));
}

#[test]
fn about_a_quarter_of_the_entities_is_for_testing() {
    let world = World::real().unwrap();
    for kind in [Kind::Country, Kind::Element] {
        let all: Vec<&Entity> = world.entities.iter().filter(|e| e.kind == kind).collect();
        let test = all.iter().filter(|e| e.split == Split::Test).count();
        assert!((0.2..=0.3).contains(&share(test, all.len())), "{kind:?}: {test} of {}", all.len());
    }
}

#[test]
fn the_training_part_says_nothing_of_test_entities() {
    let world = World::real().unwrap();
    let train = world.restricted(Split::Train);
    let corpus: String = train
        .passages(1)
        .iter()
        .filter(|p| train.entity(&p.entity).unwrap().kind == Kind::Country)
        .map(|p| words(&p.contents))
        .collect();
    for entity in world.entities.iter().filter(|e| e.split == Split::Test && e.kind == Kind::Country) {
        for name in entity.names() {
            assert!(!corpus.contains(&words(name)), "{name}");
        }
    }
}

#[test]
fn every_chain_ends_at_the_answer() {
    for question in World::real().unwrap().questions() {
        assert_eq!(question.steps.len(), question.hops, "{question:?}");
        assert_eq!(question.steps.last().unwrap().answer, question.golden_answers[0], "{question:?}");
        assert!(!words(&question.question).contains(&words(&question.golden_answers[0])), "{question:?}");
        assert_eq!(question.golden_answers.iter().collect::<BTreeSet<_>>().len(), question.golden_answers.len());
    }
}

#[test]
fn questions_are_asked_once() {
    let questions = World::real().unwrap().questions();
    assert_eq!(questions.iter().map(|q| words(&q.question)).collect::<BTreeSet<_>>().len(), questions.len());
    assert_eq!(questions.iter().map(|q| &q.id).collect::<BTreeSet<_>>().len(), questions.len());
}

fn names() -> (World, NameSource) {
    let real = World::real().unwrap();
    let source = NameSource::learn(&real.restricted(Split::Train), &real);
    (real, source)
}

#[test]
fn a_seed_names_a_world() {
    let (real, names) = names();
    let train = real.restricted(Split::Train);
    assert_eq!(World::invented(5, 30, 10, &names), World::invented(5, 30, 10, &names));
    assert_ne!(World::invented(5, 30, 10, &names), World::invented(6, 30, 10, &names));
    assert_eq!(train.shuffled(5), train.shuffled(5));
    assert_ne!(train.shuffled(5), train.shuffled(6));
    assert_eq!(real.passages(5), real.passages(5));
    assert_ne!(real.passages(5), real.passages(6));
}

#[test]
fn invented_worlds_have_new_and_distinct_names_and_mutual_borders() {
    let (real, names) = names();
    let taken: BTreeSet<String> = real
        .entities
        .iter()
        .flat_map(|e| {
            e.names().chain([Field::Capital, Field::Peak, Field::Anthem].into_iter().filter_map(|f| e.value(f)))
        })
        .map(words)
        .collect();
    for seed in 0..5 {
        let world = World::invented(seed, 80, 40, &names);
        let mut seen = BTreeSet::new();
        for entity in &world.entities {
            let unique = [Field::Capital, Field::Peak, Field::Anthem];
            for name in std::iter::once(entity.name.as_str()).chain(unique.into_iter().filter_map(|f| entity.value(f)))
            {
                assert!(seen.insert(words(name)), "{name} is used twice");
                assert!(!taken.contains(&words(name)), "{name} is real");
            }
            for (neighbour, km) in &entity.neighbours {
                let back = world.entity(neighbour).unwrap();
                assert!(back.neighbours.contains(&(entity.name.clone(), *km)), "{} and {neighbour}", entity.name);
            }
        }
        let hops: BTreeSet<usize> = world.questions().iter().map(|q| q.hops).collect();
        assert_eq!(hops, BTreeSet::from([1, 2, 3]));
    }
}

#[test]
fn a_shuffled_world_keeps_the_names_and_moves_the_facts() {
    let train = World::real().unwrap().restricted(Split::Train);
    let shuffled = train.shuffled(3);
    assert_eq!(
        train.entities.iter().map(|e| &e.name).collect::<Vec<_>>(),
        shuffled.entities.iter().map(|e| &e.name).collect::<Vec<_>>()
    );
    let moved = train
        .entities
        .iter()
        .zip(&shuffled.entities)
        .filter(|(a, b)| a.value(Field::Capital) != b.value(Field::Capital))
        .count();
    let capitals = train.entities.iter().filter(|e| e.facts.contains_key(&Field::Capital)).count();
    assert!(moved * 10 > capitals * 9, "{moved} of {capitals}");
    let sorted = |world: &World| {
        let mut all: Vec<String> =
            world.entities.iter().filter_map(|e| e.value(Field::Capital)).map(str::to_owned).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&train), sorted(&shuffled));
    for entity in &shuffled.entities {
        for (neighbour, km) in &entity.neighbours {
            assert!(shuffled.entity(neighbour).unwrap().neighbours.contains(&(entity.name.clone(), *km)));
        }
    }
}

#[test]
fn the_facts_stay_small() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/facts/world.json");
    assert!(std::fs::metadata(file).unwrap().len() <= 2_000_000);
}
