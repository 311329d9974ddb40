//! Facts that follow from who borders whom.

use std::collections::BTreeMap;

use crate::phrases::named;
use crate::{Fact, Field, Kind, World};

impl World {
    /// Rewrites the derived border facts of every country.
    ///
    /// If two borders tie for the longest, none is called so.
    pub(crate) fn derive_borders(&mut self) {
        let aliases: BTreeMap<String, Vec<String>> =
            self.entities.iter().map(|entity| (entity.name.clone(), entity.aliases.clone())).collect();
        let border =
            |name: &str| Fact { value: name.to_owned(), aliases: aliases.get(name).cloned().unwrap_or_default() };
        for country in self.entities.iter_mut().filter(|entity| entity.kind == Kind::Country) {
            country.facts.retain(|field, _| !field.is_derived());
            let mut by_length: Vec<(&str, f64)> = country.neighbours.iter().map(|(n, km)| (n.as_str(), *km)).collect();
            by_length.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            let (field, length) = match by_length[..] {
                [] => continue,
                [(_, only)] => (Field::OnlyBorder, only),
                [(_, first), (_, second), ..] if first > second => (Field::LongestBorder, first),
                _ => continue,
            };
            country.facts.insert(field, border(by_length[0].0));
            country.facts.insert(Field::BorderLength, Fact::plain(format!("{} km", grouped(length))));
            let others: Vec<_> = by_length.iter().skip(1).take(2).map(|(name, _)| named(name)).collect();
            if !others.is_empty() {
                country.facts.insert(Field::OtherNeighbours, Fact::plain(others.join(" and ")));
            }
        }
    }
}

/// `1234.5` as `1,234.5`.
pub(crate) fn grouped(number: f64) -> String {
    let text = format!("{number}");
    let (whole, rest) = match text.split_once('.') {
        Some((whole, rest)) => (whole, format!(".{rest}")),
        None => (text.as_str(), String::new()),
    };
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + &rest
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7.0), "7");
        assert_eq!(grouped(1234.5), "1,234.5");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }
}
