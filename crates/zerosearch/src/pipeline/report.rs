//! `report.html`: the course of a run on one page.

use std::path::Path;

use zerosearch_metrics::{
    Author, Chart, Report, ReportTrajectory, Table, TrajectorySpan, read_jsonl, series, write_report,
};
use zerosearch_rollout::Rollout;
use zerosearch_text::{Codec, IncrementalDecoder};
use zerosearch_train::Sample;
use zerosearch_trajectory::{SampledToken, Segment};

use super::{PipelineError, Summary, SummaryScores};

const CHARTS: [(&str, &str, &str); 8] = [
    ("Reward", "F1", "critic/score/mean"),
    ("Noise probability", "probability", "curriculum/noise_probability"),
    ("Searches per rollout", "searches", "env/number_of_valid_search"),
    ("Response length", "tokens", "response_length/mean"),
    ("KL to the base policy", "nats", "actor/kl_loss"),
    ("Entropy", "nats", "actor/entropy"),
    ("Gap between generator and trainer", "nats", "rollout/logprob_gap"),
    ("Throughput", "sampled tokens per second", "rollout/tokens_per_s"),
];

pub(super) fn write_run_report(
    out: &Path,
    summary: &Summary,
    samples: &[Sample],
    codec: &Codec,
) -> Result<(), PipelineError> {
    let rows = read_jsonl(out.join("metrics.jsonl"))?;
    let charts = CHARTS.iter().map(|(title, label, name)| Chart::single(title, label, series(&rows, name))).collect();
    let report = Report {
        title: "ZeroSearch".into(),
        subtitle: format!(
            "{} steps of {}, seed {}, {} calls to the real engine during training",
            summary.steps, summary.algorithm, summary.seed, summary.real_search_calls_during_training
        ),
        tables: vec![scores(summary), simulator(summary)],
        charts,
        trajectories: samples.iter().map(|sample| trajectory(&sample.rollout, sample.reward, codec)).collect(),
    };
    Ok(write_report(out.join("report.html"), &report)?)
}

fn scores(summary: &Summary) -> Table {
    let row =
        |name: &str, hops: &str, pick: &dyn Fn(&SummaryScores) -> &zerosearch_eval::Scores, of: &SummaryScores| {
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

fn trajectory(rollout: &Rollout, reward: f32, codec: &Codec) -> ReportTrajectory {
    let mut spans = Vec::new();
    for segment in rollout.trajectory.segments() {
        match segment {
            Segment::Prompt(tokens) => spans.push(plain(Author::Prompt, codec.decode(tokens))),
            Segment::Observation(tokens) => spans.push(plain(Author::Observation, codec.decode(tokens))),
            Segment::Policy { tokens, .. } => spans.extend(policy(tokens, codec)),
        }
    }
    ReportTrajectory {
        title: rollout.question.clone(),
        facts: vec![
            ("golden answer".into(), rollout.golden_answers.join(" / ")),
            ("reward".into(), format!("{reward:.3}")),
            ("searches".into(), rollout.searches().to_string()),
        ],
        spans,
    }
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
