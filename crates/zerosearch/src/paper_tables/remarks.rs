//! Remarks of people on claims and tables.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use zerosearch_files::read_text;

use super::TABLES;
use crate::pipeline::PipelineError;

/// Remarks by the name of their claim, or of their table as `table_5`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remarks(BTreeMap<String, Remark>);

/// A remark on a claim or a table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Remark {
    /// An observation.
    pub note: Option<String>,
    /// A guess why a claim did not come out.
    pub guess: Option<String>,
    /// The experiment that would tell whether the guess is right.
    pub experiment: Option<String>,
}

impl Remarks {
    /// Reads a TOML file with a table for each remark; none where there is no file.
    ///
    /// # Errors
    /// Names the file and the unknown key or claim.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PipelineError> {
        let path = path.as_ref();
        if !path.exists() {
            return Ok(Self::default());
        }
        let remarks: BTreeMap<String, Remark> =
            toml::from_str(&read_text(path)?).map_err(|error| PipelineError::file(path, error))?;
        let known: Vec<String> = TABLES
            .iter()
            .flat_map(|table| {
                table.claims.iter().map(|claim| claim.name.to_owned()).chain([format!("table_{}", table.name)])
            })
            .collect();
        match remarks.keys().find(|name| !known.contains(name)) {
            Some(name) => {
                let message = format!("[{name}] is no claim, expected one of {}", known.join(", "));
                Err(PipelineError::file(path, message))
            }
            None => Ok(Self(remarks)),
        }
    }

    /// The remark on a claim or a table.
    pub fn on(&self, name: &str) -> Option<&Remark> {
        self.0.get(name)
    }
}

impl Remark {
    /// As a paragraph of Markdown.
    pub(crate) fn text(&self) -> String {
        let parts =
            [("", &self.note), ("A guess why: ", &self.guess), ("An experiment that would tell: ", &self.experiment)];
        let parts = parts.into_iter().filter_map(|(name, text)| Some(format!("{name}{}", text.as_ref()?.trim())));
        parts.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_on_a_claim_that_does_not_exist_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("remarks.toml");
        assert_eq!(Remarks::read(&path).unwrap(), Remarks::default());
        std::fs::write(
            &path,
            "[reinforce_grpo]\nguess = \"noise\"\nexperiment = \"more seeds\"\n[table_4]\nnote = \"n\"\n",
        )
        .unwrap();
        let remarks = Remarks::read(&path).unwrap();
        let text = remarks.on("reinforce_grpo").unwrap().text();
        assert_eq!(text, "A guess why: noise An experiment that would tell: more seeds");
        for wrong in ["[reinforce_gpro]\nnote = \"\"\n", "[reinforce_grpo]\nreason = \"\"\n"] {
            std::fs::write(&path, wrong).unwrap();
            let message = Remarks::read(&path).unwrap_err().to_string();
            assert!(message.contains("remarks.toml") && message.contains("expected"), "{message}");
        }
    }
}
