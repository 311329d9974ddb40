//! The page of results, as Markdown.

use std::fmt::Write;

use zerosearch_eval::Scores;
use zerosearch_generate::Role;

use super::seeds::OverSeeds;
use super::tables::COST;
use super::{Cell, CellConfig, CellScores, Claim, Remarks, Row, TABLES, Table};
use crate::cost::{CostTable, PriceError, Prices};

/// The page that `docs/src/results.md` is: every table with the cells that there are, those that are missing named as such, the
/// paper's figures, its claims and the remarks on them.
///
/// # Errors
/// When the price list lacks the `a100` of the cost table.
pub fn page(cells: &[Cell], remarks: &Remarks, prices: &Prices) -> Result<String, PriceError> {
    let mut page = INTRODUCTION.to_owned();
    let seeds = cells.iter().map(|cell| cell.seed + 1).max().unwrap_or(0).max(SEEDS);
    let expected: usize = {
        let mut names: Vec<&str> = TABLES.iter().flat_map(Table::experiments).collect();
        names.sort_unstable();
        names.dedup();
        names.len() * seeds as usize
    };
    let there = cells.iter().filter(|cell| in_a_table(cell)).count();
    line(&mut page, format!("{there} of {expected} cells are done{}.", state(cells)));
    for table in &TABLES {
        line(&mut page, format!("\n## {}\n\n{}\n", table.title, table.about));
        if table.name == COST.name {
            cost(&mut page, table, cells, prices, seeds)?;
        } else {
            scores(&mut page, table, cells, seeds);
        }
        claims(&mut page, table, cells);
        let names = table.claims.iter().map(|claim| (claim.text, claim.name.to_owned()));
        for (text, name) in [(table.title, format!("table_{}", table.name))].into_iter().chain(names) {
            if let Some(remark) = remarks.on(&name) {
                line(&mut page, format!("\n**{text}.** {}", remark.text()));
            }
        }
    }
    Ok(page)
}

/// The seeds that a row should have, 0, 1 and 2, unless there are more.
const SEEDS: u64 = 3;

const INTRODUCTION: &str = r"# Results

<!-- Written by `paper_tables` from the files in docs/results; edit those, or remarks.toml beside them. -->

