//! The tables of the paper in miniature, cell by cell, and the page `docs/src/results.md` that is written from them.
//!
//!     cargo run --release --example paper_tables -- --tables 5,6,4,defects,3,plain,8 --seeds 3
//!     cargo run --release --example paper_tables -- --report
//!
//! A cell is one run and one JSON file in `--out`. Cells that are there with the same configuration are skipped, so the same command goes
//! on after an interruption: Ctrl-C ends after the present training step, and a kill costs the steps since the last checkpoint.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::cost::Prices;
use zerosearch::device::DeviceName;
use zerosearch::files::{prepare_file, write_atomic};
use zerosearch::metrics::say;
use zerosearch::paper_tables::{Remarks, Results, Runner, TABLES, Table, page};
use zerosearch::pipeline::{PipelineConfig, PipelineError, world_material};

#[path = "paper_tables/defects.rs"]
mod defects;
mod interrupt;

#[derive(Parser)]
struct Arguments {
    /// 5, 6, 4, defects, 3, plain, 8: the tables to fill, in this order.
    #[arg(long, value_delimiter = ',', default_value = "5,6,4,defects,3,plain,8")]
    tables: Vec<String>,
    /// Only these experiments of the tables, by the names in the file names of cells.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Seeds 0 to N − 1 of each row.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The folder of the cells, and of `remarks.toml`; with `--small` target/paper_tables/small.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The page; with `--small` results.md in the folder of the cells.
    #[arg(long)]
    page: Option<PathBuf>,
    /// The folder of simulators, checkpoints, policies and predictions.
    #[arg(long, default_value = "target/paper_tables/work")]
    work: PathBuf,
    /// The base policy: any Llama, Qwen2 or Qwen3 folder.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base"))]
    model: PathBuf,
    /// The base policy of the table `plain`, whose demonstrations had no wrong habit.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base-plain"))]
    plain: PathBuf,
    /// The base model of the simulator of another size.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base-small"))]
    smaller: PathBuf,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Little of everything, a cell in seconds: shows that it works, and says nothing about the method.
    #[arg(long)]
    small: bool,
    /// Writes the page from the cells that there are, and runs none.
    #[arg(long)]
    report: bool,
}

impl Arguments {
    /// The cells that were asked for, in the order in which they run.
    fn cells(&self) -> Result<Vec<(&'static str, u64)>, Failure> {
        let mut cells = Vec::new();
        for name in &self.tables {
            let known = TABLES.map(|table| table.name).join(", ");
            let table = Table::named(name);
            let table = table.ok_or_else(|| Failure::message(format!("--tables {name}: expected some of {known}")))?;
            cells.extend(table.cells(self.seeds));
        }
        if let Some(row) = self.rows.iter().find(|row| !cells.iter().any(|(name, _)| name == row)) {
            let mut names: Vec<&str> = cells.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Failure::message(format!("--rows {row}: expected some of {}", names.join(", "))));
        }
        cells.retain(|(name, _)| self.rows.is_empty() || self.rows.iter().any(|row| row == name));
        Ok(cells)
    }
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let out = match (&arguments.out, arguments.small) {
        (Some(out), _) => out.clone(),
        (None, true) => "target/paper_tables/small".into(),
        (None, false) => "docs/results".into(),
    };
    let page_path = match (&arguments.page, arguments.small) {
        (Some(page), _) => page.clone(),
        (None, true) => out.join("results.md"),
        (None, false) => "docs/src/results.md".into(),
    };
    let cells = arguments.cells()?;
    prepare_file(&page_path, &[])?;
    let results = Results::at(&out);
    let prices = Prices::parse("examples/prices.toml", include_str!("prices.toml"))?;
    let write_page = || -> Result<(), Failure> {
        let remarks = Remarks::read(out.join("remarks.toml"))?;
        let page = page(&results.cells()?, &remarks, &prices)?;
        Ok(write_atomic(&page_path, page.as_bytes())?)
    };
    // Damaged files are noticed before the work.
    write_page()?;
    if arguments.report {
        say(format!("page in {}", page_path.display()));
        return Ok(());
    }

    zerosearch::kernels::keep_freed_memory();
    let (mut config, mut material) = (PipelineConfig::default(), world_material()?);
    if arguments.small {
        config = config.shortened();
        config.train.steps = 2;
        material = material.shortened();
    }
    let mut runner = Runner::new(config, &arguments.model, &material, &arguments.work)?
        .plain(&arguments.plain)?
        .smaller(&arguments.smaller)?
        .device(arguments.device.open()?)
        .small(arguments.small)
        .defects(defects::all());
    let missing = runner.missing(&cells, &results)?.len();
    say(format!("{missing} cells are missing in {}", out.display()));

    let interrupted = interrupt::on_ctrl_c()?;
    let finished = runner.fill(&cells, &results, &interrupted, &mut |cell| {
        let em = cell.scores.as_ref().map(|scores| format!("EM {:.1} %", 100.0 * scores.all.em));
        let outcome = em.or_else(|| cell.failure.clone()).unwrap_or_default();
        say(format!("{}, seed {}: {outcome}, {:.0} s", cell.experiment, cell.seed, cell.seconds));
        let path = page_path.clone();
        write_page().map_err(|error| PipelineError::File { path, message: format!("{error:?}") })
    })?;
    if finished {
        say(format!("all cells are in {}, the page in {}", out.display(), page_path.display()));
    } else {
        say("stopped; the same command goes on");
    }
    Ok(())
}
