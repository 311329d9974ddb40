//! Several runs on one page.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use zerosearch_eval::Scores;
use zerosearch_files::prepare_file;
use zerosearch_metrics::{Chart, Line, Report, Row, Table, read_jsonl, series, write_report};

use super::folder::Folder;
use super::report::{CHARTS, ChartOf};
use super::{PipelineError, Summary};

/// Writes one page about several runs, of a pipeline or of `train`: each chart has a line for each run.
///
/// # Errors
/// When a folder has no `metrics.jsonl`, or the page cannot be written.
pub fn write_comparison(runs: &[PathBuf], page: &Path) -> Result<(), PipelineError> {
    prepare_file(page, &[])?;
    let mut names: Vec<String> = runs.iter().map(|run| last_part(run)).collect();
    if names.iter().collect::<HashSet<_>>().len() < names.len() {
        names = runs.iter().map(|run| run.display().to_string()).collect();
    }
    let (mut metrics, mut results) = (Vec::new(), Vec::new());
    for (name, run) in names.iter().zip(runs) {
        metrics.push((name.as_str(), read_jsonl(run.join("metrics.jsonl"))?));
        if let Some(summary) = Folder(run).read_if_there::<Summary>("summary.json")? {
            results.push(result(name, &summary));
        }
    }
    let header =
        ["run", "one hop, EM %", "several hops, EM %", "searches", "several hops before", "useful %", "noisy %"];
    let title = "Held-out questions, real engine; the simulator's results with a golden answer".into();
    let results = Table { title, header: header.map(str::to_string).to_vec(), rows: results };
    let report = Report {
        title: "Runs compared".into(),
        subtitle: names.join(", "),
        tables: if results.rows.is_empty() { Vec::new() } else { vec![results] },
        charts: CHARTS.iter().flat_map(|chart| charts(chart, &metrics)).collect(),
        trajectories: Vec::new(),
    };
    Ok(write_report(page, &report)?)
}

/// A chart for each metric of a run's chart that some run has, with a line for each of these runs.
fn charts((title, y_label, metrics): &ChartOf, runs: &[(&str, Vec<Row>)]) -> Vec<Chart> {
    let chart = |(what, metric): &(&str, &str)| {
        let line = |(name, rows): &(&str, Vec<Row>)| Line { name: (*name).into(), points: series(rows, metric) };
        let lines: Vec<Line> = runs.iter().map(line).filter(|line| !line.points.is_empty()).collect();
        let title = if metrics.len() > 1 { format!("{title}: {what}") } else { (*title).into() };
        (!lines.is_empty()).then(|| Chart { title, y_label: (*y_label).into(), lines, ..Chart::default() })
    };
    metrics.iter().filter_map(chart).collect()
}

fn last_part(run: &Path) -> String {
    run.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn result(name: &str, summary: &Summary) -> Vec<String> {
    let percent = |value: f64| format!("{:.1}", 100.0 * value);
    let em = |scores: &Scores| {
        format!("{} ({}–{})", percent(scores.em), percent(scores.em_ci95[0]), percent(scores.em_ci95[1]))
    };
    let trained = &summary.trained_search;
    vec![
        name.to_string(),
        em(&trained.single_hop),
        em(&trained.multi_hop),
        format!("{:.2}", trained.multi_hop.searches_per_question),
        percent(summary.base_search.multi_hop.em),
        percent(summary.simulator.useful_contains),
        percent(summary.simulator.noisy_contains),
    ]
}
