//! The noise of a server: a curriculum whose steps are searches.

use zerosearch_curriculum::{Curriculum, CurriculumConfig, CurriculumError};

use crate::ServerConfig;

impl ServerConfig {
    /// The curriculum, if there is one.
    ///
    /// # Errors
    /// A value outside its range; a curriculum that follows turns or success, which a server does not know; or one that changes,
    /// without the number of searches over which it does.
    pub fn noise(&self) -> Result<Option<Box<dyn Curriculum>>, NoiseError> {
        let Some(curriculum) = &self.curriculum else { return Ok(None) };
        if let Some(kind) = unknowable(curriculum) {
            return Err(NoiseError::Unknowable(kind));
        }
        if self.calls == 0 && !matches!(curriculum, CurriculumConfig::Constant { .. }) {
            return Err(NoiseError::Calls);
        }
        Ok(Some(curriculum.build()?))
    }
}

/// A curriculum that a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    /// A value outside its range.
    #[error(transparent)]
    Curriculum(#[from] CurriculumError),
    /// It follows something that a server is not told.
    #[error(
        "the curriculum {0:?} follows turns or success, which a server is not told: use exponential, linear, step or constant"
    )]
    Unknowable(&'static str),
    /// It changes, and it is not said how fast.
    #[error("the noise changes, but not over how many searches: give `server.calls` (--calls 100000)")]
    Calls,
    /// A text that is neither a probability nor two.
    #[error("the noise is {0:?}, expected a probability, or two for the first and the last search: 0.25, 0:0.5")]
    Text(String),
}

/// The noise of a command line: `0.25` for every search, or `0:0.5` from the first search to the last as in the paper.
///
/// # Errors
/// Texts of other forms. Ranges are checked when the curriculum is built.
pub fn parse_noise(text: &str) -> Result<CurriculumConfig, NoiseError> {
    let number = |part: &str| part.trim().parse::<f64>().map_err(|_| NoiseError::Text(text.into()));
    match text.split_once(':') {
        None => Ok(CurriculumConfig::Constant { probability: number(text)? }),
        Some((start, end)) => Ok(CurriculumConfig::Exponential { start: number(start)?, end: number(end)?, base: 4.0 }),
    }
}

fn unknowable(curriculum: &CurriculumConfig) -> Option<&'static str> {
    match curriculum {
        CurriculumConfig::Adaptive { .. } => Some("adaptive"),
        CurriculumConfig::PerTurn { .. } => Some("per_turn"),
        CurriculumConfig::Reversed { of } => unknowable(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_curriculum::Progress;

    use super::*;

    #[test]
    fn noise_is_built_for_what_a_server_knows() {
        let noise = |noise: &str, calls| {
            ServerConfig { curriculum: Some(parse_noise(noise)?), calls, ..ServerConfig::default() }.noise()
        };
        let at = |curriculum: Result<Option<Box<dyn Curriculum>>, NoiseError>, step| {
            curriculum.unwrap().unwrap().noise_probability(Progress::at(step, 10))
        };
        assert_eq!((at(noise("0.25", 0), 0), at(noise("0:0.5", 10), 0), at(noise("0:0.5", 10), 10)), (0.25, 0.0, 0.5));
        for (text, calls, expected) in
            [("0:0.5", 0, "--calls"), ("a", 1, "0:0.5"), ("1.5", 1, "1.5"), ("0:2", 1, "2"), ("", 1, "0.25")]
        {
            let message = noise(text, calls).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let adaptive: CurriculumConfig =
            serde_json::from_str(r#"{"kind": "adaptive", "low": 0.2, "high": 0.5}"#).unwrap();
        let of = |curriculum| ServerConfig { curriculum: Some(curriculum), calls: 9, ..ServerConfig::default() };
        let reversed = CurriculumConfig::Reversed { of: Box::new(adaptive.clone()) };
        for curriculum in [adaptive, reversed] {
            let message = of(curriculum).noise().err().unwrap().to_string();
            assert!(message.contains("adaptive"), "{message}");
        }
    }
}
