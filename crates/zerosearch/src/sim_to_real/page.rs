//! `report.html`: the gap as pictures.

use std::path::Path;

use zerosearch_eval::Estimate;
use zerosearch_metrics::{Chart, Line, MetricsError, Report, Table, write_report};

use super::report::{EpisodeFigures, GapReport, shown, shown_difference};

/// A figure of episodes, by its chart's title and its unit.
type Figure = (&'static str, &'static str, fn(&EpisodeFigures) -> &Estimate, f64);

const FIGURES: [Figure; 4] = [
    ("Reward", "mean", |it| &it.reward, 1.0),
    ("Results with a golden answer", "%", |it| &it.contains, 100.0),
    ("Searches", "an episode", |it| &it.searches, 1.0),
    ("Episodes that search", "%", |it| &it.searched, 100.0),
];

pub(super) fn write_page(path: &Path, report: &GapReport) -> Result<(), MetricsError> {
    let page = Report {
        title: "Sim to real".into(),
        subtitle: format!(
            "{} questions, seed {}: the same policy with the real engine and with the simulator, which gives {}",
            report.questions,
            report.seed,
            report.matching()
        ),
        tables: vec![episodes(report), documents(report)],
        charts: FIGURES.iter().map(|figure| chart(report, figure)).collect(),
        trajectories: Vec::new(),
    };
    write_report(path, &page)
}

/// The simulator over its noise levels, within its interval, and the real engine, which has none.
fn chart(report: &GapReport, (title, unit, pick, scale): &Figure) -> Chart {
    let percent = |noise: f64| (100.0 * noise).round() as u64;
    let line = |name: &str, value: &dyn Fn(&EpisodeFigures) -> f64, simulated: bool| {
        let points = report.levels.iter().map(|level| {
            let episodes = if simulated { &level.episodes } else { &report.real };
            (percent(level.noise), scale * value(episodes))
        });
        Line { name: name.into(), points: points.collect() }
    };
    let mean = |it: &EpisodeFigures| pick(it).mean;
    Chart {
        title: (*title).into(),
        y_label: (*unit).into(),
        x_label: "% noisy".into(),
        lines: vec![
            line("simulator", &mean, true),
            line("real engine", &mean, false),
            line("simulator, lower end of the interval", &|it| pick(it).ci95[0], true),
            line("simulator, upper end", &|it| pick(it).ci95[1], true),
        ],
    }
}

fn episodes(report: &GapReport) -> Table {
    let header =
        ["episodes", &report.reward, "less the real engine's", "searches", "with an answer, %", "failed searches"];
    let rows = report.episode_rows().into_iter().map(|(name, figures, gap)| {
        vec![
            name,
            shown(&figures.reward, 1.0, 3),
            gap.map_or("–".into(), shown_difference),
            shown(&figures.searches, 1.0, 2),
            shown(&figures.contains, 100.0, 1),
            figures.search_failures.to_string(),
        ]
    });
    Table { title: "Episodes".into(), header: header.map(str::to_string).to_vec(), rows: rows.collect() }
}

fn documents(report: &GapReport) -> Table {
    let header =
        ["documents", "with an answer, %", "in a result", "words", "distinct-1", "distinct-2", "style distance", "AUC"];
    let rows = report.document_rows().into_iter().map(|(name, figures)| {
        vec![
            name.to_string(),
            shown(&figures.contains, 100.0, 1),
            shown(&figures.documents_per_result, 1.0, 2),
            shown(&figures.words_per_result, 1.0, 1),
            format!("{:.3}", figures.distinct_1),
            format!("{:.3}", figures.distinct_2),
            shown(&figures.style_distance, 1.0, 3),
            figures.surface_auc.map_or("–".into(), |auc| format!("{auc:.2}")),
        ]
    });
    let title = format!("The same {} queries to both", report.queries);
    Table { title, header: header.map(str::to_string).to_vec(), rows: rows.collect() }
}
