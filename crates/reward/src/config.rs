//! A reward as it stands in a configuration file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ContainsReward, ExactMatchReward, F1Reward, FormatReward, RewardError, RewardFn, Weighted};

/// A reward as it stands in a configuration file: one by its name, or a weighted sum of several.
///
/// ```
/// use zerosearch_reward::{RewardConfig, RewardFn};
///
/// let one: RewardConfig = serde_json::from_str(r#""contains""#)?;
/// assert_eq!(one.build()?.name(), "contains");
///
/// let sum = r#"[{"name": "f1"}, {"name": "format", "weight": 0.2}]"#;
/// let sum: RewardConfig = serde_json::from_str(sum)?;
/// assert_eq!(sum.build()?.name(), "f1+0.2*format");
/// assert_eq!(RewardConfig::default().build()?.name(), "f1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"f1\", \"em\", \"contains\" or \"format\", or a list of { name, weight }")]
pub enum RewardConfig {
    /// One reward as it is.
    One(RewardKind),
    /// The sum of `weight · reward`.
    Weighted(Vec<RewardPart>),
}

/// One term of a weighted reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardPart {
    /// The reward.
    pub name: RewardKind,
    /// Its weight; 1.
    #[serde(default = "one")]
    pub weight: f32,
}

/// The rewards that a configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// [`F1Reward`].
    F1,
    /// [`ExactMatchReward`].
    Em,
    /// [`ContainsReward`].
    Contains,
    /// [`FormatReward`].
    Format,
}

impl RewardConfig {
    /// The reward that it describes. A sum is called by its terms, as in `f1+0.2*format`.
    ///
    /// # Errors
    /// A sum without terms, or with a weight that is not finite.
    pub fn build(&self) -> Result<Box<dyn RewardFn>, RewardError> {
        match self {
            Self::One(kind) => Ok(kind.build()),
            Self::Weighted(parts) => {
                let terms = parts.iter().map(|part| (part.weight, part.name.build())).collect();
                Ok(Box::new(Weighted::new(self.to_string(), terms)?))
            }
        }
    }
}

impl RewardKind {
    const ALL: [Self; 4] = [Self::F1, Self::Em, Self::Contains, Self::Format];

    fn build(self) -> Box<dyn RewardFn> {
        match self {
            Self::F1 => Box::new(F1Reward),
            Self::Em => Box::new(ExactMatchReward),
            Self::Contains => Box::new(ContainsReward),
            Self::Format => Box::new(FormatReward),
        }
    }
}

impl Default for RewardConfig {
    /// The reward of the paper.
    fn default() -> Self {
        Self::One(RewardKind::F1)
    }
}

impl fmt::Display for RewardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(kind) => kind.fmt(f),
            Self::Weighted(parts) => {
                let term = |part: &RewardPart| match part.weight {
                    1.0 => part.name.to_string(),
                    weight => format!("{weight}*{}", part.name),
                };
                write!(f, "{}", parts.iter().map(term).collect::<Vec<_>>().join("+"))
            }
        }
    }
}

impl fmt::Display for RewardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.build().name())
    }
}

/// By name, for a flag of a command line.
impl FromStr for RewardConfig {
    type Err = RewardError;

    fn from_str(name: &str) -> Result<Self, RewardError> {
        let kind = RewardKind::ALL.into_iter().find(|kind| kind.build().name() == name);
        kind.map(Self::One).ok_or_else(|| RewardError::Unknown { name: name.into() })
    }
}

fn one() -> f32 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_a_file_on_a_command_line_and_in_the_log() {
        for name in ["f1", "em", "contains", "format"] {
            let config: RewardConfig = name.parse().unwrap();
            assert_eq!(config.build().unwrap().name(), name);
            assert_eq!(serde_json::to_string(&config).unwrap(), format!("{name:?}"));
            assert_eq!(serde_json::from_str::<RewardConfig>(&format!("{name:?}")).unwrap(), config);
        }
        let error = "bleu".parse::<RewardConfig>().unwrap_err().to_string();
        assert!(error.contains("bleu") && error.contains("contains"), "{error}");
    }

    #[test]
    fn a_sum_is_read_checked_and_written_back() {
        let read = |text: &str| toml::from_str::<std::collections::BTreeMap<String, RewardConfig>>(text);
        let config = read("reward = [{ name = \"f1\", weight = 1.0 }, { name = \"format\", weight = 0.5 }]").unwrap();
        assert_eq!(config["reward"].to_string(), "f1+0.5*format");
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);

        let refused = |text: &str| match read(text) {
            Ok(config) => config["reward"].build().map(drop).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(refused("reward = []").contains("has no parts"));
        assert!(refused("reward = [{ name = \"f1\", weight = nan }]").contains("the weight of `f1` is NaN"));
        for text in ["reward = \"bleu\"", "reward = 1", "reward = [{ name = \"f1\", factor = 1 }]"] {
            assert!(refused(text).contains("a list of { name, weight }"), "{}", refused(text));
        }
    }
}
