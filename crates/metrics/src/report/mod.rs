//! A page that needs nothing but itself: tables, charts and whole trajectories.

mod chart;
mod html;
mod trajectory;

use std::path::Path;

pub use chart::{Chart, Line};
pub use trajectory::{Author, ReportTrajectory, TrajectorySpan};

use html::escape;
use zerosearch_files::write_atomic;

use crate::MetricsError;

/// Contents of a report page, from top to bottom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// A sentence below it.
    pub subtitle: String,
    /// The results in figures.
    pub tables: Vec<Table>,
    /// The course of the run.
    pub charts: Vec<Chart>,
    /// Episodes in full.
    pub trajectories: Vec<ReportTrajectory>,
}

/// A table with one heading row. Its first column names the rows, the others are set as figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The heading above it.
    pub title: String,
    /// The names of the columns; empty for a table of keys and values.
    pub header: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of two columns: a name and its value.
    pub fn pairs<K: Into<String>, V: Into<String>>(title: &str, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let rows = pairs.into_iter().map(|(key, value)| vec![key.into(), value.into()]).collect();
        Self { title: title.to_owned(), header: Vec::new(), rows }
    }
}

/// Writes the report as one self-contained HTML file (SVG charts, no scripts, no external resources).
///
/// # Errors
/// When the file cannot be written.
pub fn write_report(path: impl AsRef<Path>, report: &Report) -> Result<(), MetricsError> {
    Ok(write_atomic(path, report.to_html().as_bytes())?)
}

impl Report {
    /// The page. All texts of the report are escaped and made [`legible`](fn@crate::legible): a document can neither put
    /// markup into it nor hide or reorder what others wrote.
    pub fn to_html(&self) -> String {
        let mut body = format!("<header><h1>{}</h1>\n", escape(&self.title));
        if !self.subtitle.is_empty() {
            body.push_str(&format!("<p>{}</p>\n", escape(&self.subtitle)));
        }
        body.push_str("</header>\n");
        body.push_str(&section("Results", "tables", self.tables.iter().map(table)));
        body.push_str(&section("Charts", "charts", self.charts.iter().map(Chart::to_html)));
        body.push_str(&trajectory::section(&self.trajectories));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
             <style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
            escape(&self.title),
            include_str!("style.css"),
        )
    }
}

/// Nothing at all when there is nothing to show.
fn section(heading: &str, class: &str, parts: impl Iterator<Item = String>) -> String {
    let parts: String = parts.collect();
    if parts.is_empty() {
        return parts;
    }
    format!("<section>\n<h2>{heading}</h2>\n<div class=\"{class}\">\n{parts}</div>\n</section>\n")
}

fn table(table: &Table) -> String {
    let cells = |row: &[String], head: bool| -> String {
        let tags = row.iter().enumerate().map(|(index, cell)| {
            let tag = if head || index == 0 { "th" } else { "td" };
            format!("<{tag}>{}</{tag}>", escape(cell))
        });
        format!("<tr>{}</tr>\n", tags.collect::<String>())
    };
    let head = if table.header.is_empty() {
        String::new()
    } else {
        format!("<thead>{}</thead>\n", cells(&table.header, true))
    };
    let rows: String = table.rows.iter().map(|row| cells(row, false)).collect();
    format!(
        "<figure class=\"card\">\n<figcaption>{}</figcaption>\n<table>\n{head}<tbody>\n{rows}</tbody>\n</table>\n</figure>\n",
        escape(&table.title)
    )
}
