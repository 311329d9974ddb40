//! The fields a fact can stand in.

use serde::{Deserialize, Serialize};

/// The attribute of an entity that a fact states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it; units stand in the values")]
pub enum Field {
    Capital,
    Tld,
    Peak,
    Height,
    IndependenceDate,
    IndependenceYear,
    IndependenceFrom,
    Anthem,
    Composer,
    Symbol,
    /// The neighbour with the longest border, of two or more. Derived from the neighbours.
    LongestBorder,
    /// The only neighbour. Derived.
    OnlyBorder,
    /// The length of the longest or only border in kilometres. Derived.
    BorderLength,
    /// Some neighbours other than the one with the longest border. Derived.
    OtherNeighbours,
    Lowest,
    Depth,
    LongName,
    FormerName,
    LocalName,
    Inhabitants,
    Adjective,
    Area,
    Population,
    Coastline,
    Roads,
    Railways,
    Airports,
    LifeExpectancy,
    MedianAge,
    Language,
    Religion,
    Currency,
    Climate,
    Resources,
    Exports,
    Crops,
    Industries,
    Hazards,
    Port,
    LargestCity,
    TimeZone,
    Government,
    CallingCode,
    Customer,
    Supplier,
    Colours,
    Holiday,
    Number,
    Weight,
    Year,
    Discoverer,
    Family,
    Look,
}

impl Field {
    /// The name as it stands in the facts file and in phrases.
    pub(crate) fn from_key(key: &str) -> Option<Field> {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, StrDeserializer};
        let key: StrDeserializer<'_, Error> = key.into_deserializer();
        Field::deserialize(key).ok()
    }

    /// Whether the value is a name that can want an article: a country, a sea or a river.
    pub(crate) fn takes_article(self) -> bool {
        use Field::{Customer, IndependenceFrom, LongestBorder, Lowest, OnlyBorder, Supplier};
        matches!(self, LongestBorder | OnlyBorder | IndependenceFrom | Customer | Supplier | Lowest)
    }

    /// Fields that follow from the neighbours rather than standing in the file.
    pub(crate) fn is_derived(self) -> bool {
        matches!(self, Field::LongestBorder | Field::OnlyBorder | Field::BorderLength | Field::OtherNeighbours)
    }
}
