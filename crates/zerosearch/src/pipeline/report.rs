//! `report.html`: the course of a run on one page.

use std::collections::HashMap;
use std::path::Path;

use zerosearch_data::Question;
use zerosearch_eval::Scores;
use zerosearch_grammar::Action;
use zerosearch_metrics::{
    Author, Chart, Line, Report, ReportTrajectory, Row, Table, TrajectorySpan, read_jsonl, series, write_report,
};
use zerosearch_rollout::{Rollout, TurnRecord};
use zerosearch_search::Quality;
use zerosearch_simulator::mentions;
use zerosearch_text::{Codec, IncrementalDecoder};
use zerosearch_train::Sample;
use zerosearch_trajectory::{SampledToken, Segment};

use super::world::GOLD_CHAIN;
use super::{PipelineError, Summary, SummaryScores};

/// A chart: its title, the label of its axis, and its lines, each with the name of its metric.
pub(super) type ChartOf = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The charts of a run. Noise stands beside the reward: a reward that falls as the noise rises is no failure.
pub(super) const CHARTS: [ChartOf; 9] = [
    (
        "Reward beside the noise",
        "F1, probability",
        &[
            ("reward", "critic/score/mean"),
            ("with useful documents only", "critic/score/useful"),
            ("with noisy documents", "critic/score/noisy"),
            ("noise probability", "curriculum/noise_probability"),
        ],
    ),
    ("Validation on the real engine", "mean", &[("EM", "val/em"), ("F1", "val/f1"), ("contains", "val/contains")]),
    ("Searches per rollout", "searches", &[("searches", "env/number_of_valid_search")]),
    ("Response length", "tokens", &[("tokens", "response_length/mean")]),
    ("KL to the base policy", "nats", &[("KL", "actor/kl_loss")]),
    ("Entropy", "nats", &[("entropy", "actor/entropy")]),
    ("Gap between generator and trainer", "nats", &[("gap", "rollout/logprob_gap")]),
    ("Throughput", "sampled tokens per second", &[("tokens/s", "rollout/tokens_per_s")]),
    ("Step", "seconds", &[("rollouts", "timing_s/rollout"), ("whole step", "timing_s/step")]),
];

pub(super) fn write_run_report(
    out: &Path,
    summary: &Summary,
    samples: &[Sample],
    questions: &[Question],
    codec: &Codec,
) -> Result<(), PipelineError> {
    let rows = read_jsonl(out.join("metrics.jsonl"))?;
    let by_text: HashMap<&str, &Question> = questions.iter().map(|it| (it.question.as_str(), it)).collect();
    let shown = |sample: &Sample| trajectory(sample, by_text.get(sample.rollout.question.as_str()).copied(), codec);
    let report = Report {
        title: "ZeroSearch".into(),
        subtitle: format!(
            "{} steps of {}, seed {}, {} calls to the real engine during training",
            summary.steps, summary.algorithm, summary.seed, summary.real_search_calls_during_training
        ),
        tables: vec![scores(summary), simulator(summary)],
        charts: CHARTS.iter().map(|chart| chart_of(&rows, chart)).collect(),
        trajectories: samples.iter().map(shown).collect(),
    };
    Ok(write_report(out.join("report.html"), &report)?)
}

fn chart_of(rows: &[Row], (title, y_label, lines): &ChartOf) -> Chart {
    let lines = lines.iter().map(|(name, metric)| Line { name: (*name).into(), points: series(rows, metric) });
    let lines = lines.filter(|line| !line.points.is_empty()).collect();
    Chart { title: (*title).into(), y_label: (*y_label).into(), lines, ..Chart::default() }
}

fn scores(summary: &Summary) -> Table {
    let row = |name: &str, hops: &str, pick: &dyn Fn(&SummaryScores) -> &Scores, of: &SummaryScores| {
        let s = pick(of);
        let percent = |value: f64| format!("{:.1}", 100.0 * value);
        let interval = format!("{}–{}", percent(s.em_ci95[0]), percent(s.em_ci95[1]));
        vec![
            format!("{name}, {hops}"),
            s.n.to_string(),
            percent(s.em),
            interval,
            percent(s.f1),
            percent(s.contains),
            format!("{:.2}", s.searches_per_question),
        ]
    };
    let policies = [
        ("base, direct", &summary.base_direct),
        ("base, searching", &summary.base_search),
        ("trained, searching", &summary.trained_search),
    ];
    let rows = policies
        .iter()
        .flat_map(|(name, of)| {
            [row(name, "one hop", &|s| &s.single_hop, of), row(name, "several hops", &|s| &s.multi_hop, of)]
        })
        .collect();
    let header = ["held-out questions, real engine", "n", "EM %", "95 % interval", "F1 %", "contains %", "searches"];
    Table { title: "Results".into(), header: header.map(str::to_string).to_vec(), rows }
}

