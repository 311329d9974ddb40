//! Made-up names, as varied as real ones.
//!
//! A small model that learns to copy from names with few building blocks copies nothing else. So
//! the names mix several sources: character chains learned from real names, recombined halves of
//! real names, ordinary words of the corpus, and letter strings from nowhere, in one to three words,
//! with hyphens, apostrophes and letters from beyond ASCII.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::split::words;
use crate::{Fact, Field, Kind, World, draw};

/// The kind of thing that a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameClass {
    /// A country.
    Country,
    /// A town.
    Town,
    /// A mountain.
    Peak,
    /// The title of a song.
    Title,
    /// A person.
    Person,
    /// A plant, an animal or a thing, as a national symbol.
    Thing,
    /// A chemical element, in small letters.
    Element,
}

/// Draws names in the manner of the names of a world.
#[derive(Clone, Debug)]
pub struct NameSource {
    words: BTreeMap<NameClass, Vec<String>>,
    chains: BTreeMap<NameClass, Chain>,
    all: Chain,
    vocabulary: Vec<String>,
    forbidden: BTreeSet<String>,
    pub(crate) values: BTreeMap<(Kind, Field), Vec<Fact>>,
    pub(crate) regions: Vec<String>,
}

impl NameSource {
    /// Learns from the names of one world; never draws a name of the other.
    ///
    /// Learn from the training part only, and forbid the whole real world:
    /// `NameSource::learn(&real.restricted(Split::Train), &real)`.
    pub fn learn(from: &World, forbidden: &World) -> Self {
        let mut names: BTreeMap<NameClass, Vec<String>> = BTreeMap::new();
        let mut vocabulary = BTreeSet::new();
        let mut values: BTreeMap<(Kind, Field), Vec<Fact>> = BTreeMap::new();
        let mut regions = BTreeSet::new();
        for entity in &from.entities {
            let own = if entity.kind == Kind::Country { NameClass::Country } else { NameClass::Element };
            names.entry(own).or_default().push(entity.name.clone());
            regions.extend(entity.region.clone());
            for (&field, fact) in &entity.facts {
                if let Some(class) = class_of(field, entity.kind) {
                    names.entry(class).or_default().push(fact.value.clone());
                }
                values.entry((entity.kind, field)).or_default().push(fact.clone());
                let plain = fact.value.split(|c: char| !c.is_alphabetic()).filter(|word| word.chars().count() > 2);
                vocabulary.extend(plain.map(str::to_lowercase));
            }
        }
        let pieces: BTreeMap<NameClass, Vec<String>> =
            names.into_iter().map(|(class, names)| (class, name_words(&names))).collect();
        let everything: Vec<String> = pieces.values().flatten().cloned().collect();
        let shunned = forbidden.entities.iter().flat_map(|entity| {
            entity.names().map(words).chain(entity.facts.values().map(|fact| words(&fact.value))).collect::<Vec<_>>()
        });
        NameSource {
            chains: pieces.iter().map(|(class, pieces)| (*class, Chain::learn(pieces))).collect(),
            all: Chain::learn(&everything),
            words: pieces,
            vocabulary: vocabulary.into_iter().collect(),
            forbidden: shunned.collect(),
            values,
            regions: regions.into_iter().collect(),
        }
    }

    /// A name of that class that no real entity bears.
    pub fn draw(&self, class: NameClass, rng: &mut ChaCha8Rng) -> String {
        // Each attempt is fresh; a real name comes up rarely, so the bound is never met in practice.
        for _ in 0..100 {
            let name = self.shape(class, rng);
            if !self.forbidden.contains(&words(&name)) && !words(&name).is_empty() {
                return name;
            }
        }
        letters(rng) + &letters(rng)
    }

