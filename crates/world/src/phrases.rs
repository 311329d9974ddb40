//! The sentences that state a fact in a passage, several for each.
//!
//! `{e}` is the entity, `{p}` its possessive, any other `{field}` the value of that field. A phrase
//! whose fields an entity lacks is not used for it. Values stand close to the name they belong to,
//! so that a small model can learn to read them.

use std::borrow::Cow;

use crate::{Entity, Field, Kind};

/// A topic of passages: a passage holds one, never two, so that a question that needs two takes two searches.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) phrases: &'static [&'static str],
}

const fn topic(name: &'static str, phrases: &'static [&'static str]) -> Topic {
    Topic { name, phrases }
}

/// The topics of a kind of entity.
pub(crate) fn topics(kind: Kind) -> &'static [Topic] {
    match kind {
        Kind::Country => COUNTRY_TOPICS,
        Kind::Element => ELEMENT_TOPICS,
    }
}

/// Facts that no question of several hops rests on: a passage holds one or two of them beside its topic.
pub(crate) fn asides(kind: Kind) -> &'static [&'static [&'static str]] {
    match kind {
        Kind::Country => COUNTRY_ASIDES,
        Kind::Element => ELEMENT_ASIDES,
    }
}

/// Openings of sentences about a neighbour.
pub(crate) const ACROSS: &[&str] =
    &["Across the border, ", "Next door, ", "Over the frontier, ", "Among its neighbours, ", "Not far away, "];

const COUNTRY_TOPICS: &[Topic] = &[
    topic(
        "capital",
        &[
            "the capital of {e} is {capital}.",
            "{p} capital is {capital}.",
            "{capital} is the capital of {e}.",
            "the country of {e} has its capital at {capital}.",
            "{e} is the country whose capital is {capital}.",
            "the city of {capital} is the capital of {e}.",
            "in {e}, the capital is {capital}.",
        ],
    ),
    topic(
        "tld",
        &[
            "the Internet country code of {e} is {tld}.",
            "{p} Internet country code is {tld}.",
            "{tld} is the Internet country code of {e}.",
            "{e} is the country with the Internet country code {tld}.",
            "web addresses of {e} end in the Internet country code {tld}.",
            "on the web, {e} has the Internet country code {tld}.",
        ],
    ),
    topic(
        "peak",
        &[
            "the highest point of {e} is {peak}, at {height} metres.",
            "{p} highest point is {peak}, {height} metres high.",
            "{peak} is the highest point of {e}, at {height} metres.",
            "at {height} metres, {peak} is the highest point in {e}.",
            "the country of {e} has its highest point at {peak}, {height} metres above the sea.",
            "in {e}, the highest point is {peak}, which stands {height} metres high.",
        ],
    ),
    topic(
        "lowest",
        &[
            "the lowest place in {e} is {lowest}, at {depth} metres.",
            "{p} lowest place is {lowest}, at {depth} metres.",
            "at {depth} metres, {lowest} is the lowest place in {e}.",
        ],
    ),
    topic(
        "independence",
        &[
            "{e} became independent from {independence_from} on {independence_date}.",
            "on {independence_date}, {e} became independent from {independence_from}.",
            "it was on {independence_date} that {e} became independent from {independence_from}.",
            "{e} was ruled by {independence_from} and became independent on {independence_date}.",
            "{e} gained its independence from {independence_from} on {independence_date}.",
            "{e} became independent on {independence_date}.",
            "on {independence_date}, {e} became independent.",
            "it was on {independence_date} that {e} became independent.",
        ],
    ),
    topic(
        "anthem",
        &[
            "the national anthem of {e} is {anthem}, composed by {composer}.",
            "{p} national anthem is {anthem}, with music by the composer {composer}.",
            "{anthem} is the national anthem of {e}; {composer} composed it.",
            "the country of {e} has the national anthem {anthem}, composed by {composer}.",
            "the national anthem of {e} is {anthem}.",
            "{p} national anthem is called {anthem}.",
            "{anthem} is the national anthem of {e}.",
        ],
    ),
    topic(
        "symbol",
        &[
            "the national symbol of {e} is the {symbol}.",
            "{p} national symbol is the {symbol}.",
            "the {symbol} is the national symbol of {e}.",
            "as its national symbol, {e} has the {symbol}.",
            "{e} is a country whose national symbol is the {symbol}.",
        ],
    ),
    topic(
        "border",
        &[
            "{e} shares its longest land border with {longest_border}, over {border_length}.",
            "{p} longest land border is the one with {longest_border}, at {border_length}.",
            "the longest land border of {e} is with {longest_border}: {border_length}.",
            "at {border_length}, the land border with {longest_border} is the longest of {e}.",
            "for {e}, the longest land border is with {longest_border}, {border_length} long.",
            "{e} shares a land border with one country only, {only_border}, over {border_length}.",
            "the only country to share a land border with {e} is {only_border}.",
            "{p} only land border is with {only_border}, over {border_length}.",
            "{only_border} is the only country that borders {e} by land.",
        ],
    ),
];

