//! The figures of one step.

use std::collections::BTreeMap;
use std::ops::Index;

/// Named figures of one step, in the order of their names.
///
/// Names are paths with slashes, as in `actor/pg_loss`. A figure that is not finite is kept: sinks show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// No figures yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a figure, replacing one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), value);
    }

    /// Sets `{prefix}/mean`, `{prefix}/max` and `{prefix}/min`. Nothing when there are no values: an
    /// absent figure is not zero. A NaN among the values makes all three NaN.
    pub fn summary(&mut self, prefix: &str, values: &[f32]) {
        let Some((first, rest)) = values.split_first() else { return };
        let (mut sum, mut max, mut min) = (f64::from(*first), f64::from(*first), f64::from(*first));
        for value in rest.iter().map(|value| f64::from(*value)) {
            sum += value;
            // Not `f64::max`, which would hide a NaN.
            if value > max || value.is_nan() {
                max = value;
            }
            if value < min || value.is_nan() {
                min = value;
            }
        }
        self.insert(format!("{prefix}/mean"), sum / values.len() as f64);
        self.insert(format!("{prefix}/max"), max);
        self.insert(format!("{prefix}/min"), min);
    }

    /// A figure by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// All figures, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> + '_ {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// How many figures are NaN or infinite.
    pub fn non_finite(&self) -> usize {
        self.values.values().filter(|value| !value.is_finite()).count()
    }

    /// Number of figures.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// A figure by its name, for a step that is known to have it: `step.metrics["critic/score/mean"]`.
///
/// # Panics
/// When there is no figure of that name, as indexing does everywhere; [`Metrics::get`] is for names that may be absent.
impl Index<&str> for Metrics {
    type Output = f64;

    fn index(&self, name: &str) -> &f64 {
        &self.values[name]
    }
}

impl<N: Into<String>> Extend<(N, f64)> for Metrics {
    fn extend<I: IntoIterator<Item = (N, f64)>>(&mut self, values: I) {
        self.values.extend(values.into_iter().map(|(name, value)| (name.into(), value)));
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(values: I) -> Self {
        let mut metrics = Self::new();
        metrics.extend(values);
        metrics
    }
}

impl IntoIterator for Metrics {
    type Item = (String, f64);
    type IntoIter = std::collections::btree_map::IntoIter<String, f64>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_mean_max_min() {
        let mut metrics = Metrics::new();
        metrics.summary("critic/rewards", &[-1.0, 0.5, 2.0]);
        metrics.summary("nothing", &[]);
        let figures: Vec<_> = metrics.iter().collect();
        assert_eq!(figures, [("critic/rewards/max", 2.0), ("critic/rewards/mean", 0.5), ("critic/rewards/min", -1.0)]);
    }

    #[test]
    fn summary_never_hides_a_nan() {
        for values in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0], [1.0, 2.0, f32::NAN]] {
            let mut metrics = Metrics::new();
            metrics.summary("x", &values);
            assert_eq!(metrics.non_finite(), 3, "{values:?}: {metrics:?}");
        }
    }

    #[test]
    fn a_figure_is_found_by_its_name() {
        let metrics: Metrics = [("critic/score/mean", 0.25)].into_iter().collect();
        assert_eq!(metrics["critic/score/mean"], 0.25);
        assert_eq!(metrics.get("critic/score/max"), None);
    }

    #[test]
    #[should_panic]
    fn indexing_an_absent_figure_panics() {
        let _ = Metrics::new()["critic/score/mean"];
    }

    #[test]
    fn extend_replaces_equal_names() {
        let mut metrics: Metrics = [("a", 1.0), ("b", 2.0)].into_iter().collect();
        metrics.extend(Metrics::from_iter([("b", 3.0)]));
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a", 1.0), ("b", 3.0)]);
    }
}
