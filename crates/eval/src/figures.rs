//! Figures with intervals over questions, for one answer or several samples of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::{bootstrap, pass_at_k};
use crate::{Evidence, Prediction, UNKNOWN};

/// A mean over questions, with its 95 % interval by bootstrap over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The interval.
    pub ci95: [f64; 2],
}

impl Estimate {
    /// The mean of one value for each question.
    ///
    /// ```
    /// use zerosearch_eval::Estimate;
    ///
    /// let estimate = Estimate::of(&[0.0, 1.0, 1.0, 0.0]);
    /// assert_eq!((estimate.mean, estimate.ci95), (0.5, [0.0, 1.0]));
    /// ```
    pub fn of(values: &[f64]) -> Self {
        estimates_of_one(values.iter().map(|value| vec![*value]).collect()).unwrap_or_default()
    }

    /// A statistic that is no mean, such as a distance between two pools of documents: its value on all of `questions` indices, and a normal
    /// interval from a jackknife over twenty groups of them (fewer where there are fewer questions).
    ///
    /// ```
    /// use zerosearch_eval::Estimate;
    ///
    /// // Of a mean it is the usual standard error: √(s² / n).
    /// let values = [1.0, 2.0, 3.0, 6.0];
    /// let estimate = Estimate::jackknife(4, |of| of.iter().map(|i| values[*i]).sum::<f64>() / of.len() as f64);
    /// assert!((estimate.mean - 3.0).abs() < 1e-12);
    /// assert!((estimate.ci95[1] - 3.0 - 1.96 * (14.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    /// ```
    pub fn jackknife(questions: usize, mut statistic: impl FnMut(&[usize]) -> f64) -> Self {
        let all: Vec<usize> = (0..questions).collect();
        let (mean, groups) = (statistic(&all), questions.min(JACKKNIFE));
        if groups < 2 {
            return Self { mean, ci95: [mean; 2] };
        }
        let without = |group: usize| all.iter().copied().filter(|index| index % groups != group).collect::<Vec<_>>();
        let values: Vec<f64> = (0..groups).map(|group| statistic(&without(group))).collect();
        let middle = values.iter().sum::<f64>() / groups as f64;
        let spread: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
        let half = 1.96 * (spread * (groups - 1) as f64 / groups as f64).sqrt();
        Self { mean, ci95: [mean - half, mean + half] }
    }

    /// With its interval cut to the values from 0 to 1, where a share lies.
    #[must_use]
    pub fn of_share(self) -> Self {
        Self { ci95: self.ci95.map(|end| end.clamp(0.0, 1.0)), ..self }
    }
}

/// Groups of questions that a jackknife leaves out in turn.
const JACKKNIFE: usize = 20;

/// Figures of a group of questions. Shares are fractions from 0 to 1; counts are means over the answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Number of questions.
    pub questions: usize,
    /// Number of answers: questions times samples.
    pub answers: usize,
    /// EM: of a question with several samples, their mean (avg@k).
    pub em: Estimate,
    /// F1, likewise.
    pub f1: Estimate,
    /// Containment, likewise.
    pub contains: Estimate,
    /// The probability that one of k samples is right by EM, by k: [`pass_at_k`]. Empty with one sample.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at: BTreeMap<usize, Estimate>,
    /// Executed searches, failed ones included.
    pub searches: f64,
    /// Number of searches that the engine could not answer.
    pub search_failures: usize,
    /// Condensations of what a search had found.
    pub condensations: f64,
    /// Tokens read: prompts and observations, each once.
    pub tokens_in: f64,
    /// Tokens sampled.
    pub tokens_out: f64,
    /// Share of the evidence that the searches found. Absent where no question names its evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval_recall: Option<Estimate>,
}

/// Figures for all questions and for groups of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupedFigures {
    /// All questions.
    pub overall: Figures,
    /// Means over the data sources, each counted once whatever its size; resampled within each.
    pub macro_average: MacroFigures,
    /// By data source; [`UNKNOWN`] where a question does not say.
    pub by_data_source: BTreeMap<String, Figures>,
    /// By the number of hops, likewise.
    pub by_hops: BTreeMap<String, Figures>,
    /// By the type of question, likewise.
    pub by_kind: BTreeMap<String, Figures>,
}

/// Unweighted means over data sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MacroFigures {
    /// Number of data sources.
    pub data_sources: usize,
    /// Mean of their `em`.
    pub em: Estimate,
    /// Mean of their `f1`.
    pub f1: Estimate,
    /// Mean of their `contains`.
    pub contains: Estimate,
}