const COUNTRY_ASIDES: &[&[&str]] = &[
    &[
        "{e} also has shorter frontiers with {other_neighbours}.",
        "among the other neighbours of {e} are {other_neighbours}.",
    ],
    &["{p} official name is {long_name}.", "in full, {e} is called {long_name}."],
    &["{e} was formerly known as {former_name}.", "an older name of {e} is {former_name}."],
    &["its own people call {e} {local_name}.", "locally, {e} goes by the name {local_name}."],
    &["the people of {e} are called {inhabitants}.", "those who live in {e} are known as {inhabitants}."],
    &["things from {e} are called {adjective}.", "what comes from {e} is said to be {adjective}."],
    &["{e} covers an area of {area}.", "the area of {e} is {area}.", "{p} surface measures {area}."],
    &[
        "about {population} people live in {e}.",
        "{e} has a population of {population}.",
        "the population of {e} is {population}.",
    ],
    &["the coastline of {e} is {coastline} long.", "{e} has {coastline} of coastline."],
    &["the roads of {e} add up to {roads}.", "{e} has {roads} of roads."],
    &["trains in {e} run on {railways} of track.", "{e} has {railways} of railways."],
    &["planes can land at {airports} airports in {e}.", "the number of airports in {e} is {airports}."],
    &["life expectancy in {e} is {life_expectancy}.", "people in {e} live for {life_expectancy} on average."],
    &["the median age in {e} is {median_age}.", "half of the people of {e} are younger than {median_age}."],
    &["people in {e} speak {language}.", "the main speech of {e} is {language}.", "in {e} one hears {language}."],
    &["most believers in {e} are {religion}.", "in {e}, most of the faithful are {religion}."],
    &[
        "the currency of {e} is the {currency}.",
        "{p} currency is the {currency}.",
        "people in {e} pay with the {currency}, its currency.",
    ],
    &["the climate of {e} is mainly {climate}.", "{e} has a climate that is mostly {climate}."],
    &[
        "natural resources of {e} include {resources}.",
        "{e} is endowed with {resources}.",
        "the ground of {e} yields {resources}.",
    ],
    &["{e} exports {exports}.", "exports of {e} include {exports}.", "goods that leave {e} include {exports}."],
    &["farmers in {e} grow {crops}.", "farm products of {e} include {crops}.", "the fields of {e} bear {crops}."],
    &["industries in {e} include {industries}.", "work in {e} is found in {industries}."],
    &["a natural danger in {e} is {hazards}.", "people in {e} have to reckon with {hazards}."],
    &["ships call at {port}, a port of {e}.", "a port of {e} is {port}."],
    &["the largest city of {e} is {largest_city}.", "{largest_city} is the most populous city of {e}."],
    &["clocks in {e} are set to {time_zone}.", "{e} lies in the time zone {time_zone}."],
    &["by its form of government, {e} is a {government}.", "the government of {e} is that of a {government}."],
    &["telephone numbers in {e} begin with {calling_code}.", "to call {e} one dials {calling_code}."],
    &["{e} sells most of its goods to {customer}.", "the main buyer of goods from {e} is {customer}."],
    &["{e} buys most of its imports from {supplier}.", "the main supplier of {e} is {supplier}."],
    &["the national colours of {e} are {colours}.", "{e} shows itself in {colours}."],
    &["people in {e} celebrate {holiday}.", "a holiday of {e} is {holiday}."],
    &["{e} lies in {region}.", "on the map, {e} belongs to {region}."],
];

const ELEMENT_TOPICS: &[Topic] = &[
    topic(
        "symbol",
        &[
            "the chemical symbol of {e} is {symbol}.",
            "{p} chemical symbol is {symbol}.",
            "{symbol} is the chemical symbol of the element {e}.",
            "the element {e} has the chemical symbol {symbol}.",
            "chemists write {symbol} as the symbol of the element {e}.",
        ],
    ),
    topic(
        "number",
        &[
            "the atomic number of {e} is {number}.",
            "{p} atomic number is {number}.",
            "{number} is the atomic number of the element {e}.",
            "the element {e} has the atomic number {number}.",
            "with the atomic number {number}, {e} has its place among the elements.",
        ],
    ),
    topic(
        "discovery",
        &[
            "{e} was discovered in {year} by {discoverer}.",
            "the discovery of {e} in {year} is credited to {discoverer}.",
            "in {year}, {discoverer} discovered {e}.",
            "the element {e} was discovered by {discoverer} in {year}.",
            "{discoverer} discovered the element {e} in {year}.",
            "{e} was discovered in {year}.",
            "the discovery of the element {e} dates from {year}.",
            "the year {year} saw the discovery of {e}.",
        ],
    ),
];

