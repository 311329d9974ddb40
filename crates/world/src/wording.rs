//! How questions, sub-questions and search queries are worded.
//!
//! A question of several hops is a question about an entity whose name is replaced by a description
//! ("the country whose capital is Tirana"), which may hold a description itself.

use crate::{Field, Kind};

/// A relation from an entity to a value: what it is called in kinds, and how it is asked for.
pub(crate) struct Target {
    pub(crate) field: Field,
    pub(crate) kind: Kind,
    /// The name in a question's kind.
    pub(crate) key: &'static str,
    /// Questions; `{e}` is the entity or a description of it.
    pub(crate) questions: &'static [&'static str],
    /// The search; `{e}` is the entity.
    pub(crate) query: &'static str,
}

/// A relation from a value back to the one entity that has it.
pub(crate) struct Bridge {
    pub(crate) field: Field,
    pub(crate) kind: Kind,
    pub(crate) key: &'static str,
    /// The name of the question that asks for the entity itself.
    pub(crate) reverse: &'static str,
    /// Questions for the entity; `{v}` is the value.
    pub(crate) questions: &'static [&'static str],
    /// Descriptions of the entity.
    pub(crate) descriptions: &'static [&'static str],
    /// The search.
    pub(crate) query: &'static str,
}

/// A relation from a country to another one.
pub(crate) struct Neighbour {
    pub(crate) field: Field,
    pub(crate) key: &'static str,
    pub(crate) questions: &'static [&'static str],
    pub(crate) descriptions: &'static [&'static str],
    pub(crate) query: &'static str,
}

pub(crate) const TARGETS: &[Target] = &[
    Target {
        field: Field::Capital,
        kind: Kind::Country,
        key: "capital",
        questions: &["What is the capital of {e}?", "Which city is the capital of {e}?", "Name the capital of {e}."],
        query: "capital of {e}",
    },
    Target {
        field: Field::Tld,
        kind: Kind::Country,
        key: "tld",
        questions: &["What is the Internet country code of {e}?", "Which Internet country code belongs to {e}?"],
        query: "Internet country code of {e}",
    },
    Target {
        field: Field::Peak,
        kind: Kind::Country,
        key: "peak",
        questions: &[
            "What is the highest point in {e}?",
            "What is the highest point of {e}?",
            "Name the highest point of {e}.",
        ],
        query: "highest point of {e}",
    },
    Target {
        field: Field::Height,
        kind: Kind::Country,
        key: "peak_height",
        questions: &[
            "How many metres high is the highest point of {e}?",
            "What is the height in metres of the highest point of {e}?",
        ],
        query: "highest point of {e} metres",
    },
    Target {
        field: Field::IndependenceDate,
        kind: Kind::Country,
        key: "independence_date",
        questions: &["On what date did {e} become independent?", "On which day did {e} become independent?"],
        query: "{e} became independent on",
    },
    Target {
        field: Field::IndependenceYear,
        kind: Kind::Country,
        key: "independence",
        questions: &["In what year did {e} become independent?", "In which year did {e} become independent?"],
        query: "{e} became independent on",
    },
    Target {
        field: Field::IndependenceFrom,
        kind: Kind::Country,
        key: "independence_from",
        questions: &[
            "From which country did {e} gain its independence?",
            "From which country did {e} become independent?",
        ],
        query: "{e} became independent from",
    },
    Target {
        field: Field::Anthem,
        kind: Kind::Country,
        key: "anthem",
        questions: &["What is the national anthem of {e}?", "What is the title of the national anthem of {e}?"],
        query: "national anthem of {e}",
    },
    Target {
        field: Field::Composer,
        kind: Kind::Country,
        key: "composer",
        questions: &["Who composed the national anthem of {e}?", "Who is the composer of the national anthem of {e}?"],
        query: "national anthem of {e} composed by",
    },
    Target {
        field: Field::Symbol,
        kind: Kind::Country,
        key: "symbol",
        questions: &["What is the national symbol of {e}?", "Name the national symbol of {e}."],
        query: "national symbol of {e}",
    },
    Target {
        field: Field::Currency,
        kind: Kind::Country,
        key: "currency",
        questions: &["What is the currency of {e}?", "Which currency is used in {e}?"],
        query: "currency of {e}",
    },
    Target {
        field: Field::Symbol,
        kind: Kind::Element,
        key: "symbol",
        questions: &["What is the chemical symbol of {e}?", "Which chemical symbol does {e} have?"],
        query: "chemical symbol of {e}",
    },
    Target {
        field: Field::Number,
        kind: Kind::Element,
        key: "number",
        questions: &["What is the atomic number of {e}?", "Which atomic number does {e} have?"],
        query: "atomic number of {e}",
    },
    Target {
        field: Field::Year,
        kind: Kind::Element,
        key: "year",
        questions: &["In what year was {e} discovered?", "In which year was {e} discovered?"],
        query: "{e} was discovered in",
    },
    Target {
        field: Field::Discoverer,
        kind: Kind::Element,
        key: "discoverer",
        questions: &["Who discovered {e}?", "By whom was {e} discovered?"],
        query: "{e} discovered by",
    },
];

