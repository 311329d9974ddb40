//! The figures of a comparison: `gap.json`, and the same for a reader.

use std::fmt;

use serde::{Deserialize, Serialize};
use zerosearch_eval::Estimate;

/// Contents of `gap.json`. Every interval is one of 95 % over questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapReport {
    /// The seed of all sampling.
    pub seed: u64,
    /// The name of the reward.
    pub reward: String,
    /// Questions that were asked.
    pub questions: usize,
    /// Queries of the policy to the real engine, which were then put to the simulator.
    pub queries: usize,
    /// The policy's episodes with the real engine.
    pub real: EpisodeFigures,
    /// Its episodes with the simulator, at each noise level.
    pub levels: Vec<NoiseLevel>,
    /// The documents of both engines for the same queries.
    pub documents: DocumentsReport,
    /// The share of noisy documents at which the simulator's results would contain a golden answer as often as the real engine's:
    /// `(useful − real) / (useful − noisy)`. Outside 0 to 1 no level does; `None` where the keyword changes nothing.
    pub matching_noise: Option<f64>,
}

/// Figures of a policy's episodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeFigures {
    /// Mean reward.
    pub reward: Estimate,
    /// Mean number of searches in an episode.
    pub searches: Estimate,
    /// Share of the episodes that searched at all.
    pub searched: Estimate,
    /// Share of the searches with a golden answer in a document.
    pub contains: Estimate,
    /// Searches that the engine could not answer.
    pub search_failures: usize,
}

/// The simulator at one noise level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseLevel {
    /// Share of noisy documents.
    pub noise: f64,
    /// The episodes.
    pub episodes: EpisodeFigures,
    /// Reward less that of the same question with the real engine.
    pub reward_gap: Estimate,
}

/// The documents for the same queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentsReport {
    /// The real engine's. Their `style_distance` is that between one half of the questions and the other: where a perfect simulator
    /// would be.
    pub real: DocumentGap,
    /// The simulator's with the keyword useful.
    pub useful: DocumentGap,
    /// The simulator's with the keyword noisy.
    pub noisy: DocumentGap,
}

/// Figures of one engine's documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentGap {
    /// Share of the results in which a document mentions a golden answer.
    pub contains: Estimate,
    /// Documents in a result.
    pub documents_per_result: Estimate,
    /// Words in all documents of a result.
    pub words_per_result: Estimate,
    /// Different words as a share of the words, each engine's cut to as many: see
    /// [`DocumentStatistics`](zerosearch_simulator::DocumentStatistics).
    pub distinct_1: f64,
    /// Different pairs of adjacent words, likewise.
    pub distinct_2: f64,
    /// The [`style_distance`](fn@zerosearch_simulator::style_distance) to the real engine's documents for the same queries.
    pub style_distance: Estimate,
    /// How well the surface tells these documents from the real engine's, 0.5 being chance: see
    /// [`surface_auc`](fn@zerosearch_simulator::surface_auc).
    pub surface_auc: Option<f64>,
}

impl GapReport {
    pub(super) fn new(
        seed: u64,
        reward: &str,
        questions: usize,
        queries: usize,
        real: EpisodeFigures,
        levels: Vec<NoiseLevel>,
        documents: DocumentsReport,
    ) -> Self {
        let contains = |of: &DocumentGap| of.contains.mean;
        let range = contains(&documents.useful) - contains(&documents.noisy);
        let matching = (contains(&documents.useful) - contains(&documents.real)) / range;
        let matching_noise = matching.is_finite().then_some(matching);
        Self { seed, reward: reward.into(), questions, queries, real, levels, documents, matching_noise }
    }

    /// The rows of the first table: the engine's name and its figures.
    pub(super) fn episode_rows(&self) -> Vec<(String, &EpisodeFigures, Option<&Estimate>)> {
        let level = |level: &'_ NoiseLevel| format!("simulator, {:.0} % noisy", 100.0 * level.noise);
        let levels = self.levels.iter().map(|it| (level(it), &it.episodes, Some(&it.reward_gap)));
        std::iter::once(("real engine".to_string(), &self.real, None)).chain(levels).collect()
    }