const ELEMENT_ASIDES: &[&[&str]] = &[
    &[
        "an atom of {e} weighs {weight} units.",
        "the weight given for {e} is {weight}.",
        "relative to others, {e} weighs {weight}.",
    ],
    &["{e} is counted as a {family}.", "by its nature, {e} is a {family}."],
    &["in pure form, {e} looks {look}.", "a sample of {e} is described as {look}."],
    &["matter can consist of {e} alone.", "{e} cannot be broken down any further by heat or acid."],
    &["tables for students list {e} among many others.", "every textbook of chemistry has an entry on {e}."],
    &["traces of {e} are found with a spectroscope.", "the light of glowing {e} shows lines of its own."],
    &["laboratories keep {e} in labelled jars.", "a supplier sells {e} to laboratories."],
];

/// The phrase for an entity, its first letter as the phrase has it; `None` if the entity lacks a value.
pub(crate) fn render(phrase: &str, entity: &Entity) -> Option<String> {
    let mut out = String::new();
    let mut rest = phrase;
    while let Some((before, after)) = rest.split_once('{') {
        let (key, after) = after.split_once('}')?;
        out.push_str(before);
        match key {
            "e" => out.push_str(&named(&entity.name)),
            "p" => {
                out.push_str(&named(&entity.name));
                out.push_str(if entity.name.ends_with('s') { "'" } else { "'s" });
            }
            "region" => out.push_str(entity.region.as_deref()?),
            _ => {
                let field = Field::from_key(key)?;
                let value = entity.value(field)?;
                out.push_str(&if field.takes_article() { named(value) } else { value.into() });
            }
        }
        rest = after;
    }
    out.push_str(rest);
    // A value may end in a stop of its own.
    Some(out.replace("..", "."))
}

/// The name as it stands in a sentence: `the Netherlands`, `the United States`, but `Chad`.
pub(crate) fn named(name: &str) -> Cow<'_, str> {
    const PLURALS: &[&str] = &[
        "Bahamas",
        "Comoros",
        "Gambia",
        "Maldives",
        "Netherlands",
        "Philippines",
        "Seychelles",
        "DR Congo",
        "Isle of Man",
        "West Bank",
    ];
    const FIRST: &[&str] = &["United", "Republic", "British", "Gulf", "Sea", "crown", "empire", "league"];
    const LAST: &[&str] = &[
        "Islands",
        "Republic",
        "Emirates",
        "Union",
        "Empire",
        "Federation",
        "Territory",
        "Strip",
        "Coast",
        "Sea",
        "Ocean",
        "River",
    ];
    let article = PLURALS.contains(&name)
        || name.split(' ').next().is_some_and(|word| FIRST.contains(&word))
        || name.contains(' ') && name.rsplit(' ').next().is_some_and(|word| LAST.contains(&word));
    if article { format!("the {name}").into() } else { name.into() }
}

/// The text with its first letter as a capital.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        // A code such as `.td` and a title in quotation marks stay as they are.
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World;

    #[test]
    fn every_placeholder_is_a_field() {
        for kind in [Kind::Country, Kind::Element] {
            let phrases =
                topics(kind).iter().flat_map(|t| t.phrases.iter()).chain(asides(kind).iter().copied().flatten());
            for phrase in phrases {
                for part in phrase.split('{').skip(1) {
                    let key = part.split('}').next().unwrap_or_default();
                    assert!(["e", "p", "region"].contains(&key) || Field::from_key(key).is_some(), "{phrase}");
                }
            }
        }
    }

    #[test]
    fn a_phrase_without_its_value_is_not_rendered() {
        let world = World::real().unwrap();
        let japan = world.entity("Japan").unwrap();
        assert_eq!(
            render("the capital of {e} is {capital}.", japan).as_deref(),
            Some("the capital of Japan is Tokyo.")
        );
        assert_eq!(render("{p} longest border is with {longest_border}.", japan), None);
    }

    #[test]
    fn sentences_begin_with_a_capital_letter() {
        assert_eq!(sentence("the end."), "The end.");
        assert_eq!(sentence(".td is a code."), ".td is a code.");
    }
}
