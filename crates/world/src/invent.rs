//! Invented worlds: made up from nothing, or the real one with its facts shuffled.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::borders::grouped;
use crate::names::{NameClass, NameSource};
use crate::split::words;
use crate::{Entity, Fact, Field, Kind, Split, World, draw};

/// Share of invented countries without a land border, in hundredths.
const ISLANDS: u32 = 25;
/// A real country has about one in this many facts missing; so has an invented one.
const GAPS: u32 = 8;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const RULERS: &[&str] = &["the crown of", "the empire of", "the league of", ""];

impl World {
    /// A world with the schema of the real one in which every name and number is drawn at random.
    ///
    /// All entities are in the training split. Names are distinct, borders are mutual, and values of
    /// small vocabularies (climates, crops, governments) come from the world the names were learned from.
    pub fn invented(seed: u64, countries: usize, elements: usize, names: &NameSource) -> World {
        let rng = &mut draw::stream(seed, "invented", "world");
        let mut inventor = Inventor { names, used: BTreeSet::new() };
        let mut entities: Vec<Entity> = (0..countries).map(|_| inventor.country(rng)).collect();
        lay_borders(&mut entities, rng);
        let mut numbers: Vec<usize> = (1..=elements.max(1) * 2).collect();
        numbers.shuffle(rng);
        entities.extend(numbers.into_iter().take(elements).map(|number| inventor.element(number, rng)));
        let mut world = World { entities };
        world.derive_borders();
        world
    }

    /// The same entities with every fact dealt to another of them, so that names are real and nothing else is.
    ///
    /// The map is relabelled: who borders whom changes, borders stay mutual. Meant for a training
    /// part: `World::real()?.restricted(Split::Train).shuffled(seed)`.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> World {
        let mut world = self.clone();
        for kind in [Kind::Country, Kind::Element] {
            let members: Vec<usize> = (0..world.entities.len()).filter(|&i| world.entities[i].kind == kind).collect();
            let fields: BTreeSet<Field> =
                members.iter().flat_map(|&i| world.entities[i].facts.keys().copied()).collect();
            // The full name holds the name itself, so it stays.
            for field in fields.into_iter().filter(|field| !field.is_derived() && *field != Field::LongName) {
                let holders: Vec<usize> =
                    members.iter().copied().filter(|&i| self.entities[i].facts.contains_key(&field)).collect();
                let mut dealt: Vec<Fact> = holders.iter().map(|&i| self.entities[i].facts[&field].clone()).collect();
                dealt.shuffle(&mut draw::stream(seed, "shuffled", &format!("{kind:?}{field:?}")));
                for (holder, fact) in holders.into_iter().zip(dealt) {
                    world.entities[holder].facts.insert(field, fact);
                }
            }
            let mut places = members.clone();
            places.shuffle(&mut draw::stream(seed, "shuffled", "map"));
            let moved: BTreeMap<&str, &str> = members
                .iter()
                .zip(&places)
                .map(|(&from, &to)| (self.entities[from].name.as_str(), self.entities[to].name.as_str()))
                .collect();
            for (&from, &to) in members.iter().zip(&places) {
                world.entities[to].neighbours = self.entities[from]
                    .neighbours
                    .iter()
                    .filter_map(|(name, km)| moved.get(name.as_str()).map(|moved| ((*moved).to_owned(), *km)))
                    .collect();
            }
        }
        // The years of independence follow their dates.
        for entity in &mut world.entities {
            if let Some(year) =
                entity.value(Field::IndependenceDate).and_then(|date| date.rsplit(' ').next()).map(Fact::plain)
            {
                entity.facts.insert(Field::IndependenceYear, year);
            }
        }
        world.derive_borders();
        world
    }
}

struct Inventor<'a> {
    names: &'a NameSource,
    used: BTreeSet<String>,
}