    fn shape(&self, class: NameClass, rng: &mut ChaCha8Rng) -> String {
        let form = rng.random_range(0..100);
        let word = |rng: &mut ChaCha8Rng| self.word(class, rng);
        match class {
            NameClass::Country => match form {
                0..70 => word(rng),
                70..78 => format!(
                    "{} {}",
                    word(rng),
                    draw::pick(&["Islands", "Island", "Republic", "Coast", "Territory", "Federation"], rng)
                ),
                78..88 => format!(
                    "{} {}",
                    draw::pick(&["New", "South", "North", "Saint", "East", "Upper", "Grand", "Port"], rng),
                    word(rng)
                ),
                88..94 => format!("{} and {}", word(rng), word(rng)),
                _ => format!("{} {}", word(rng), word(rng)),
            },
            NameClass::Town => match form {
                0..68 => word(rng),
                68..82 => {
                    let first = [
                        "San", "Santa", "Port", "Saint", "El", "Al", "Fort", "New", "La", "Le", "Ciudad", "Nova",
                        "Bad", "Puerto",
                    ];
                    format!("{} {}", draw::pick(&first, rng), word(rng))
                }
                82..88 => format!("{}-{}", word(rng), word(rng)),
                88..95 => {
                    format!("{} {}", word(rng), draw::pick(&["City", "Town", "Harbour", "Bay", "Ville", "Hills"], rng))
                }
                _ => format!("{} {}", word(rng), word(rng)),
            },
            NameClass::Peak => match form {
                0..22 => word(rng),
                22..66 => {
                    let first = [
                        "Mount",
                        "Mont",
                        "Monte",
                        "Cerro",
                        "Pico de",
                        "Gunung",
                        "Jabal",
                        "Gora",
                        "Volcan",
                        "Pico",
                        "Nevado",
                        "Doi",
                        "Puncak",
                        "Piz",
                        "Morne",
                        "Cerro de",
                        "Jebel",
                        "Qolleh-ye",
                        "Punta",
                        "Kuh-e",
                        "Ras",
                        "Puy de",
                        "Emi",
                    ];
                    format!("{} {}", draw::pick(&first, rng), word(rng))
                }
                66..82 => format!(
                    "{} {}",
                    word(rng),
                    draw::pick(
                        &["Peak", "Hill", "Mountain", "Dagi", "Berg", "Top", "Tepe", "Horn", "Ridge", "Point"],
                        rng
                    )
                ),
                82..92 => format!("{} {}", word(rng), word(rng)),
                _ => format!("{}-{}", word(rng), word(rng).to_lowercase()),
            },
            NameClass::Title => {
                let count = rng.random_range(1..=4);
                let mut title: Vec<String> = Vec::new();
                if form < 45 {
                    let first = [
                        "Himno",
                        "Song of",
                        "Hymn of",
                        "O",
                        "La",
                        "Our",
                        "Long Live",
                        "Le",
                        "God Bless",
                        "Land of",
                        "Onward",
                        "March of",
                        "Hail",
                        "Das",
                        "Il",
                    ];
                    title.push(draw::pick(&first, rng).to_owned());
                }
                for _ in 0..count {
                    let next = word(rng);
                    title.push(if rng.random_ratio(1, 5) { next.to_lowercase() } else { next });
                }
                title.join(" ")
            }
            NameClass::Person => match form {
                0..70 => format!("{} {}", word(rng), word(rng)),
                70..80 => format!("{} {}. {}", word(rng), initial(rng), word(rng)),
                80..90 => format!("{}. {}", initial(rng), word(rng)),
                90..95 => format!(
                    "{} {} {}",
                    word(rng),
                    draw::pick(&["de", "von", "van", "al", "bin", "da", "Le", "del"], rng),
                    word(rng)
                ),
                _ => format!("{} {} {}", word(rng), word(rng), word(rng)),
            },
            NameClass::Thing => match form {
                0..25 => self.word(class, rng).to_lowercase(),
                25..65 => format!("{} {}", word(rng), word(rng)).to_lowercase(),
                65..80 => format!(
                    "{} {}",
                    draw::pick(&["golden", "white", "red", "black", "royal", "double-headed", "blue", "winged"], rng),
                    word(rng).to_lowercase()
                ),
                80..92 => format!(
                    "{} {}",
                    word(rng),
                    draw::pick(&["eagle", "flower", "palm", "lion", "orchid", "tree", "parrot", "star", "rose"], rng)
                ),
                _ => format!("{} and {}", word(rng), word(rng)).to_lowercase(),
            },
            NameClass::Element => match form {
                0..55 => {
                    format!("{}{}", stem(&word(rng)), draw::pick(&["ium", "um", "on", "ine", "ogen", "orus"], rng))
                        .to_lowercase()
                }
                _ => word(rng).to_lowercase(),
            },
        }
    }

    /// One word with a capital letter.
    fn word(&self, class: NameClass, rng: &mut ChaCha8Rng) -> String {
        let own = self.words.get(&class).map_or(&[][..], Vec::as_slice);
        let raw = match rng.random_range(0..100) {
            0..30 => self.chains.get(&class).unwrap_or(&self.all).draw(rng),
            30..42 => self.all.draw(rng),
            42..60 => {
                let (a, b) = (draw::pick(own, rng), draw::pick(own, rng));
                halves(&a, &b, rng)
            }
            60..74 => draw::pick(&self.vocabulary, rng),
            74..84 => {
                let (a, b) = (draw::pick(&self.vocabulary, rng), draw::pick(own, rng));
                halves(&a, &b, rng)
            }
            84..93 => syllables(rng),
            _ => letters(rng),
        };
        let mut name: String = raw.chars().filter(|c| c.is_alphabetic() || "'-".contains(*c)).take(14).collect();
        if name.chars().filter(|c| c.is_alphabetic()).count() < 3 {
            name.push_str(&syllables(rng));
        }
        if rng.random_ratio(1, 16) {
            name = accented(&name, rng);
        }
        if rng.random_ratio(1, 30) {
            let at = name.char_indices().nth(2).map_or(0, |(at, _)| at);
            name.insert(at, '\'');
        }
        capitalised(name.trim_matches(|c: char| !c.is_alphabetic()))
    }
}