fn simulator(summary: &Summary) -> Table {
    let row = |name: &str, o: &zerosearch_simulator::Obedience| {
        vec![
            name.to_string(),
            format!("{:.1}", 100.0 * o.useful_contains),
            format!("{:.1}", 100.0 * o.noisy_contains),
            o.n.to_string(),
        ]
    };
    let mut rows = vec![
        row("fine-tuned simulator", &summary.simulator),
        row("the same, first attempt only", &summary.simulator_first_attempt),
        row("before fine-tuning, first attempt", &summary.simulator_before_tuning),
    ];
    rows.extend(summary.simulator_prompt_mode.iter().map(|o| row("prompt mode, not fine-tuned", o)));
    Table {
        title: "Does the keyword decide?".into(),
        header: ["share of results with a golden answer", "useful %", "noisy %", "queries"]
            .map(str::to_string)
            .to_vec(),
        rows,
    }
}

/// The episode beside its question's gold chain, where that is known.
fn trajectory(sample: &Sample, question: Option<&Question>, codec: &Codec) -> ReportTrajectory {
    let Sample { rollout, reward, .. } = sample;
    let mut spans = Vec::new();
    for segment in rollout.trajectory.segments() {
        match segment {
            Segment::Prompt(tokens) => spans.push(plain(Author::Prompt, codec.decode(tokens))),
            Segment::Observation(tokens) => spans.push(plain(Author::Observation, codec.decode(tokens))),
            Segment::Policy { tokens, .. } => spans.extend(policy(tokens, codec)),
        }
    }
    let chain = question.and_then(|question| question.extra.get(GOLD_CHAIN)?.as_array()).into_iter().flatten();
    let chain: Vec<String> = chain.filter_map(|step| step.as_str()).map(str::to_string).collect();
    let made = ("the policy".to_string(), rollout.turns.iter().map(|turn| deed(turn, rollout)).collect());
    let gold = (!chain.is_empty()).then(|| ("gold chain".to_string(), chain));
    ReportTrajectory {
        title: rollout.question.clone(),
        facts: vec![
            ("golden answer".into(), rollout.golden_answers.join(" / ")),
            ("reward".into(), format!("{reward:.3}")),
            ("searches".into(), rollout.searches().to_string()),
        ],
        lists: gold.into_iter().chain([made]).collect(),
        spans,
    }
}

/// A turn in a line: the search with its outcome, or the answer.
fn deed(turn: &TurnRecord, rollout: &Rollout) -> String {
    let Some(call) = &turn.call else {
        return match &turn.action {
            Action::Answer(answer) => format!("answer: {answer}"),
            Action::Invalid(_) => "neither a search nor an answer".into(),
            Action::Call { input, .. } => format!("{input} (after the last turn: not executed)"),
        };
    };
    let outcome = match &call.failure {
        Some(failure) => format!("failed: {failure}"),
        None if call.documents.iter().any(|text| mentions(text, &rollout.golden_answers)) => "answer in sight".into(),
        None => "answer not in sight".into(),
    };
    let told = match call.quality {
        Some(Quality::Noisy) => "noisy, ",
        _ => "",
    };
    format!("{} ({told}{outcome})", call.input)
}

/// A span for each token. A character of several tokens stands in the last of them.
fn policy(tokens: &[SampledToken], codec: &Codec) -> Vec<TrajectorySpan> {
    let mut decoder = IncrementalDecoder::new(codec);
    let span = |token: &SampledToken| TrajectorySpan {
        text: decoder.push(token.id),
        author: Author::Policy,
        trained: true,
        logprob: Some(token.logprob),
    };
    let mut spans: Vec<_> = tokens.iter().map(span).collect();
    if let Some(last) = spans.last_mut() {
        last.text += &decoder.finish();
    }
    spans
}

fn plain(author: Author, text: String) -> TrajectorySpan {
    TrajectorySpan { text, author, trained: false, logprob: None }
}

#[cfg(test)]
mod tests {
    use zerosearch_text::{SpecialTokens, train_bpe};

    use super::*;

    #[test]
    fn characters_of_several_tokens_are_legible() {
        let codec = train_bpe(["a".to_string()].into_iter(), 256, &[], &SpecialTokens::default()).unwrap();
        let tokens: Vec<_> = codec.encode("é東").into_iter().map(|id| SampledToken::new(id, -0.5)).collect();
        let texts = |tokens| policy(tokens, &codec).into_iter().map(|span| span.text).collect::<Vec<_>>();
        assert_eq!(texts(&tokens), ["", "é", "", "", "東"]);
        assert_eq!(texts(&tokens[..4]), ["", "é", "", "\u{fffd}"], "cut within a character");
    }
}
