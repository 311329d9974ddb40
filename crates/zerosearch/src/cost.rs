//! The cost of a run: what its searches would have cost at a web API, what the simulator cost, and where they cross over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zerosearch_files::{FileError, read_text};
use zerosearch_generate::{Role, Usage};

/// Prices of searches and of devices, from a TOML file.
///
/// ```
/// use zerosearch::cost::Prices;
///
/// let prices = Prices::parse("prices.toml", r#"
///     currency = "USD"
///     [search.google]
///     per_1000 = 9.2
///     [device.a100]
///     per_hour = 1.5
/// "#)?;
/// assert_eq!(prices.search["google"].of(64_000.0), 588.8);
/// # Ok::<(), zerosearch::cost::PriceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The currency of the prices.
    pub currency: String,
    /// Web APIs, by name.
    #[serde(default)]
    pub search: BTreeMap<String, SearchPrice>,
    /// Devices to rent, by name.
    #[serde(default)]
    pub device: BTreeMap<String, DevicePrice>,
}

/// The price of a web API.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchPrice {
    /// Of a thousand queries.
    pub per_1000: f64,
    /// Where the figure is from.
    #[serde(default)]
    pub source: String,
}

impl SearchPrice {
    /// The price of so many queries.
    pub fn of(&self, queries: f64) -> f64 {
        self.per_1000 * queries / 1000.0
    }
}

/// The price of a device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePrice {
    /// Of an hour.
    pub per_hour: f64,
    /// Where the figure is from.
    #[serde(default)]
    pub source: String,
}

/// A price list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Invalid TOML, an unknown key, or an invalid price.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// It does not have the device.
    #[error(
        "the price list has no device {name:?}, only {known}: name one of them, or add a table [device.{name}] with `per_hour`"
    )]
    Device {
        /// The name that was asked for.
        name: String,
        /// The names in the list.
        known: String,
    },
}

impl Prices {
    /// Reads a price list.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PriceError> {
        Self::parse(&path, &read_text(&path)?)
    }

    /// As [`read`](Self::read), of a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<Self, PriceError> {
        let failed = |message: String| PriceError::Parse { path: path.as_ref().into(), message };
        let prices: Self = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
        let search = prices.search.iter().map(|(name, price)| (format!("search.{name}.per_1000"), price.per_1000));
        let device = prices.device.iter().map(|(name, price)| (format!("device.{name}.per_hour"), price.per_hour));
        match search.chain(device).find(|(_, price)| !(price.is_finite() && *price >= 0.0)) {
            Some((key, price)) => Err(failed(format!("`{key}` is {price}, expected a price, 0 or more"))),
            None => Ok(prices),
        }
    }
}

/// The paper's Table 8 for a run: one row for each web API of the price list, and one for the simulator.
#[derive(Clone, Debug, PartialEq)]
pub struct CostTable {
    /// Queries that the run asked, those that a cache answered included.
    pub queries: u64,
    /// The hours for which the simulator's devices were rented, and those in which they worked.
    pub rented_hours: f64,
    /// See `rented_hours`.
    pub busy_hours: f64,
    /// Cost of the same queries, by web API.
    pub search: Vec<SearchCost>,
    /// Cost of the simulator's devices while they were rented.
    pub simulator: f64,
    /// Their cost while they worked, which is all of it where they are shared with other work.
    pub simulator_busy: f64,
}

/// A run's searches at a web API.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchCost {
    /// The web API.
    pub name: String,
    /// The price of the run's queries.
    pub cost: f64,
    /// From so many queries an hour on, the simulator's devices are cheaper; `None` where the web API costs nothing.
    pub crossover_per_hour: Option<f64>,
}

impl CostTable {
    /// The costs of what a run used, with its simulator on `devices` devices of a kind of the price list. A run is rented for from
    /// its first step to its last.
    ///
    /// # Errors
    /// When the price list does not have the device.
    pub fn new(used: &BTreeMap<Role, Usage>, prices: &Prices, device: &str, devices: f64) -> Result<Self, PriceError> {
        let price = prices.device.get(device).ok_or_else(|| PriceError::Device {
            name: device.to_owned(),
            known: prices.device.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let usage = |role| used.get(&role).copied().unwrap_or_default();
        let (engine, simulator) = (usage(Role::Engine), usage(Role::Simulator));
        let busy_hours = simulator.device_seconds / 3600.0;
        let rented_hours = (simulator.device_seconds + simulator.idle_seconds) / 3600.0;
        let queries = engine.calls;
        let an_hour = price.per_hour * devices;
        let search = |(name, search): (&String, &SearchPrice)| SearchCost {
            name: name.clone(),
            cost: search.of(queries as f64),
            crossover_per_hour: (search.per_1000 > 0.0).then(|| an_hour / search.of(1.0)),
        };
        Ok(Self {
            queries,
            rented_hours,
            busy_hours,
            search: prices.search.iter().map(search).collect(),
            simulator: an_hour * rented_hours,
            simulator_busy: an_hour * busy_hours,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list that is shipped.
    const PRICES: &str = include_str!("../../../examples/prices.toml");

    #[test]
    fn the_papers_table_comes_out_of_the_shipped_prices() {
        let prices = Prices::parse("prices.toml", PRICES).unwrap();
        // About 64,000 queries in 12 hours.
        let simulator = Usage { device_seconds: 6.0 * 3600.0, idle_seconds: 6.0 * 3600.0, ..Usage::default() };
        let used =
            BTreeMap::from([(Role::Engine, Usage { calls: 64_000, ..Usage::default() }), (Role::Simulator, simulator)]);
        for (devices, cost) in [(1.0, 17.7), (2.0, 35.4), (4.0, 70.8)] {
            let table = CostTable::new(&used, &prices, "a100", devices).unwrap();
            assert!((table.simulator - cost).abs() < 0.05, "{table:?}");
            assert!((table.simulator_busy - cost / 2.0).abs() < 0.05);
            let google = table.search.iter().find(|search| search.name == "google").unwrap();
            assert!((google.cost - 586.7).abs() < 0.05, "{google:?}");
            // At the crossover an hour of either costs the same.
            let crossover = google.crossover_per_hour.unwrap();
            assert!((prices.search["google"].of(crossover) - table.simulator / 12.0).abs() < 1e-9);
        }
        let error = CostTable::new(&used, &prices, "h9", 1.0).unwrap_err().to_string();
        assert!(error.contains("h9") && error.contains("a100"), "{error}");
    }

    #[test]
    fn a_price_list_with_a_mistake_is_refused_by_its_key() {
        for (text, expected) in [
            ("currency = \"USD\"\n[device.x]\nper_hour = -1", "device.x.per_hour"),
            ("currency = \"USD\"\n[search.x]\nper_1000 = nan", "search.x.per_1000"),
            ("currency = \"USD\"\n[devices.x]\nper_hour = 1", "devices"),
            ("[device.x]\nper_hour = 1", "currency"),
        ] {
            let error = Prices::parse("my.toml", text).unwrap_err().to_string();
            assert!(error.contains("my.toml") && error.contains(expected), "{error}");
        }
    }
}