impl Inventor<'_> {
    /// A name that this world has not used yet.
    fn name(&mut self, class: NameClass, rng: &mut ChaCha8Rng) -> String {
        loop {
            let name = self.names.draw(class, rng);
            if self.used.insert(words(&name)) {
                return name;
            }
        }
    }

    fn country(&mut self, rng: &mut ChaCha8Rng) -> Entity {
        let name = self.name(NameClass::Country, rng);
        let mut facts = BTreeMap::new();
        for (&(kind, field), pool) in &self.names.values {
            if kind != Kind::Country || field.is_derived() || rng.random_ratio(1, GAPS) {
                continue;
            }
            let fact = self.country_fact(field, &name, pool, rng);
            facts.insert(field, fact);
        }
        complete(&mut facts);
        let region = Some(draw::pick(&self.names.regions, rng)).filter(|region| !region.is_empty());
        Entity {
            name,
            kind: Kind::Country,
            aliases: Vec::new(),
            region,
            facts,
            neighbours: Vec::new(),
            split: Split::Train,
        }
    }

    fn country_fact(&mut self, field: Field, name: &str, pool: &[Fact], rng: &mut ChaCha8Rng) -> Fact {
        let plain = Fact::plain;
        match field {
            Field::Capital | Field::Port | Field::LargestCity => plain(self.name(NameClass::Town, rng)),
            Field::Peak => plain(self.name(NameClass::Peak, rng)),
            Field::Adjective => plain(self.names.draw(NameClass::Town, rng)),
            Field::Lowest if rng.random() => plain(format!(
                "{} {}",
                self.names.draw(NameClass::Town, rng),
                draw::pick(&["Sea", "River", "Lake", "Ocean"], rng)
            )),
            Field::Anthem => plain(self.name(NameClass::Title, rng)),
            Field::Composer => person(self.names.draw(NameClass::Person, rng)),
            Field::Symbol => plain(self.name(NameClass::Thing, rng)),
            Field::Tld => self.code(rng),
            Field::Height => metres(rng.random_range(20..9000)),
            Field::Depth => metres(rng.random_range(0..200)),
            Field::IndependenceDate => {
                let (day, month) = (rng.random_range(1..=28), MONTHS[rng.random_range(0..12)]);
                plain(format!("{day} {month} {}", rng.random_range(1500..2020)))
            }
            Field::IndependenceFrom => {
                let ruler = format!("{} {}", draw::pick(RULERS, rng), self.names.draw(NameClass::Country, rng));
                if rng.random_ratio(1, 3) { one_of(pool, rng) } else { plain(ruler.trim().to_owned()) }
            }
            Field::LongName => {
                let form = [
                    "Republic of",
                    "Kingdom of",
                    "State of",
                    "Federal Republic of",
                    "Principality of",
                    "Union of",
                    "Democratic Republic of",
                ];
                plain(format!("{} {name}", draw::pick(&form, rng)))
            }
            Field::FormerName | Field::LocalName | Field::Customer | Field::Supplier => {
                plain(self.names.draw(NameClass::Country, rng))
            }
            Field::Inhabitants => plain(format!("{}s", self.names.draw(NameClass::Town, rng))),
            Field::Language => plain(self.names.draw(NameClass::Town, rng)),
            Field::Currency if rng.random() => plain(format!(
                "{} {}",
                self.names.draw(NameClass::Town, rng),
                draw::pick(&["dollar", "franc", "pound", "peso", "dinar", "crown", "rupee"], rng)
            )),
            Field::Currency => plain(self.names.draw(NameClass::Element, rng)),
            Field::Area => plain(format!("{} sq km", large(10, 7, rng))),
            Field::Population | Field::Airports => plain(large(2, if field == Field::Airports { 3 } else { 8 }, rng)),
            Field::Coastline | Field::Roads | Field::Railways => plain(format!("{} km", large(10, 5, rng))),
            Field::LifeExpectancy => plain(format!("{}.{} years", rng.random_range(45..90), rng.random_range(1..100))),
            Field::MedianAge => plain(format!("{}.{} years", rng.random_range(15..50), rng.random_range(1..10))),
            Field::CallingCode => plain(format!("+{}", rng.random_range(20..1000))),
            Field::TimeZone => plain(format!("UTC{:+}", rng.random_range(-11..=12))),
            Field::Holiday => plain(format!(
                "{} Day on {} {}",
                self.names.draw(NameClass::Town, rng),
                rng.random_range(1..=28),
                MONTHS[rng.random_range(0..12)]
            )),
            _ => one_of(pool, rng),
        }
    }

    /// An Internet code. Two letters make 676; a larger world takes longer ones.
    fn code(&mut self, rng: &mut ChaCha8Rng) -> Fact {
        let mut attempt = 0;
        loop {
            let code: String = (0..2 + attempt / 2000).map(|_| char::from(b'a' + rng.random_range(0..26u8))).collect();
            if self.used.insert(format!(".{code}")) {
                return Fact::plain(format!(".{code}"));
            }
            attempt += 1;
        }
    }

    fn element(&mut self, number: usize, rng: &mut ChaCha8Rng) -> Entity {
        let name = self.name(NameClass::Element, rng);
        let mut facts = BTreeMap::from([
            (Field::Number, Fact::plain(number.to_string())),
            (
                Field::Weight,
                Fact::plain(format!("{}.{}", number * 2 + rng.random_range(0..20), rng.random_range(1..1000))),
            ),
        ]);
        for _ in 0..1000 {
            let first = char::from(b'A' + rng.random_range(0..26u8));
            let rest: String =
                (0..rng.random_range(1..=2)).map(|_| char::from(b'a' + rng.random_range(0..26u8))).collect();
            if self.used.insert(format!("symbol {}", format!("{first}{rest}").to_lowercase())) {
                facts.insert(Field::Symbol, Fact::plain(format!("{first}{rest}")));
                break;
            }
        }
        if !rng.random_ratio(1, 4) {
            facts.insert(Field::Year, Fact::plain(rng.random_range(1600..2020).to_string()));
            if !rng.random_ratio(1, 5) {
                facts.insert(Field::Discoverer, person(self.names.draw(NameClass::Person, rng)));
            }
        }
        for field in [Field::Family, Field::Look] {
            if let Some(pool) = self.names.values.get(&(Kind::Element, field))
                && rng.random()
            {
                facts.insert(field, one_of(pool, rng));
            }
        }
        Entity {
            name,
            kind: Kind::Element,
            aliases: Vec::new(),
            region: None,
            facts,
            neighbours: Vec::new(),
            split: Split::Train,
        }
    }
}