The tables of the paper ([arXiv:2505.04588](https://arxiv.org/abs/2505.04588)) in miniature: the shipped base policy of four million parameters on the
shipped [world of facts](world.md), trained as in [the quickstart](quickstart.md). Figures are exact matches in % on held-out questions with the
real engine; the paper's are averages over seven data sets with models of three billion parameters, so only their order can be compared. Where
the paper has REINFORCE, rows that are not about algorithms have GRPO here, as the quickstart has.

```sh
cargo run --release --example paper_tables -- --tables 5,6,4,defects,3,plain,8 --seeds 3     # the missing cells, then this page
cargo run --release --example paper_tables -- --report                                 # this page alone
```

A row is an experiment, a cell an experiment with a seed: one run, and one file `docs/results/EXPERIMENT-seedN.json` with its whole configuration.
Means are over seeds; `±` is half the width of the 95 % interval of the mean (Student's t). It is the spread over seeds alone: all cells have the same
questions, and a base policy that is not trained answers greedily, the same with every seed. An order counts as reproduced when the 95 % interval of the
differences, seed by seed, lies above 0, and as not reproduced when it lies below. How to run it: [Examples](examples.md).

";

fn line(page: &mut String, text: impl AsRef<str>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{}", text.as_ref());
}

fn in_a_table(cell: &Cell) -> bool {
    TABLES.iter().flat_map(Table::experiments).any(|name| name == cell.experiment)
}

/// Held-out questions, instruction sets, and whether the cells are small ones.
fn state(cells: &[Cell]) -> String {
    let mut instructions: Vec<&str> = cells.iter().map(|cell| cell.instructions.as_str()).collect();
    instructions.sort_unstable();
    instructions.dedup();
    let mut state = match instructions[..] {
        [] => String::new(),
        _ => format!(", on {}", instructions.join(", ")),
    };
    if cells.iter().any(|cell| cell.config.small) {
        state += "; some are **small**, of a few steps on a few questions, and say nothing about the method";
    }
    state
}

/// The cells of an experiment, by seed.
fn of<'c>(cells: &'c [Cell], experiment: &str) -> Vec<&'c Cell> {
    let mut of: Vec<&Cell> = cells.iter().filter(|cell| cell.experiment == experiment).collect();
    of.sort_by_key(|cell| cell.seed);
    of
}

fn over_seeds(cells: &[&Cell], figure: impl Fn(&CellScores) -> f64) -> String {
    let values: Vec<f64> = cells.iter().filter_map(|cell| cell.scores.as_ref()).map(figure).collect();
    OverSeeds::of(&values).map_or_else(|| MISSING.to_owned(), |mean| mean.text())
}

const MISSING: &str = "–";

fn scores(page: &mut String, table: &Table, cells: &[Cell], seeds: u64) {
    let paper = table.paper;
    line(page, format!("| | paper: {paper} | EM | one hop | several hops | F1 | searches | minutes | n | seeds |"));
    line(page, "|---|---|---|---|---|---|---|---|---|---|");
    for Row { label, experiment, paper } in table.rows {
        let paper = if paper.is_empty() { MISSING } else { paper };
        let cells = of(cells, experiment);
        let percent = |figure: fn(&CellScores) -> &Scores| over_seeds(&cells, |scores| 100.0 * figure(scores).em);
        let f1 = over_seeds(&cells, |scores| 100.0 * scores.all.f1);
        let searches =
            cells.iter().filter_map(|cell| cell.scores.as_ref()).map(|scores| scores.all.searches_per_question);
        let searches = mean(searches).map_or_else(|| MISSING.to_owned(), |searches| format!("{searches:.2}"));
        let minutes = mean(cells.iter().map(|cell| cell.seconds / 60.0));
        let minutes = minutes.map_or_else(|| MISSING.to_owned(), |minutes| format!("{minutes:.1}"));
        let mut counts: Vec<usize> = cells.iter().filter_map(|cell| Some(cell.scores.as_ref()?.all.n)).collect();
        counts.dedup();
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        let counts = if counts.is_empty() { MISSING.to_owned() } else { counts.join(", ") };
        line(
            page,
            format!(
                "| {label} | {paper} | {} | {} | {} | {f1} | {searches} | {minutes} | {counts} | {} |",
                percent(|scores| &scores.all),
                percent(|scores| &scores.one_hop),
                percent(|scores| &scores.several_hops),
                which_seeds(&cells, seeds)
            ),
        );
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    OverSeeds::of(&values.collect::<Vec<_>>()).map(|mean| mean.mean)
}

/// Seeds that are there, those that are missing, and whether the cells can be averaged.
fn which_seeds(cells: &[&Cell], seeds: u64) -> String {
    let join = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let there: Vec<u64> = cells.iter().filter(|cell| cell.failure.is_none()).map(|cell| cell.seed).collect();
    let failed: Vec<u64> = cells.iter().filter(|cell| cell.failure.is_some()).map(|cell| cell.seed).collect();
    let missing: Vec<u64> = (0..seeds).filter(|seed| !cells.iter().any(|cell| cell.seed == *seed)).collect();
    let mut parts = Vec::new();
    if !there.is_empty() {
        parts.push(join(&there));
    }
    if !failed.is_empty() {
        parts.push(format!("diverged: {}", join(&failed)));
    }
    if !missing.is_empty() {
        parts.push(format!("missing: {}", join(&missing)));
    }
    let config = |cell: &Cell| {
        let experiment = cell.config.experiment.clone().with_seed(0);
        CellConfig { experiment, ..cell.config.clone() }
    };
    if cells.windows(2).any(|pair| !config(pair[0]).same_figures(&config(pair[1]))) {
        parts.push("of different configurations".into());
    }
    parts.join("; ")
}

fn claims(page: &mut String, table: &Table, cells: &[Cell]) {
    if table.claims.is_empty() {
        return;
    }
    line(page, "\n| order | paper | here, points of EM | reproduced |\n|---|---|---|---|");
    for claim in table.claims {
        let paper = if claim.paper.is_empty() { MISSING } else { claim.paper };
        let (difference, verdict) = verdict(claim, cells);
        line(page, format!("| {} | {paper} | {difference} | {verdict} |", claim.text));
    }
}

/// The difference of the two experiments, seed by seed, and whether it has the sign of the claim.
fn verdict(claim: &Claim, cells: &[Cell]) -> (String, String) {
    let worse = of(cells, claim.worse);
    let em = |cell: &Cell| Some(100.0 * cell.scores.as_ref()?.all.em);
    let differences: Vec<f64> = of(cells, claim.better)
        .into_iter()
        .filter_map(|better| {
            let worse = worse.iter().find(|cell| cell.seed == better.seed)?;
            Some(em(better)? - em(worse)?)
        })
        .collect();
    let Some(mean) = OverSeeds::of(&differences) else { return (MISSING.into(), "not run".into()) };
    let agreeing = differences.iter().filter(|difference| **difference > 0.0).count();
    let verdict = match mean.half_width {
        Some(half_width) if mean.mean - half_width > 0.0 => "yes".into(),
        Some(half_width) if mean.mean + half_width < 0.0 => "no: the opposite".into(),
        Some(_) => format!("not decided: {agreeing} of {} seeds in this order", differences.len()),
        None if agreeing == 1 => "not decided: one seed, in this order".into(),
        None => "not decided: one seed, not in this order".into(),
    };
    (mean.text(), verdict)
}

/// The device of the paper's Table 8, in the price list.
const DEVICE: &str = "a100";

fn cost(page: &mut String, table: &Table, cells: &[Cell], prices: &Prices, seeds: u64) -> Result<(), PriceError> {
    let currency = &prices.currency;
    let services: Vec<&str> = prices.search.keys().map(String::as_str).collect();
    let searches: String = services.iter().map(|name| format!(" {name}, {currency} |")).collect();
    line(
        page,
        format!(
            "| | paper: {} | searches | tokens written | busy, h | rented, h | one {DEVICE} for the rented hours, {currency} |{searches} seeds |",
            table.paper
        ),
    );
    line(page, format!("|{}", "---|".repeat(8 + services.len())));
    for Row { label, experiment, paper } in table.rows {
        let cells = of(cells, experiment);
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for cell in &cells {
            let costs = CostTable::new(&cell.usage, prices, DEVICE, 1.0)?;
            let written = cell.usage.get(&Role::Simulator).map_or(0, |usage| usage.tokens_out);
            let own = [costs.queries as f64, written as f64, costs.busy_hours, costs.rented_hours, costs.simulator];
            rows.push(own.into_iter().chain(costs.search.iter().map(|search| search.cost)).collect());
        }
        let figure = |column: usize, digits: usize| {
            let mean = mean(rows.iter().map(|row| row[column]));
            mean.map_or_else(|| MISSING.to_owned(), |mean| format!("{mean:.digits$}"))
        };
        let columns: String = (0..5 + services.len())
            .map(|column| format!(" {} |", figure(column, if column < 2 { 0 } else { 3 })))
            .collect();
        let paper = if paper.is_empty() { MISSING } else { paper };
        line(page, format!("| {label} | {paper} |{columns} {} |", which_seeds(&cells, seeds)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper_tables::cell::tests::cell;

    fn prices() -> Prices {
        let text = "currency = \"USD\"\n[search.google]\nper_1000 = 10.0\n[device.a100]\nper_hour = 1.0\n";
        Prices::parse("prices.toml", text).unwrap()
    }

    fn of_table_5(cells: &[Cell]) -> Vec<String> {
        let page = page(cells, &Remarks::default(), &prices()).unwrap();
        let from = page.find("## Table 5").unwrap();
        let to = page.find("## Table 6").unwrap();
        page[from..to].lines().map(str::to_owned).collect()
    }

    fn row(lines: &[String], start: &str) -> String {
        lines.iter().find(|line| line.starts_with(start)).unwrap().clone()
    }

    #[test]
    fn missing_cells_are_shown_as_such() {
        let lines = of_table_5(&[]);
        assert_eq!(
            row(&lines, "| REINFORCE |"),
            "| REINFORCE | 34.47 | – | – | – | – | – | – | – | missing: 0, 1, 2 |"
        );
        assert_eq!(row(&lines, "| GRPO ends above PPO"), "| GRPO ends above PPO | 33.17 > 32.67 | – | not run |");
        let lines = of_table_5(&[cell("reinforce", 1, 60)]);
        let expected = "| REINFORCE | 34.47 | 60.0 | 60.0 | 60.0 | 60.0 | 1.50 | 1.5 | 100 | 1; missing: 0, 2 |";
        assert_eq!(row(&lines, "| REINFORCE |"), expected);
    }

    #[test]
    fn an_order_is_reproduced_opposite_or_not_decided() {
        let seeds = |name: &str, right: [usize; 3]| {
            (0..3).zip(right).map(|(seed, right)| cell(name, seed, right)).collect::<Vec<_>>()
        };
        let of = |zerosearch, ppo, reinforce| {
            let cells = [seeds("zerosearch", zerosearch), seeds("ppo", ppo), seeds("reinforce", reinforce)].concat();
            let lines = of_table_5(&cells);
            [row(&lines, "| GRPO ends above PPO"), row(&lines, "| REINFORCE ends above GRPO")]
        };
        let [clear, opposite] = of([60, 61, 62], [50, 51, 52], [40, 41, 43]);
        assert!(clear.ends_with("| 10.0 ± 0.0 | yes |"), "{clear}");
        assert!(opposite.ends_with("| -19.7 ± 1.4 | no: the opposite |"), "{opposite}");
        let [mixed, _] = of([60, 61, 62], [70, 51, 52], [40, 41, 42]);
        assert!(mixed.ends_with("| not decided: 2 of 3 seeds in this order |"), "{mixed}");
    }

    #[test]
    fn what_cannot_be_averaged_is_said() {
        let mut cells = vec![cell("ppo", 0, 50), cell("ppo", 1, 50), cell("ppo", 2, 50)];
        cells[1].config.corpus = "other".into();
        cells[2].scores = None;
        cells[2].failure = Some("step 3: loss NaN".into());
        cells.iter_mut().for_each(|cell| cell.config.small = true);
        let row = row(&of_table_5(&cells), "| PPO |");
        assert!(row.ends_with("| 0, 1; diverged: 2; of different configurations |"), "{row}");
        assert!(page(&cells, &Remarks::default(), &prices()).unwrap().contains("some are **small**"));
    }
}
