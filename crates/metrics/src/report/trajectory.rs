//! Episodes as running text, coloured by who wrote it.

use serde::{Deserialize, Serialize};

use super::html::{escape, escape_piece};
use crate::Legible;

/// Author of a stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The question with its instructions.
    Prompt,
    /// The policy.
    Policy,
    /// A tool.
    Observation,
}

/// A stretch of text by one author: one token where its log-probability matters, or many.
#[derive(Clone, Debug, PartialEq)]
pub struct TrajectorySpan {
    /// The text.
    pub text: String,
    /// Its author.
    pub author: Author,
    /// Whether it was trained on.
    pub trained: bool,
    /// Its log-probability, shown when the pointer rests on it.
    pub logprob: Option<f32>,
}

/// One episode in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportTrajectory {
    /// The heading, for example the question.
    pub title: String,
    /// Facts about it, such as the reward: names and values.
    pub facts: Vec<(String, String)>,
    /// Lists that are read beside each other, such as the expected searches and those that were made: headings and entries.
    pub lists: Vec<(String, Vec<String>)>,
    /// The text, in order.
    pub spans: Vec<TrajectorySpan>,
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"prompt\">prompt</span> \
     <span class=\"policy trained\">written by the policy, trained on</span> \
     <span class=\"policy\">written by the policy, not trained on</span> \
     <span class=\"observation\">observation</span></p>\n";

pub(super) fn section(trajectories: &[ReportTrajectory]) -> String {
    if trajectories.is_empty() {
        return String::new();
    }
    let parts: String = trajectories.iter().map(trajectory).collect();
    format!("<section>\n<h2>Trajectories</h2>\n{LEGEND}{parts}</section>\n")
}

fn trajectory(trajectory: &ReportTrajectory) -> String {
    let facts: String = trajectory
        .facts
        .iter()
        .map(|(name, value)| format!("<span>{} <b>{}</b></span> ", escape(name), escape(value)))
        .collect();
    let lists: String = trajectory.lists.iter().map(list).collect();
    let stretches: String = trajectory.spans.chunk_by(|a, b| a.author == b.author).map(stretch).collect();
    format!(
        "<article class=\"card\">\n<h3>{}</h3>\n<p class=\"facts\">{facts}</p>\n{lists}<div class=\"episode\">{stretches}</div>\n</article>\n",
        escape(&trajectory.title)
    )
}

fn list((heading, entries): &(String, Vec<String>)) -> String {
    let entries: String = entries.iter().map(|entry| format!("<li><bdi>{}</bdi></li>", escape(entry))).collect();
    format!("<div class=\"beside\"><b>{}</b><ol>{entries}</ol></div>\n", escape(heading))
}

/// All that one author wrote in a row, isolated: right-to-left letters of a document do not move the policy's words. Tokens
/// are not isolated from each other, because words of Arabic or Hebrew are made of several.
fn stretch(spans: &[TrajectorySpan]) -> String {
    let mut legible = Legible::default();
    format!("<bdi>{}</bdi>", spans.iter().map(|part| span(part, &mut legible)).collect::<String>())
}

fn span(span: &TrajectorySpan, legible: &mut Legible) -> String {
    let class = match span.author {
        Author::Prompt => "prompt",
        Author::Policy => "policy",
        Author::Observation => "observation",
    };
    let trained = if span.trained { " trained" } else { "" };
    let hover = span.logprob.map_or_else(String::new, |logprob| format!(" title=\"log-probability {logprob:.3}\""));
    format!("<span class=\"{class}{trained}\"{hover}>{}</span>", escape_piece(legible, &span.text))
}
