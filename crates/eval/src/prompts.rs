//! The prompts of the methods, which a user can replace by files.

use std::collections::BTreeMap;
use std::path::Path;

use zerosearch_files::{FileError, read_text};
use zerosearch_generate::TokenId;
use zerosearch_grammar::{EpisodeFormat, SEARCH_TAG};
use zerosearch_text::{Codec, PromptTemplate, TextError};

use crate::EvalError;

/// Every prompt, by the name of its file. That of `search` is the format's own.
const BUILT_IN: [(&str, &str); 9] = [
    ("direct", include_str!("../prompts/direct.txt")),
    ("cot", include_str!("../prompts/cot.txt")),
    ("rag", include_str!("../prompts/rag.txt")),
    ("search", ""),
    ("ra_agent", include_str!("../prompts/ra_agent.txt")),
    ("search_o1", include_str!("../prompts/search_o1.txt")),
    ("search_o1_condense", include_str!("../prompts/search_o1_condense.txt")),
    ("ircot", include_str!("../prompts/ircot.txt")),
    ("ircot_answer", include_str!("../prompts/ircot_answer.txt")),
];

/// The variables that the prompts of the methods have besides `question`.
const VARIABLES: [&str; 4] = ["reasoning", "query", "documents", "thoughts"];

/// The prompts of all methods: those of `crates/eval/prompts`, but for those that a user's folder replaces.
///
/// A prompt is a Jinja template with the variable `question`, and in `search_o1_condense` also `reasoning`, `query` and
/// `documents`, in `ircot` and `ircot_answer` also `documents` and `thoughts`. The tags of the format stand as `{think}`,
/// `{search}`, `{information}` and `{answer}`.
///
/// ```
/// use zerosearch_eval::Prompts;
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("cot.txt"), "Think, then write <{answer}>. {{ question }}")?;
/// let prompts = Prompts::read(folder.path())?;
/// assert_eq!(prompts.text("cot", &Default::default()), "Think, then write <answer>. {{ question }}");
/// assert_eq!(prompts.text("rag", &Default::default()), Prompts::default().text("rag", &Default::default()));
///
/// std::fs::write(folder.path().join("search-o1.txt"), "{{ question }}")?;
/// let error = Prompts::read(folder.path()).unwrap_err().to_string();
/// assert!(error.contains("search-o1.txt") && error.contains("search_o1"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    replaced: BTreeMap<&'static str, String>,
}

impl Prompts {
    /// The prompts with those replaced that a folder has as `NAME.txt`; other files in it are left alone.
    ///
    /// # Errors
    /// When a file cannot be read, is the prompt of no method, or is no template.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, EvalError> {
        let folder = folder.as_ref();
        let failed = |source| FileError::Read { path: folder.into(), source };
        let mut replaced = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let Some((name, _)) = BUILT_IN.iter().find(|(name, _)| *name == stem) else {
                let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                return Err(EvalError::UnknownPrompt { path, known: known.join(".txt, ") + ".txt" });
            };
            let text = read_text(&path)?;
            // Before hours of work, and not at the first search.
            let template = PromptTemplate::new(&text).map_err(|error| named(error, &path))?;
            unfilled(&template).map_err(|error| named(error, &path))?;
            replaced.insert(*name, text);
        }
        Ok(Self { replaced })
    }

    /// The text of a prompt, in the tags of a format; empty for a name that no prompt has.
    pub fn text(&self, name: &str, format: &EpisodeFormat) -> String {
        let built_in = || BUILT_IN.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text);
        match self.replaced.get(name) {
            None if name == "search" => format.prompt.clone(),
            replaced => fill(replaced.map_or_else(built_in, String::as_str), format),
        }
    }

    /// All texts, in the order of their names in the list above.
    pub(crate) fn texts<'f>(&'f self, format: &'f EpisodeFormat) -> impl Iterator<Item = String> + 'f {
        BUILT_IN.iter().map(|(name, _)| self.text(name, format))
    }

    /// The template of a method's first prompt. A model that brings its own prompt gets that, but for a file of the user.
    pub(crate) fn first(&self, name: &str, codec: &Codec, format: &EpisodeFormat) -> Result<PromptTemplate, TextError> {
        let text = self.text(name, format);
        if self.replaced.contains_key(name) {
            PromptTemplate::for_instruction(codec, &text)
        } else {
            PromptTemplate::for_model_or(codec, &text)
        }
    }

    /// The template of a prompt that has more variables than the question, which a model's own prompt cannot stand for.
    pub(crate) fn other(&self, name: &str, codec: &Codec, format: &EpisodeFormat) -> Result<PromptTemplate, TextError> {
        PromptTemplate::for_instruction(codec, &self.text(name, format))
    }
}

