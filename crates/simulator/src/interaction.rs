//! Interactions of a policy with a real engine: the raw material of a simulator.

use std::path::Path;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, RowError, parse_rows, prepare_file, write_atomic};
use zerosearch_generate::Stream;
use zerosearch_search::Quality;

use crate::SimulatorError;

/// One call to a real engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// The question that the policy was answering.
    pub question: String,
    /// Its golden answers.
    pub golden_answers: Vec<String>,
    /// The policy's query.
    pub query: String,
    /// The engine's documents, best first.
    pub documents: Vec<String>,
}

/// An interaction with a judge's label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledInteraction {
    /// The call.
    #[serde(flatten)]
    pub interaction: Interaction,
    /// Whether the answer can be found in what it returned.
    pub quality: Quality,
}

/// As many useful interactions as noisy ones, drawn without replacement and shuffled.
///
/// # Errors
/// When one of the two is missing altogether.
pub fn balance(labelled: Vec<LabelledInteraction>, seed: u64) -> Result<Vec<LabelledInteraction>, SimulatorError> {
    let (mut useful, mut noisy): (Vec<_>, Vec<_>) =
        labelled.into_iter().partition(|row| row.quality == Quality::Useful);
    let each = useful.len().min(noisy.len());
    if each == 0 {
        return Err(SimulatorError::OneSided { useful: useful.len(), noisy: noisy.len() });
    }
    let mut rng = Stream { seed, purpose: "balance", ..Stream::default() }.rng();
    useful.shuffle(&mut rng);
    noisy.shuffle(&mut rng);
    let mut balanced: Vec<_> = useful.into_iter().take(each).chain(noisy.into_iter().take(each)).collect();
    balanced.shuffle(&mut rng);
    Ok(balanced)
}

/// Writes one JSON object a line; the file appears complete or not at all, in a folder that is made if need be.
///
/// # Errors
/// When the file cannot be written; an old one is then untouched.
pub fn write_interactions(path: impl AsRef<Path>, rows: &[LabelledInteraction]) -> Result<(), SimulatorError> {
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let failed = |error| broken(path.as_ref(), index + 1, error);
        serde_json::to_writer(&mut lines, row).map_err(failed)?;
        lines.push(b'\n');
    }
    prepare_file(&path, &[])?;
    Ok(write_atomic(path, &lines)?)
}

/// Reads what [`write_interactions`] wrote. A last line that was cut short is left out with a warning.
///
/// # Errors
/// Names the file and the line.
pub fn read_interactions(path: impl AsRef<Path>) -> Result<Vec<LabelledInteraction>, SimulatorError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(FileError::read(path))?;
    parse_rows(path, &bytes, serde_json::from_slice).map_err(|RowError { line, message }| broken(path, line, message))
}

fn broken(path: &Path, line: usize, message: impl std::fmt::Display) -> SimulatorError {
    let message = format!("{message}; expected question, golden_answers, query, documents and quality");
    SimulatorError::Row { path: path.into(), line, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: usize, quality: Quality) -> LabelledInteraction {
        let interaction = Interaction {
            question: format!("q{index}"),
            golden_answers: vec!["a".into()],
            query: "q".into(),
            documents: vec!["d".into()],
        };
        LabelledInteraction { interaction, quality }
    }

    #[test]
    fn balanced_means_as_many_of_each_and_the_same_for_the_same_seed() {
        let rows: Vec<_> = (0..30).map(|i| row(i, if i % 5 == 0 { Quality::Noisy } else { Quality::Useful })).collect();
        let balanced = balance(rows.clone(), 3).unwrap();
        assert_eq!(balanced.len(), 12);
        assert_eq!(balanced.iter().filter(|row| row.quality == Quality::Noisy).count(), 6);
        assert_eq!(balanced, balance(rows.clone(), 3).unwrap());
        assert_ne!(balanced, balance(rows, 4).unwrap());
    }

    #[test]
    fn one_sided_data_is_refused() {
        let error = balance(vec![row(0, Quality::Useful)], 0).unwrap_err().to_string();
        assert!(error.contains("1 useful and 0 noisy"), "{error}");
    }

    #[test]
    fn a_broken_line_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_interactions(file.path(), &[row(0, Quality::Useful)]).unwrap();
        assert_eq!(read_interactions(file.path()).unwrap(), [row(0, Quality::Useful)]);
        let text = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), [text.as_slice(), &text[..text.len() / 2]].concat()).unwrap();
        assert_eq!(read_interactions(file.path()).unwrap(), [row(0, Quality::Useful)], "read up to the cut");
        std::fs::write(file.path(), "{\"question\": 1}\n").unwrap();
        assert!(read_interactions(file.path()).unwrap_err().to_string().contains(":1: "));
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("interactions.jsonl");
        // A folder with content cannot be replaced by a file: everything is written, and the last step fails.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "").unwrap();
        let message = write_interactions(&path, &[row(0, Quality::Useful)]).unwrap_err().to_string();
        assert!(message.contains("interactions.jsonl"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