pub(crate) const BRIDGES: &[Bridge] = &[
    Bridge {
        field: Field::Capital,
        kind: Kind::Country,
        key: "capital",
        reverse: "capital_of",
        questions: &[
            "Which country's capital is {v}?",
            "Which country has the capital {v}?",
            "{v} is the capital of which country?",
        ],
        descriptions: &["the country whose capital is {v}", "the country with the capital {v}"],
        query: "country with the capital {v}",
    },
    Bridge {
        field: Field::Tld,
        kind: Kind::Country,
        key: "tld",
        reverse: "tld_of",
        questions: &[
            "Which country has the Internet country code {v}?",
            "Which country's Internet country code is {v}?",
        ],
        descriptions: &[
            "the country whose Internet country code is {v}",
            "the country with the Internet country code {v}",
        ],
        query: "country with the Internet country code {v}",
    },
    Bridge {
        field: Field::Peak,
        kind: Kind::Country,
        key: "peak",
        reverse: "peak_of",
        questions: &["Which country's highest point is {v}?", "Which country has {v} as its highest point?"],
        descriptions: &["the country whose highest point is {v}", "the country that has {v} as its highest point"],
        query: "country with the highest point {v}",
    },
    Bridge {
        field: Field::Anthem,
        kind: Kind::Country,
        key: "anthem",
        reverse: "anthem_of",
        questions: &["Which country's national anthem is {v}?", "Which country has the national anthem {v}?"],
        descriptions: &["the country whose national anthem is {v}", "the country with the national anthem {v}"],
        query: "country with the national anthem {v}",
    },
    Bridge {
        field: Field::Number,
        kind: Kind::Element,
        key: "number",
        reverse: "number_of",
        questions: &["Which chemical element has atomic number {v}?", "Which element's atomic number is {v}?"],
        descriptions: &["the element with atomic number {v}", "the chemical element whose atomic number is {v}"],
        query: "element with the atomic number {v}",
    },
    Bridge {
        field: Field::Symbol,
        kind: Kind::Element,
        key: "symbol",
        reverse: "symbol_of",
        questions: &["Which chemical element has the symbol {v}?", "Which element's chemical symbol is {v}?"],
        descriptions: &["the chemical element with the symbol {v}", "the element whose chemical symbol is {v}"],
        query: "element with the chemical symbol {v}",
    },
];

pub(crate) const NEIGHBOURS: &[Neighbour] = &[
    Neighbour {
        field: Field::OnlyBorder,
        key: "border",
        questions: &[
            "Which country is the only one to share a land border with {e}?",
            "Which country is the only one that borders {e}?",
        ],
        descriptions: &["the only country that borders {e}", "the only country to share a land border with {e}"],
        query: "only country to share a land border with {e}",
    },
    Neighbour {
        field: Field::LongestBorder,
        key: "longest_border",
        questions: &[
            "With which country does {e} share its longest land border?",
            "Which country shares the longest land border with {e}?",
        ],
        descriptions: &[
            "the country with which {e} shares its longest land border",
            "the country that shares the longest land border with {e}",
        ],
        query: "longest land border of {e}",
    },
];

/// Questions of two hops: from what is given, to what is asked.
pub(crate) const TWO_HOPS: &[(&str, &[&str])] = &[
    ("capital", &["peak", "peak_height", "independence", "anthem", "symbol", "tld"]),
    ("tld", &["capital", "peak", "peak_height", "independence", "anthem", "symbol"]),
    ("peak", &["capital", "independence", "symbol"]),
    ("anthem", &["capital", "peak"]),
    ("number", &["year", "discoverer"]),
    ("symbol", &["number", "year", "discoverer"]),
];

/// Attributes asked of a neighbour, and the descriptions of a country that precede them in questions of three hops.
pub(crate) const OVER_BORDERS: &[(&str, &[&str])] = &[
    ("capital", &["capital", "tld", "peak"]),
    ("peak", &["capital", "tld"]),
    ("peak_height", &[]),
    ("independence", &["capital"]),
    ("anthem", &[]),
];
