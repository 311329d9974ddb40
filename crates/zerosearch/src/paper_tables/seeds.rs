//! Means over seeds.

/// The mean of a figure over seeds, with the half width of its 95 % interval: `t · s / √n` with Student's t. No interval for one seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OverSeeds {
    pub(crate) mean: f64,
    pub(crate) half_width: Option<f64>,
}

impl OverSeeds {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance =
            values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n.saturating_sub(1).max(1) as f64;
        let half_width = (n > 1).then(|| student(n - 1) * (variance / n as f64).sqrt());
        Some(Self { mean, half_width })
    }

    /// With one digit after the point.
    pub(crate) fn text(&self) -> String {
        match self.half_width {
            Some(half_width) => format!("{:.1} ± {half_width:.1}", self.mean),
            None => format!("{:.1}", self.mean),
        }
    }
}

/// The 97.5 % quantile of Student's distribution with so many degrees of freedom, rounded up beyond the table.
fn student(degrees: usize) -> f64 {
    const QUANTILES: [f64; 15] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131];
    QUANTILES[degrees.clamp(1, QUANTILES.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        assert_eq!(OverSeeds::of(&[]), None);
        assert_eq!(OverSeeds::of(&[66.4]).unwrap().text(), "66.4");
        // s = 1, 4.303 / √3 = 2.484
        assert_eq!(OverSeeds::of(&[65.0, 66.0, 67.0]).unwrap().text(), "66.0 ± 2.5");
        assert_eq!(OverSeeds::of(&[5.0, 5.0]).unwrap().text(), "5.0 ± 0.0");
    }
}