impl GroupedFigures {
    /// Sums up predictions, all of them and by group.
    pub fn of(predictions: &[Prediction]) -> Self {
        let questions = by_question(predictions);
        let by = |key: &dyn Fn(&Prediction) -> Option<String>| {
            let mut groups: BTreeMap<String, Vec<&Vec<&Prediction>>> = BTreeMap::new();
            for samples in &questions {
                let key = samples.first().and_then(|first| key(first)).unwrap_or_else(|| UNKNOWN.to_owned());
                groups.entry(key).or_default().push(samples);
            }
            groups
        };
        let figures = |groups: BTreeMap<String, Vec<&Vec<&Prediction>>>| -> BTreeMap<String, Figures> {
            groups.into_iter().map(|(key, group)| (key, Figures::of(&group))).collect()
        };
        let sources = by(&|prediction| prediction.data_source.clone());
        Self {
            overall: Figures::of(&questions.iter().collect::<Vec<_>>()),
            macro_average: MacroFigures::of(sources.values()),
            by_data_source: figures(sources),
            by_hops: figures(by(&|prediction| prediction.hops.map(|hops| hops.to_string()))),
            by_kind: figures(by(&|prediction| prediction.kind.clone())),
        }
    }
}

/// The answers to each question, in the order of the questions.
pub(crate) fn by_question(predictions: &[Prediction]) -> Vec<Vec<&Prediction>> {
    let mut places = BTreeMap::new();
    let mut questions: Vec<Vec<&Prediction>> = Vec::new();
    for prediction in predictions {
        let place = *places.entry(prediction.key()).or_insert(questions.len());
        if place == questions.len() {
            questions.push(Vec::new());
        }
        questions[place].push(prediction);
    }
    questions
}

/// The mean of a figure over a question's samples.
pub(crate) fn mean(samples: &[&Prediction], figure: impl Fn(&Prediction) -> f64) -> f64 {
    let sum: f64 = samples.iter().map(|prediction| figure(prediction)).sum();
    if samples.is_empty() { 0.0 } else { sum / samples.len() as f64 }
}

/// EM, F1 and containment of a question.
pub(crate) fn scores(samples: &[&Prediction]) -> [f64; 3] {
    [
        mean(samples, |prediction| f64::from(u8::from(prediction.em))),
        mean(samples, |prediction| prediction.f1),
        mean(samples, |prediction| f64::from(u8::from(prediction.contains))),
    ]
}

impl Figures {
    fn of(questions: &[&Vec<&Prediction>]) -> Self {
        let answers: Vec<&Prediction> = questions.iter().flat_map(|samples| samples.iter().copied()).collect();
        // A question with fewer samples than another has no pass@k beyond them.
        let most = questions.iter().map(|samples| samples.len()).min().filter(|samples| *samples > 1).unwrap_or(0);
        let row = |samples: &&Vec<&Prediction>| {
            let right = samples.iter().filter(|prediction| prediction.em).count();
            let passed = (1..=most).map(|k| pass_at_k(samples.len(), right, k));
            scores(samples).into_iter().chain(passed).collect::<Vec<f64>>()
        };
        let mut estimates = estimates(&[questions.iter().map(row).collect()], 3 + most).into_iter();
        let mut next = || estimates.next().unwrap_or_default();
        let (em, f1, contains) = (next(), next(), next());
        let evidence = |samples: &&Vec<&Prediction>| {
            let recalls: Vec<f64> =
                samples.iter().filter_map(|prediction| prediction.evidence).map(Evidence::recall).collect();
            (!recalls.is_empty()).then(|| vec![recalls.iter().sum::<f64>() / recalls.len() as f64])
        };
        let recalls: Vec<Vec<f64>> = questions.iter().filter_map(evidence).collect();
        Self {
            questions: questions.len(),
            answers: answers.len(),
            em,
            f1,
            contains,
            pass_at: (1..=most).map(|k| (k, next())).collect(),
            searches: mean(&answers, |prediction| prediction.searches as f64),
            search_failures: answers.iter().map(|prediction| prediction.search_failures).sum(),
            condensations: mean(&answers, |prediction| prediction.condensations as f64),
            tokens_in: mean(&answers, |prediction| prediction.tokens_in as f64),
            tokens_out: mean(&answers, |prediction| prediction.tokens_out as f64),
            retrieval_recall: if recalls.is_empty() { None } else { estimates_of_one(recalls) },
        }
    }
}

impl MacroFigures {
    fn of<'g, 'p: 'g>(sources: impl Iterator<Item = &'g Vec<&'g Vec<&'p Prediction>>>) -> Self {
        let row = |samples: &&Vec<&Prediction>| scores(samples).to_vec();
        let strata: Vec<Vec<Vec<f64>>> = sources.map(|source| source.iter().map(row).collect()).collect();
        match estimates(&strata, 3)[..] {
            [em, f1, contains] => Self { data_sources: strata.len(), em, f1, contains },
            _ => Self::default(),
        }
    }
}

fn estimates_of_one(rows: Vec<Vec<f64>>) -> Option<Estimate> {
    estimates(&[rows], 1).pop()
}

/// The mean of each column over the strata's means, with its interval.
fn estimates(strata: &[Vec<Vec<f64>>], columns: usize) -> Vec<Estimate> {
    let mean_of = |column: usize| {
        let of = |rows: &Vec<Vec<f64>>| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len().max(1) as f64;
        strata.iter().map(of).sum::<f64>() / strata.len().max(1) as f64
    };
    let intervals = bootstrap(strata, columns).into_iter().enumerate();
    intervals.map(|(column, ci95)| Estimate { mean: mean_of(column), ci95 }).collect()
}
