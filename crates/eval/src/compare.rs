//! Two methods on the same questions.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures::{by_question, mean, scores};
use crate::stats::{bootstrap, mcnemar_exact, sign_flip};
use crate::{EvalError, Prediction, UNKNOWN};

/// How method B differs from method A, question by question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// All questions.
    pub overall: Paired,
    /// By data source; [`UNKNOWN`] where a question does not say.
    pub by_data_source: BTreeMap<String, Paired>,
    /// By the number of hops, likewise.
    pub by_hops: BTreeMap<String, Paired>,
}

/// The differences on a group of questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Number of questions.
    pub questions: usize,
    /// EM.
    pub em: Difference,
    /// F1.
    pub f1: Difference,
    /// Containment.
    pub contains: Difference,
    /// Executed searches.
    pub searches: Difference,
    /// Tokens sampled.
    pub tokens_out: Difference,
    /// The exact test on EM. Absent where a question has several samples, whose mean is neither right nor wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcnemar: Option<McNemar>,
}

/// A figure of two methods.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The mean of A.
    pub a: f64,
    /// The mean of B.
    pub b: f64,
    /// B − A.
    pub difference: f64,
    /// The 95 % interval of the difference, by bootstrap over pairs.
    pub ci95: [f64; 2],
    /// The two-sided probability of such a difference if both were alike, by flipping the signs of pairs.
    pub p: f64,
}

/// Questions on which two methods disagree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Right by A alone.
    pub only_a: usize,
    /// Right by B alone.
    pub only_b: usize,
    /// [`mcnemar_exact`].
    pub p: f64,
}

impl Comparison {
    /// Compares the predictions of two methods.
    ///
    /// # Errors
    /// When a question has predictions of one method only, or not the same text in both: a test between methods on different
    /// questions would compare the questions.
    pub fn of(a: &[Prediction], b: &[Prediction]) -> Result<Self, EvalError> {
        let (a, b) = (by_question(a), by_question(b));
        let mut others: BTreeMap<_, &Vec<&Prediction>> = b.iter().map(|samples| (samples[0].key(), samples)).collect();
        let mut pairs = Vec::new();
        for samples in &a {
            let (source, id) = samples[0].key();
            let Some(other) = others.remove(&(source, id)) else { return Err(only_in("first", source, id)) };
            if samples[0].question != other[0].question {
                return Err(EvalError::NotPaired(format!(
                    "id {id:?} is another question in the second file ({:?}) than in the first ({:?}): compare evaluations of one file of questions",
                    other[0].question, samples[0].question
                )));
            }
            pairs.push((samples.as_slice(), other.as_slice()));
        }
        if let Some((source, id)) = others.into_keys().next() {
            return Err(only_in("second", source, id));
        }
        let by = |key: &dyn Fn(&Prediction) -> Option<String>| {
            let mut groups: BTreeMap<String, Vec<Pair<'_>>> = BTreeMap::new();
            for pair in &pairs {
                groups.entry(key(pair.0[0]).unwrap_or_else(|| UNKNOWN.to_owned())).or_default().push(*pair);
            }
            groups.into_iter().map(|(key, pairs)| (key, Paired::of(&pairs))).collect()
        };
        Ok(Self {
            overall: Paired::of(&pairs),
            by_data_source: by(&|prediction| prediction.data_source.clone()),
            by_hops: by(&|prediction| prediction.hops.map(|hops| hops.to_string())),
        })
    }
}

fn only_in(which: &str, source: Option<&str>, id: &str) -> EvalError {
    let source = source.map(|source| format!(" of {source}")).unwrap_or_default();
    EvalError::NotPaired(format!(
        "question {id:?}{source} is in the {which} file only: compare evaluations of the same questions (the same file and `--limit`)"
    ))
}

/// A table: one line a figure, with the groups below.
impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.by_data_source.iter().map(|(name, paired)| (name.clone(), paired));
        let groups = sources.chain(self.by_hops.iter().map(|(hops, paired)| (format!("hops: {hops}"), paired)));
        let alone = self.by_data_source.len() <= 1 && self.by_hops.len() <= 1;
        writeln!(formatter, "{:28} {:>9} {:>9} {:>9} {:>21} {:>8}", "", "A", "B", "B - A", "95 % interval", "p")?;
        writeln!(formatter, "all, n = {}", self.overall.questions)?;
        self.overall.write(formatter)?;
        for (name, paired) in groups.filter(|_| !alone) {
            writeln!(formatter, "{name}, n = {}", paired.questions)?;
            paired.write(formatter)?;
        }
        Ok(())
    }
}

impl Paired {
    fn write(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = [("EM, %", self.em), ("F1, %", self.f1), ("contains, %", self.contains)];
        let counts = [("searches", self.searches), ("tokens sampled", self.tokens_out)];
        let rows = percent.map(|(name, it)| (name, it, 100.0)).into_iter();
        for (name, Difference { a, b, difference, ci95: [low, high], p }, scale) in
            rows.chain(counts.map(|(name, it)| (name, it, 1.0)))
        {
            let [a, b, difference, low, high] = [a, b, difference, low, high].map(|value| value * scale);
            let interval = format!("{low:+.2} … {high:+.2}");
            writeln!(formatter, "  {name:26} {a:>9.2} {b:>9.2} {difference:>+9.2} {interval:>21} {p:>8.4}")?;
        }
        match self.mcnemar {
            Some(McNemar { only_a, only_b, p }) => {
                let found = format!("right by A alone {only_a}, by B alone {only_b}");
                writeln!(formatter, "  {:26} {found:>51} {p:>8.4}", "exact McNemar test")
            }
            None => Ok(()),
        }
    }
}

/// The samples of one question by both methods.
type Pair<'a> = (&'a [&'a Prediction], &'a [&'a Prediction]);

impl Paired {
    fn of(pairs: &[Pair<'_>]) -> Self {
        let row = |samples: &[&Prediction]| {
            let [em, f1, contains] = scores(samples);
            let searches = mean(samples, |prediction| prediction.searches as f64);
            [em, f1, contains, searches, mean(samples, |prediction| prediction.tokens_out as f64)]
        };
        let rows: Vec<([f64; 5], [f64; 5])> = pairs.iter().map(|(a, b)| (row(a), row(b))).collect();
        let differences: Vec<Vec<f64>> =
            rows.iter().map(|(a, b)| a.iter().zip(b).map(|(a, b)| b - a).collect()).collect();
        let n = rows.len().max(1) as f64;
        let intervals = bootstrap(std::slice::from_ref(&differences), 5);
        let difference = |column: usize| {
            let a = rows.iter().map(|(a, _)| a[column]).sum::<f64>() / n;
            let b = rows.iter().map(|(_, b)| b[column]).sum::<f64>() / n;
            let values: Vec<f64> = differences.iter().map(|row| row[column]).collect();
            let ci95 = intervals.get(column).copied().unwrap_or_default();
            Difference { a, b, difference: b - a, ci95, p: sign_flip(&values) }
        };
        Self {
            questions: pairs.len(),
            em: difference(0),
            f1: difference(1),
            contains: difference(2),
            searches: difference(3),
            tokens_out: difference(4),
            mcnemar: McNemar::of(pairs),
        }
    }
}

impl McNemar {
    fn of(pairs: &[Pair<'_>]) -> Option<Self> {
        let (mut only_a, mut only_b) = (0, 0);
        for pair in pairs {
            let ([a], [b]) = pair else { return None };
            only_a += usize::from(a.em && !b.em);
            only_b += usize::from(b.em && !a.em);
        }
        Some(Self { only_a, only_b, p: mcnemar_exact(only_a, only_b) })
    }
}