/// A prompt with nothing in the places of its variables.
pub(crate) fn unfilled(template: &PromptTemplate) -> Result<String, TextError> {
    template.render_with("", &VARIABLES.map(|name| (name, "")))
}

fn named(error: TextError, path: &Path) -> TextError {
    match error {
        TextError::Template { message, .. } => TextError::Template { name: path.display().to_string(), message },
        other => other,
    }
}

/// Fills in the tags, in one pass.
fn fill(text: &str, format: &EpisodeFormat) -> String {
    let tags = [
        ("{think}", format.think.as_str()),
        ("{search}", SEARCH_TAG),
        ("{information}", &format.information),
        ("{answer}", &format.answer),
    ];
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, field) = rest.split_at(start);
        filled.push_str(before);
        let (name, value) = tags.iter().find(|(name, _)| field.starts_with(name)).copied().unwrap_or(("{", "{"));
        filled.push_str(value);
        rest = &field[name.len()..];
    }
    filled + rest
}

/// Noncharacters, which stand in no text, around the name of a value that is put in as tokens.
const MARK: char = '\u{fdd0}';

/// A prompt in tokens. `values` are other people's text, encoded with special tokens off, so that they cannot end a message.
pub(crate) fn encode_prompt(
    codec: &Codec,
    template: &PromptTemplate,
    question: &str,
    values: &[(&str, Vec<TokenId>)],
) -> Result<Vec<TokenId>, TextError> {
    let marked: Vec<(&str, String)> = values.iter().map(|(name, _)| (*name, format!("{MARK}{name}{MARK}"))).collect();
    let marked: Vec<(&str, &str)> = marked.iter().map(|(name, mark)| (*name, mark.as_str())).collect();
    let text = template.render_with(question, &marked)?;
    let mut tokens = Vec::new();
    for (index, piece) in text.split(MARK).enumerate() {
        // Every second piece is a name.
        match values.iter().find(|(name, _)| index % 2 == 1 && *name == piece) {
            Some((_, value)) => tokens.extend(value),
            None => tokens.extend(codec.encode(piece)),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_is_a_template_that_asks_the_question_in_the_words_of_the_format() {
        let format = EpisodeFormat { answer: "result".into(), ..EpisodeFormat::default() };
        for (name, _) in BUILT_IN {
            let text = Prompts::default().text(name, &format);
            let values: Vec<(&str, &str)> = VARIABLES.iter().map(|name| (*name, "VALUE")).collect();
            let rendered = PromptTemplate::new(&text).unwrap().render_with("Who?", &values).unwrap();
            assert!(rendered.contains("Who?") && !rendered.contains('{'), "{name}: {rendered}");
            // The prompt of `search` is the format's, whose words are its own affair.
            assert!(name == "search" || !rendered.contains("answer>"), "{name}: {rendered}");
        }
        assert_eq!(fill("{answer}{x}{{ question }}{answer", &format), "result{x}{{ question }}{answer");
    }

    #[test]
    fn a_prompt_that_cannot_work_is_refused_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ircot.txt");
        std::fs::write(folder.path().join("notes.md"), "not a prompt").unwrap();
        for (text, expected) in
            [("no variable", "question"), ("{{ question }} {{ passages }}", "passages"), ("{{ question", "ircot.txt")]
        {
            std::fs::write(&path, text).unwrap();
            let message = Prompts::read(folder.path()).unwrap_err().to_string();
            assert!(message.contains("ircot.txt") && message.contains(expected), "{message}");
        }
        assert!(Prompts::read(folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}