    /// The rows of the second table.
    pub(super) fn document_rows(&self) -> [(&'static str, &DocumentGap); 3] {
        let DocumentsReport { real, useful, noisy } = &self.documents;
        [("real engine", real), ("simulator, useful", useful), ("simulator, noisy", noisy)]
    }

    /// The matching noise level, in words.
    pub(super) fn matching(&self) -> String {
        match self.matching_noise {
            Some(share) if (0.0..=1.0).contains(&share) => {
                format!(
                    "as many results with a golden answer as the real engine at {:.0} % noisy documents",
                    100.0 * share
                )
            }
            Some(share) if share < 0.0 => {
                "fewer results with a golden answer than the real engine at every noise level".into()
            }
            Some(_) => "more results with a golden answer than the real engine at every noise level".into(),
            None => "the keyword changes nothing".into(),
        }
    }
}

/// A figure with its interval, each times `scale`.
pub(super) fn shown(estimate: &Estimate, scale: f64, decimals: usize) -> String {
    let Estimate { mean, ci95: [low, high] } = estimate;
    let text = |value: &f64| format!("{:.decimals$}", scale * value);
    format!("{} ({}–{})", text(mean), text(low), text(high))
}

/// As [`shown`], for figures that may be negative.
pub(super) fn shown_difference(estimate: &Estimate) -> String {
    let Estimate { mean, ci95: [low, high] } = estimate;
    format!("{mean:+.3} ({low:+.3} to {high:+.3})")
}

impl fmt::Display for GapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { questions, queries, reward, .. } = self;
        writeln!(f, "{questions} questions; mean (95 % interval)")?;
        writeln!(
            f,
            "{:24} {:>22} {:>26} {:>20} {:>22}",
            "",
            format!("reward ({reward})"),
            "less the real engine's",
            "searches",
            "with an answer, %"
        )?;
        for (name, figures, gap) in self.episode_rows() {
            writeln!(
                f,
                "{name:24} {:>22} {:>26} {:>20} {:>22}",
                shown(&figures.reward, 1.0, 3),
                gap.map_or("–".into(), shown_difference),
                shown(&figures.searches, 1.0, 2),
                shown(&figures.contains, 100.0, 1)
            )?;
        }
        writeln!(f, "\nthe same {queries} queries to both")?;
        writeln!(
            f,
            "{:24} {:>22} {:>18} {:>20} {:>11} {:>20} {:>5}",
            "", "with an answer, %", "documents", "words", "distinct-2", "style distance", "AUC"
        )?;
        for (name, figures) in self.document_rows() {
            writeln!(
                f,
                "{name:24} {:>22} {:>18} {:>20} {:>11.3} {:>20} {:>5}",
                shown(&figures.contains, 100.0, 1),
                shown(&figures.documents_per_result, 1.0, 2),
                shown(&figures.words_per_result, 1.0, 1),
                figures.distinct_2,
                shown(&figures.style_distance, 1.0, 3),
                figures.surface_auc.map_or("–".into(), |auc| format!("{auc:.2}"))
            )?;
        }
        write!(f, "the simulator gives {}", self.matching())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(real: f64, useful: f64, noisy: f64) -> GapReport {
        let estimate = |mean| Estimate { mean, ci95: [mean; 2] };
        let episodes = EpisodeFigures {
            reward: estimate(0.5),
            searches: estimate(1.5),
            searched: estimate(1.0),
            contains: estimate(real),
            search_failures: 0,
        };
        let documents = |contains| DocumentGap {
            contains: estimate(contains),
            documents_per_result: estimate(3.0),
            words_per_result: estimate(90.0),
            distinct_1: 0.2,
            distinct_2: 0.4,
            style_distance: estimate(0.1),
            surface_auc: None,
        };
        let level = NoiseLevel { noise: 0.5, episodes, reward_gap: estimate(-0.25) };
        let documents = DocumentsReport { real: documents(real), useful: documents(useful), noisy: documents(noisy) };
        GapReport::new(0, "f1", 10, 15, episodes, vec![level], documents)
    }

    #[test]
    fn the_matching_noise_lies_where_both_contain_as_many_answers() {
        for (real, useful, noisy, share, words) in [
            (0.5, 0.9, 0.1, Some(0.5), "at 50 % noisy documents"),
            (0.95, 0.9, 0.1, Some(-0.0625), "fewer results"),
            (0.05, 0.9, 0.1, Some(1.0625), "more results"),
            (0.5, 0.5, 0.5, None, "changes nothing"),
        ] {
            let report = report(real, useful, noisy);
            let same = match (report.matching_noise, share) {
                (Some(found), Some(share)) => (found - share).abs() < 1e-9,
                (found, share) => found == share,
            };
            assert!(same && report.to_string().contains(words), "{report:?}");
        }
        let shown = report(0.5, 0.9, 0.1).to_string();
        assert!(shown.contains("simulator, 50 % noisy") && shown.contains("-0.250 (-0.250 to -0.250)"), "{shown}");
    }
}