fn class_of(field: Field, kind: Kind) -> Option<NameClass> {
    Some(match (field, kind) {
        (Field::Capital | Field::Port | Field::LargestCity, _) => NameClass::Town,
        (Field::Peak, _) => NameClass::Peak,
        (Field::Anthem, _) => NameClass::Title,
        (Field::Composer | Field::Discoverer, _) => NameClass::Person,
        (Field::Symbol, Kind::Country) => NameClass::Thing,
        _ => return None,
    })
}

fn name_words(names: &[String]) -> Vec<String> {
    let split = names.iter().flat_map(|name| name.split([' ', '/', ',', '.', '"']));
    let long: BTreeSet<String> = split.filter(|word| word.chars().count() > 2).map(str::to_lowercase).collect();
    long.into_iter().collect()
}

/// A character chain that looks back two or three letters.
#[derive(Clone, Debug, Default)]
struct Chain {
    next: BTreeMap<String, Vec<char>>,
}

const START: char = '^';
const END: char = '$';

impl Chain {
    fn learn(words: &[String]) -> Self {
        let mut next: BTreeMap<String, Vec<char>> = BTreeMap::new();
        for word in words {
            let letters: Vec<char> = [START; 3].into_iter().chain(word.chars()).chain([END]).collect();
            for at in 3..letters.len() {
                for back in 2..=3 {
                    next.entry(letters[at - back..at].iter().collect()).or_default().push(letters[at]);
                }
            }
        }
        Chain { next }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> String {
        let mut letters = vec![START; 3];
        let back = rng.random_range(2..=3);
        while letters.len() < 15 {
            let before: String = letters[letters.len() - back..].iter().collect();
            match self.next.get(&before).map(|next| draw::pick(next, rng)) {
                Some(END) | None => break,
                Some(letter) => letters.push(letter),
            }
        }
        letters[3..].iter().collect()
    }
}

/// The front of one word and the back of another.
fn halves(a: &str, b: &str, rng: &mut ChaCha8Rng) -> String {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let front = rng.random_range(1..=a.len().max(2) - 1).min(a.len());
    let back = rng.random_range(1..=b.len().max(2) - 1).min(b.len());
    a[..front].iter().chain(&b[b.len() - back..]).collect()
}

fn stem(word: &str) -> &str {
    word.trim_end_matches(|c: char| "aeiou".contains(c))
}

fn syllables(rng: &mut ChaCha8Rng) -> String {
    const ONSETS: &[&str] = &[
        "b", "br", "c", "ch", "d", "dr", "f", "g", "gh", "gw", "h", "j", "k", "kh", "kl", "l", "ll", "m", "mb", "n",
        "nd", "ng", "ny", "p", "ph", "qu", "r", "s", "sh", "sk", "st", "t", "th", "tl", "ts", "v", "vl", "w", "x", "y",
        "z", "zh", "",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "aa", "ai", "au", "ea", "ei", "ia", "io", "oo", "ou", "ue", "y"];
    const CODAS: &[&str] = &[
        "", "", "", "n", "r", "l", "s", "k", "m", "t", "x", "nd", "rk", "sh", "lm", "ng", "z", "q", "v", "b", "p", "g",
        "f", "w", "j",
    ];
    (0..rng.random_range(2..=3))
        .map(|_| [draw::pick(ONSETS, rng), draw::pick(VOWELS, rng), draw::pick(CODAS, rng)].concat())
        .collect()
}

/// Letters in any order, hard to say: they teach copying letter by letter.
fn letters(rng: &mut ChaCha8Rng) -> String {
    (0..rng.random_range(4..=9)).map(|_| char::from(b'a' + rng.random_range(0..26u8))).collect()
}

fn initial(rng: &mut ChaCha8Rng) -> char {
    char::from(b'A' + rng.random_range(0..26u8))
}

fn accented(name: &str, rng: &mut ChaCha8Rng) -> String {
    const ACCENTS: &[(char, &str)] = &[
        ('a', "áàâãäåā"),
        ('e', "éèêëę"),
        ('i', "íìîï"),
        ('o', "óòôõöøō"),
        ('u', "úùûü"),
        ('n', "ñń"),
        ('c', "çč"),
        ('s', "šş"),
        ('z', "žż"),
        ('l', "ł"),
    ];
    name.chars()
        .map(|letter| match ACCENTS.iter().find(|(plain, _)| *plain == letter) {
            Some((_, marked)) if rng.random_ratio(1, 2) => {
                let marked: Vec<char> = marked.chars().collect();
                draw::pick(&marked, rng)
            }
            _ => letter,
        })
        .collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
