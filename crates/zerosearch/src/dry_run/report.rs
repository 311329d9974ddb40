//! A dry run as people read it.

use std::fmt::{self, Display, Formatter};

use super::{DryRun, Estimate, Memory, ModelSize, Part, Tokens};

impl Display for DryRun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        model(f, "policy", &self.policy)?;
        if self.trained_parameters != self.policy.parameters {
            writeln!(f, "adapters    {} parameters", count(self.trained_parameters as f64))?;
        }
        if let Some(simulator) = &self.simulator {
            model(f, "simulator", simulator)?;
        }
        let elsewhere = if self.device_is_here { "" } else { ", not on this machine: sized from its name alone" };
        writeln!(f, "device      {}{elsewhere}", self.device)?;
        self.memory(f)?;
        self.tokens(f)?;
        match &self.estimate {
            Some(estimate) => time(f, estimate)?,
            None => writeln!(
                f,
                "\ntime and cost: no rates. Take a few steps (--set train.steps=3 out=runs/measure), then give their folder: \
                 --rates runs/measure; or fill in [rates]"
            )?,
        }
        for line in &self.missing {
            writeln!(f, "missing here: {line}")?;
        }
        Ok(())
    }
}

impl DryRun {
    fn memory(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        self.memory.table(f)?;
        let Memory { peak_bytes, peak_during, activations_kept, activations_checkpointed, .. } = &self.memory;
        write!(f, "peak {} {}", size(*peak_bytes), during(peak_during))?;
        match self.memory_gib {
            Some(gib) if self.fits().is_ok() => writeln!(f, ", which fits into {gib} GiB")?,
            Some(gib) => writeln!(f, ", which does NOT fit into {gib} GiB")?,
            None => writeln!(f, "; [dry_run] memory_gib says what there is")?,
        }
        writeln!(
            f,
            "activations of a micro batch: {}, with gradient checkpointing {}",
            size(*activations_kept),
            size(*activations_checkpointed)
        )
    }

    fn tokens(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:42} {:>12} {:>12}", "", "a step", format!("{} steps", self.steps))?;
        usage(f, "at most", &self.at_most)?;
        if let Some(expected) = &self.expected {
            usage(f, "expected", expected)?;
        }
        let prompt = &self.lengths.prompt;
        writeln!(
            f,
            "a rollout is at most {} tokens: prompt {} ({}), policy {}, {} searches",
            self.lengths.tokens, prompt.tokens, prompt.counted, self.lengths.policy_tokens, self.lengths.searches
        )
    }
}

impl Memory {
    /// The parts by the time at which they are held, and their sums.
    pub(super) fn table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:42} {:>12} {:>12} {:>12}", "memory, at most", "rollouts", "update", "step")?;
        let mut row = |name: &str, [rollouts, update, step]: [u64; 3]| {
            let of = |bytes: u64| if bytes == 0 { "–".to_string() } else { size(bytes) };
            writeln!(f, "{name:42} {:>12} {:>12} {:>12}", of(rollouts), of(update), of(step))
        };
        let mut sums = [0; 3];
        for part in &self.parts {
            let bytes = [part.rollouts, part.update, part.step];
            sums.iter_mut().zip(bytes).for_each(|(sum, bytes)| *sum += bytes);
            row(&part.name, bytes)?;
        }
        row("sum", sums)
    }
}

fn model(f: &mut Formatter<'_>, role: &str, model: &ModelSize) -> fmt::Result {
    let (folder, parameters, stored) =
        (model.folder.display(), count(model.parameters as f64), size(model.stored_bytes));
    write!(f, "{role:11} {folder}: {parameters} parameters, {stored} as stored")?;
    match model.config_json.parent() == Some(&model.folder) {
        true => writeln!(f),
        false => writeln!(f, "; sizes from {}", model.config_json.display()),
    }
}

fn usage(f: &mut Formatter<'_>, how: &str, Tokens { step, run }: &Tokens) -> fmt::Result {
    let rows = [
        ("rollouts", step.rollouts, run.rollouts),
        ("tokens of the policy", step.policy_tokens, run.policy_tokens),
        ("tokens through updates", step.trained_tokens, run.trained_tokens),
        ("searches", step.searches, run.searches),
        ("tokens of the simulator", step.simulator_tokens, run.simulator_tokens),
    ];
    for (name, step, run) in rows.into_iter().filter(|(_, step, _)| *step > 0.0) {
        writeln!(f, "{:42} {:>12} {:>12}", format!("{name}, {how}"), count(step), count(run))?;
    }
    Ok(())
}

fn time(f: &mut Formatter<'_>, estimate: &Estimate) -> fmt::Result {
    let Estimate { rollouts_s, update_s, hours, devices_cost, searches_cost, currency, source, .. } = estimate;
    let how = if estimate.is_expected { "expected" } else { "at most" };
    writeln!(f, "\ntime and cost, {how}, by the rates of {}", if source.is_empty() { "[rates]" } else { source })?;
    let mut row = |name: &str, figure: Option<f64>, unit: &str| match figure {
        Some(figure) => writeln!(f, "{name:42} {figure:>12.2} {unit}"),
        None => writeln!(f, "{name:42} {:>12}", "no rate"),
    };
    row("rollouts of a step", *rollouts_s, "s")?;
    row("update of a step", *update_s, "s")?;
    row("run, without validations", *hours, "h")?;
    row("devices", *devices_cost, currency)?;
    row("searches", *searches_cost, currency)
}

/// The two or three largest of some parts at a time.
pub(super) fn largest<'p>(parts: impl Iterator<Item = &'p Part>, time: &str) -> String {
    let at = |part: &Part| match time {
        "rollouts" => part.rollouts,
        "update" => part.update,
        _ => part.step,
    };
    let mut parts: Vec<(u64, &str)> = parts.map(|part| (at(part), part.name.as_str())).collect();
    parts.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    parts.iter().take(3).map(|(bytes, name)| format!("{name} {}", size(*bytes))).collect::<Vec<_>>().join("; ")
}

pub(super) fn during(time: &str) -> &'static str {
    match time {
        "rollouts" => "while rollouts are collected",
        "update" => "during the update",
        _ => "during the optimizer's step",
    }
}

pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", gib(bytes)),
    }
}

/// A count in three or four digits.
fn count(value: f64) -> String {
    match value {
        1e9.. => format!("{:.2} G", value / 1e9),
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}