/// Facts that belong together are both there or both absent.
fn complete(facts: &mut BTreeMap<Field, Fact>) {
    for (first, second) in
        [(Field::Peak, Field::Height), (Field::Lowest, Field::Depth), (Field::Anthem, Field::Composer)]
    {
        if !facts.contains_key(&first) {
            facts.remove(&second);
        }
    }
    if !facts.contains_key(&Field::Height) {
        facts.remove(&Field::Peak);
    }
    facts.remove(&Field::IndependenceYear);
    match facts.get(&Field::IndependenceDate).and_then(|date| date.value.rsplit(' ').next()).map(Fact::plain) {
        Some(year) => {
            facts.insert(Field::IndependenceYear, year);
        }
        None => {
            facts.remove(&Field::IndependenceFrom);
        }
    }
}

/// Scatters the countries over a plane and lets the near ones touch.
fn lay_borders(countries: &mut [Entity], rng: &mut ChaCha8Rng) {
    let places: Vec<(f64, f64)> = countries.iter().map(|_| (rng.random(), rng.random())).collect();
    let island: Vec<bool> = countries.iter().map(|_| rng.random_ratio(ISLANDS, 100)).collect();
    let mut borders: BTreeSet<(usize, usize)> = BTreeSet::new();
    for here in 0..countries.len() {
        if island[here] {
            continue;
        }
        let distance =
            |there: &usize| (places[here].0 - places[*there].0).powi(2) + (places[here].1 - places[*there].1).powi(2);
        let mut near: Vec<usize> = (0..countries.len()).filter(|&there| there != here && !island[there]).collect();
        near.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        let wanted = rng.random_range(1..=3);
        borders.extend(near.into_iter().take(wanted).map(|there| (here.min(there), here.max(there))));
    }
    for (a, b) in borders {
        let km = f64::from(rng.random_range(3..4000u32));
        let (first, second) = (countries[a].name.clone(), countries[b].name.clone());
        countries[a].neighbours.push((second, km));
        countries[b].neighbours.push((first, km));
    }
}

fn person(name: String) -> Fact {
    let last = name.rsplit(' ').next().unwrap_or_default().to_owned();
    Fact { aliases: if last == name { Vec::new() } else { vec![last] }, value: name }
}

fn metres(height: u32) -> Fact {
    let value = grouped(f64::from(height));
    let plain = height.to_string();
    let mut aliases = vec![format!("{value} m")];
    if plain != value {
        aliases.insert(0, plain);
    }
    Fact { value, aliases }
}

/// A number with any count of digits up to the limit, each count as likely as another.
fn large(least: u64, digits: u32, rng: &mut ChaCha8Rng) -> String {
    let limit = 10u64.pow(rng.random_range(2..=digits.max(2)));
    grouped(rng.random_range(least..limit) as f64)
}

/// One of the real values.
fn one_of(pool: &[Fact], rng: &mut ChaCha8Rng) -> Fact {
    pool.get(rng.random_range(0..pool.len().max(1))).cloned().unwrap_or_else(|| Fact::plain(""))
}
