//! The cost of a finished run, and of the same searches at a web API.
//!
//!     cargo run --release --example cost -- runs/quickstart --device a100 --devices 1
//!
//! Counts come from the run's `ledger.json`, prices from a TOML file; the shipped one has the figures of ZeroSearch's Table 8.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::cost::{CostTable, Prices};
use zerosearch::metrics::say;
use zerosearch::train::read_ledger;

#[derive(Parser)]
struct Arguments {
    /// A run's folder, with `ledger.json` in it.
    run: PathBuf,
    /// A price list: see examples/prices.toml.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// The simulator's device, a name of the price list.
    #[arg(long, default_value = "a100")]
    device: String,
    /// How many of them.
    #[arg(long, default_value_t = 1.0)]
    devices: f64,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let prices = match &arguments.prices {
        Some(path) => Prices::read(path)?,
        None => Prices::parse("examples/prices.toml", include_str!("prices.toml"))?,
    };
    let path = arguments.run.join("ledger.json");
    let used = read_ledger(&path)?;
    if used.is_empty() {
        return Err(Failure::message(format!(
            "{}: no such file: name the folder of a run that took a step",
            path.display()
        )));
    }
    let table = CostTable::new(&used, &prices, &arguments.device, arguments.devices)?;

    say(format!(
        "{:10} {:>9} {:>8} {:>9} {:>12} {:>12} {:>10} {:>10} {:>10}",
        "role", "calls", "failed", "cached", "tokens in", "tokens out", "wall, h", "busy, h", "idle, h"
    ));
    for (role, usage) in &used {
        let hours = [usage.wall_seconds, usage.device_seconds, usage.idle_seconds].map(|seconds| seconds / 3600.0);
        say(format!(
            "{:10} {:>9} {:>8} {:>9} {:>12} {:>12} {:>10.3} {:>10.3} {:>10.3}",
            role.name(),
            usage.calls,
            usage.failures,
            usage.cache_hits,
            usage.tokens_in,
            usage.tokens_out,
            hours[0],
            hours[1],
            hours[2]
        ));
    }

    let (currency, CostTable { queries, rented_hours, busy_hours, .. }) = (&prices.currency, &table);
    say(format!("\n{:28} {:>9} {:>12} {:>14} {:>12}", "searches answered by", "queries", "API", "devices", "total"));
    for search in &table.search {
        say(format!("{:28} {queries:>9} {:>12.4} {:>14.4} {:>12.4}", search.name, search.cost, 0.0, search.cost));
    }
    let row = |name: String, cost: f64| {
        say(format!("{name:28} {queries:>9} {:>12.4} {cost:>14.4} {cost:>12.4}", 0.0));
    };
    let devices = format!("{} × {}", arguments.devices, arguments.device);
    row(format!("simulator, {devices}"), table.simulator);
    row("  for its busy hours alone".into(), table.simulator_busy);
    say(format!(
        "in {currency}; the simulator was rented for {rented_hours:.3} h, and busy for {busy_hours:.3} h of them"
    ));
    for search in &table.search {
        if let Some(crossover) = search.crossover_per_hour {
            let rate = *queries as f64 / rented_hours;
            say(format!(
                "the simulator is cheaper than {} from {crossover:.0} searches an hour on; this run made {rate:.0}",
                search.name
            ));
        }
    }
    Ok(())
}
