//! Figures over many predictions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zerosearch_metrics::Metrics;

use crate::Prediction;

/// The group of predictions whose question does not say its hops or its data source.
pub const UNKNOWN: &str = "unknown";

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Means over a group of predictions. All shares are fractions from 0 to 1; without predictions they are 0 and say nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of predictions.
    pub n: usize,
    /// Share that equals a golden answer, both normalised.
    pub em: f64,
    /// Mean over the questions of the best F1 with any of its golden answers.
    pub f1: f64,
    /// Share that contains a golden answer.
    pub contains: f64,
    /// The 95 % interval of `em`, see [`wilson_interval`].
    pub em_ci95: [f64; 2],
    /// Mean number of executed searches.
    pub searches_per_question: f64,
    /// Number of searches that the engine could not answer.
    pub search_failures: usize,
}

impl Scores {
    /// Sums up a group of predictions.
    pub fn of<'a>(predictions: impl IntoIterator<Item = &'a Prediction>) -> Self {
        let (mut n, mut right, mut f1, mut contains, mut searches, mut search_failures) = (0, 0, 0.0, 0, 0, 0);
        for prediction in predictions {
            n += 1;
            right += usize::from(prediction.em);
            f1 += prediction.f1;
            contains += usize::from(prediction.contains);
            searches += prediction.searches;
            search_failures += prediction.search_failures;
        }
        let mean = |sum: f64| if n == 0 { 0.0 } else { sum / n as f64 };
        Self {
            n,
            em: mean(right as f64),
            f1: mean(f1),
            contains: mean(contains as f64),
            em_ci95: wilson_interval(right, n),
            searches_per_question: mean(searches as f64),
            search_failures,
        }
    }
}

/// The Wilson score interval at 95 % of a share, `right` of `n`: the shares `p` that a test with the
/// normal approximation at `p` itself would not reject (E. B. Wilson, 1927). Unlike `p ± 1.96 σ` it
/// stays within 0 and 1 and has a width even where every answer or none is right. `[0, 1]` for `n = 0`.
///
/// `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)` with `p = right/n`, `z = 1.96`.
pub fn wilson_interval(right: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let n = n as f64;
    let p = right as f64 / n;
    let z2 = Z * Z;
    let centre = p + z2 / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

/// The same figures for all predictions and for groups of them.
///
/// In JSON the figures of all predictions stand at the top as well, for a reader of one figure:
/// `{n, em, f1, …, overall: {n, em, …}, by_hops: {"1": {n, em, …}, …}, …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "ScoresFile")]
pub struct GroupedScores {
    /// All predictions.
    #[serde(flatten)]
    pub overall: Scores,
    /// Questions of exactly one hop.
    pub single_hop: Scores,
    /// Questions of two hops or more.
    pub multi_hop: Scores,
    /// By the exact number of hops; [`UNKNOWN`] where a question does not say, which is in neither group above.
    pub by_hops: BTreeMap<String, Scores>,
    /// By data source; [`UNKNOWN`] where a question does not say.
    pub by_data_source: BTreeMap<String, Scores>,
    /// Means over the data sources, each counted once whatever its size.
    pub macro_average: MacroAverage,
}

/// The scores as they are written.
#[derive(Serialize)]
struct ScoresFile {
    #[serde(flatten)]
    top: Scores,
    overall: Scores,
    single_hop: Scores,
    multi_hop: Scores,
    by_hops: BTreeMap<String, Scores>,
    by_data_source: BTreeMap<String, Scores>,
    macro_average: MacroAverage,
}

impl From<GroupedScores> for ScoresFile {
    fn from(scores: GroupedScores) -> Self {
        let GroupedScores { overall, single_hop, multi_hop, by_hops, by_data_source, macro_average } = scores;
        let top = overall.clone();
        Self { top, overall, single_hop, multi_hop, by_hops, by_data_source, macro_average }
    }
}

/// Unweighted means over data sources.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MacroAverage {
    /// Number of data sources.
    pub data_sources: usize,
    /// Mean of their `em`.
    pub em: f64,
    /// Mean of their `f1`.
    pub f1: f64,
    /// Mean of their `contains`.
    pub contains: f64,
}

impl GroupedScores {
    /// Sums up predictions, all of them and by group.
    pub fn of(predictions: &[Prediction]) -> Self {
        let hops = |range: std::ops::RangeFrom<usize>| {
            predictions.iter().filter(move |prediction| prediction.hops.is_some_and(|hops| range.contains(&hops)))
        };
        let by_data_source = by(predictions, |prediction| prediction.data_source.clone());
        Self {
            overall: Scores::of(predictions),
            single_hop: Scores::of(predictions.iter().filter(|prediction| prediction.hops == Some(1))),
            multi_hop: Scores::of(hops(2..)),
            by_hops: by(predictions, |prediction| prediction.hops.map(|hops| hops.to_string())),
            macro_average: MacroAverage::of(&by_data_source),
            by_data_source,
        }
    }

