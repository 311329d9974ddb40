//! One aligned line a step, for a person.

use crate::{Metrics, MetricsError, Sink, say};

/// Prints chosen figures of each step as one aligned line: `step   12  reward  0.4125  noise  0.2500`.
pub struct ConsoleSink {
    columns: Vec<(String, String)>,
    print: Box<dyn FnMut(&str) + Send>,
}

impl ConsoleSink {
    /// Prints to stdout. A column is what it is called on the line, and the metric's name.
    pub fn stdout(columns: &[(&str, &str)]) -> Self {
        Self::new(columns, |line| say(line))
    }

    /// Hands each line to `print`, for example to [`ProgressBar::print`](crate::ProgressBar::print).
    pub fn new(columns: &[(&str, &str)], print: impl FnMut(&str) + Send + 'static) -> Self {
        let columns = columns.iter().map(|(label, name)| ((*label).to_owned(), (*name).to_owned())).collect();
        Self { columns, print: Box::new(print) }
    }
}

impl Sink for ConsoleSink {
    fn log(&mut self, step: u64, metrics: &Metrics) -> Result<(), MetricsError> {
        let mut line = format!("step {step:>5}");
        for (label, name) in &self.columns {
            let value = metrics.get(name).map_or_else(|| "-".to_owned(), short);
            line.push_str(&format!("  {label} {value:>9}"));
        }
        (self.print)(&line);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MetricsError> {
        Ok(())
    }
}

/// At most nine characters, four significant digits or more.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        value.to_string()
    } else if (1e-3..1e5).contains(&size) {
        let decimals = if size < 10.0 { 4 } else { 1 };
        format!("{value:.decimals$}")
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lines_align_whatever_the_figures_are() {
        let (sender, lines) = mpsc::channel();
        let columns = [("reward", "critic/rewards/mean"), ("lr", "actor/lr")];
        let mut sink = ConsoleSink::new(&columns, move |line| sender.send(line.to_owned()).unwrap());
        let rows = [[0.41254, 1e-6], [-0.5, f64::NAN], [12345.6, 0.0], [-123_456.0, f64::NEG_INFINITY]];
        for (step, [reward, lr]) in rows.into_iter().enumerate() {
            sink.log(step as u64, &[("critic/rewards/mean", reward), ("actor/lr", lr)].into_iter().collect()).unwrap();
        }
        sink.log(203, &Metrics::new()).unwrap();
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines[0], "step     0  reward    0.4125  lr   1.00e-6");
        assert_eq!(lines[4], "step   203  reward         -  lr         -");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{lines:#?}");
    }
}
