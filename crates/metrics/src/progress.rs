//! How far a long stage is, for a person at a terminal or a log file.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar as Terminal, ProgressStyle};

use crate::{legible_line, say};

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// Progress of a long stage on stderr, with rate and remaining time: a bar on a terminal, otherwise
/// plain lines, at most one every five seconds and a last one.
///
/// Clones show the same stage. Nothing is ever read back from it, so results cannot depend on it.
///
/// ```
/// use zerosearch_metrics::ProgressBar;
///
/// let progress = ProgressBar::new("collect", 3);
/// for _ in 0..3 {
///     progress.advance(1);
/// }
/// progress.finish();
/// ```
#[derive(Clone)]
pub struct ProgressBar {
    output: Output,
}

#[derive(Clone)]
enum Output {
    Bar(Terminal),
    Plain(Arc<Mutex<Plain>>),
    Hidden,
}

impl ProgressBar {
    /// A stage of `total` units of work, none done.
    pub fn new(label: &str, total: u64) -> Self {
        Self::resumed(label, total, 0)
    }

    /// A stage of which `done` units were done by an earlier process; they do not count for the rate.
    pub fn resumed(label: &str, total: u64, done: u64) -> Self {
        let label = legible_line(label);
        if std::io::stderr().is_terminal() {
            let bar = Terminal::new(total).with_style(style()).with_prefix(label).with_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(250));
            return Self { output: Output::Bar(bar) };
        }
        Self { output: Output::Plain(Arc::new(Mutex::new(Plain::new(&label, total, done, Instant::now())))) }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { output: Output::Hidden }
    }

    /// Counts `units` more as done.
    pub fn advance(&self, units: u64) {
        match &self.output {
            Output::Bar(bar) => bar.inc(units),
            Output::Plain(plain) => {
                // A count is whole whatever a panicking thread did, so a poisoned lock is no reason to stop.
                let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
                report(plain.advance(units, Instant::now()));
            }
            Output::Hidden => {}
        }
    }

    /// Shows a few words behind the figures, such as the latest reward.
    pub fn note(&self, text: &str) {
        let text = legible_line(text);
        match &self.output {
            Output::Bar(bar) => bar.set_message(text),
            Output::Plain(plain) => plain.lock().unwrap_or_else(PoisonError::into_inner).note = text,
            Output::Hidden => {}
        }
    }

    /// Prints a line to stdout without tearing the bar.
    pub fn print(&self, line: &str) {
        match &self.output {
            Output::Bar(bar) => bar.suspend(|| say(line)),
            Output::Plain(_) | Output::Hidden => say(line),
        }
    }

    /// Ends the stage, leaving its last state in view.
    pub fn finish(&self) {
        match &self.output {
            Output::Bar(bar) => bar.abandon(),
            Output::Plain(plain) => {
                let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
                report(plain.finish(Instant::now()));
            }
            Output::Hidden => {}
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>12} {bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}")
        // The template is a constant, and the default bar is no reason to fail.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

fn report(line: Option<String>) {
    if let Some(line) = line {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Decides when a plain line is due. Time comes from outside, so that a test needs none.
struct Plain {
    label: String,
    note: String,
    total: u64,
    before: u64,
    done: u64,
    started: Instant,
    reported: Instant,
    /// The count of the last line, so that the end is not printed twice.
    told: Option<u64>,
}

impl Plain {
    fn new(label: &str, total: u64, done: u64, now: Instant) -> Self {
        Self {
            label: label.to_owned(),
            note: String::new(),
            total,
            before: done,
            done,
            started: now,
            reported: now,
            told: None,
        }
    }

    fn advance(&mut self, units: u64, now: Instant) -> Option<String> {
        self.done += units;
        (now.duration_since(self.reported) >= INTERVAL).then(|| self.line(now))
    }

    fn finish(&mut self, now: Instant) -> Option<String> {
        (self.told != Some(self.done)).then(|| self.line(now))
    }

    fn line(&mut self, now: Instant) -> String {
        self.reported = now;
        self.told = Some(self.done);
        let seconds = now.duration_since(self.started).as_secs_f64();
        let rate = if seconds > 0.0 { (self.done - self.before) as f64 / seconds } else { 0.0 };
        let left = self.total.saturating_sub(self.done);
        let rest = match left {
            0 => format!("took {}", clock(seconds)),
            _ if rate > 0.0 => format!("{} left", clock(left as f64 / rate)),
            _ => "? left".to_owned(),
        };
        let percent = if self.total == 0 { 100.0 } else { 100.0 * self.done as f64 / self.total as f64 };
        let note = if self.note.is_empty() { String::new() } else { format!(", {}", self.note) };
        format!("{}: {}/{} ({percent:.0} %), {rate:.1}/s, {rest}{note}", self.label, self.done, self.total)
    }
}

/// `1:02:03`, or `2:03` below an hour.
fn clock(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_every_five_seconds_and_once_at_the_end() {
        let start = Instant::now();
        let mut plain = Plain::new("collect", 100, 0, start);
        let mut lines = Vec::new();
        for second in 1..=20 {
            lines.extend(plain.advance(5, start + Duration::from_secs(second)));
        }
        lines.extend(plain.finish(start + Duration::from_secs(20)));
        assert_eq!(
            lines,
            [
                "collect: 25/100 (25 %), 5.0/s, 0:15 left",
                "collect: 50/100 (50 %), 5.0/s, 0:10 left",
                "collect: 75/100 (75 %), 5.0/s, 0:05 left",
                "collect: 100/100 (100 %), 5.0/s, took 0:20",
            ]
        );
    }

    #[test]
    fn a_short_or_cut_stage_still_has_its_last_line() {
        let start = Instant::now();
        let mut plain = Plain::new("train", 10, 0, start);
        assert_eq!(plain.advance(4, start + Duration::from_secs(2)), None);
        plain.note = "reward 0.31".into();
        let line = plain.finish(start + Duration::from_secs(2));
        assert_eq!(line.as_deref(), Some("train: 4/10 (40 %), 2.0/s, 0:03 left, reward 0.31"));
    }

    #[test]
    fn work_of_an_earlier_process_does_not_count_for_the_rate() {
        let start = Instant::now();
        let mut plain = Plain::new("train", 100, 50, start);
        let line = plain.advance(10, start + Duration::from_secs(5));
        assert_eq!(line.as_deref(), Some("train: 60/100 (60 %), 2.0/s, 0:20 left"));
    }

    #[test]
    fn nothing_to_do_is_no_division_by_zero() {
        let start = Instant::now();
        assert_eq!(
            Plain::new("empty", 0, 0, start).finish(start).as_deref(),
            Some("empty: 0/0 (100 %), 0.0/s, took 0:00")
        );
        assert_eq!(clock(3723.0), "1:02:03");
    }
}