    /// The figures as `val/{em,f1,contains}/<data_source>`, for metrics during training.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        for (data_source, scores) in &self.by_data_source {
            metrics.insert(format!("val/em/{data_source}"), scores.em);
            metrics.insert(format!("val/f1/{data_source}"), scores.f1);
            metrics.insert(format!("val/contains/{data_source}"), scores.contains);
        }
        metrics
    }
}

fn by(predictions: &[Prediction], key: impl Fn(&Prediction) -> Option<String>) -> BTreeMap<String, Scores> {
    let mut groups: BTreeMap<String, Vec<&Prediction>> = BTreeMap::new();
    for prediction in predictions {
        groups.entry(key(prediction).unwrap_or_else(|| UNKNOWN.to_owned())).or_default().push(prediction);
    }
    groups.into_iter().map(|(key, group)| (key, Scores::of(group))).collect()
}

impl MacroAverage {
    fn of(by_data_source: &BTreeMap<String, Scores>) -> Self {
        let data_sources = by_data_source.len();
        let mean = |figure: fn(&Scores) -> f64| {
            if data_sources == 0 { 0.0 } else { by_data_source.values().map(figure).sum::<f64>() / data_sources as f64 }
        };
        Self {
            data_sources,
            em: mean(|scores| scores.em),
            f1: mean(|scores| scores.f1),
            contains: mean(|scores| scores.contains),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(em: bool, f1: f64, hops: Option<usize>, data_source: Option<&str>) -> Prediction {
        let data_source = data_source.map(str::to_owned);
        Prediction { em, f1, contains: em, searches: 2, search_failures: 1, hops, data_source, ..Prediction::default() }
    }

    #[test]
    fn wilson_has_the_published_values() {
        // As `statsmodels.stats.proportion.proportion_confint(right, n, method="wilson")` gives them.
        for (right, n, expected) in [
            (8, 10, [0.490_162_471_536_641_5, 0.943_317_848_545_624_7]),
            (0, 10, [0.0, 0.277_532_799_862_889_2]),
            (10, 10, [0.722_467_200_137_110_7, 1.0]),
            (1, 1, [0.206_549_314_377_239_67, 1.0]),
        ] {
            let interval = wilson_interval(right, n);
            for (value, expected) in interval.into_iter().zip(expected) {
                assert!((value - expected).abs() < 1e-9, "{right}/{n}: {interval:?}");
            }
        }
        assert_eq!(wilson_interval(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn groups_partition_the_predictions() {
        let predictions = [
            prediction(true, 1.0, Some(1), Some("nq")),
            prediction(false, 0.5, Some(2), Some("musique")),
            prediction(true, 1.0, Some(3), Some("musique")),
            prediction(false, 0.0, None, None),
            prediction(false, 0.0, Some(2), Some("musique")),
        ];
        let scores = GroupedScores::of(&predictions);
        assert_eq!((scores.overall.n, scores.overall.em, scores.overall.f1), (5, 0.4, 0.5));
        assert_eq!((scores.overall.searches_per_question, scores.overall.search_failures), (2.0, 5));
        assert_eq!((scores.single_hop.n, scores.single_hop.em), (1, 1.0));
        assert_eq!((scores.multi_hop.n, scores.multi_hop.f1), (3, 0.5));
        let hops: Vec<_> = scores.by_hops.iter().map(|(hops, scores)| (hops.as_str(), scores.n)).collect();
        assert_eq!(hops, [("1", 1), ("2", 2), ("3", 1), (UNKNOWN, 1)]);
        // Not 2/5: each source counts once.
        assert_eq!(scores.macro_average.data_sources, 3);
        assert!((scores.macro_average.em - (1.0 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(scores.metrics().get("val/f1/musique"), Some(0.5));
    }

    #[test]
    fn json_has_the_overall_figures_at_the_top_and_as_a_group() {
        let scores = GroupedScores::of(&[prediction(true, 1.0, Some(1), None)]);
        let json = serde_json::to_value(&scores).unwrap();
        assert_eq!(json["overall"], serde_json::to_value(&scores.overall).unwrap());
        assert_eq!(serde_json::from_value::<GroupedScores>(json.clone()).unwrap(), scores);
        assert_eq!(json["n"], 1);
        assert_eq!(json["em"], 1.0);
        assert_eq!(json["by_hops"]["1"]["n"], 1);
        assert_eq!(json["multi_hop"]["n"], 0);
        assert_eq!(json["multi_hop"]["em_ci95"], serde_json::json!([0.0, 1.0]));
    }
}
