//! Chat templates as Hugging Face tokenizers carry them.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::date::Date;
use crate::{TextError, json};

const NAME: &str = "chat_template";

/// The date that templates are told: the one that Llama's template falls back to.
const DEFAULT_DATE: Date = Date { year: 2024, month: 7, day: 26 };

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of the system.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// A model's chat template. Renders as transformers does: block lines leave no trace, Python's
/// string methods work, `tojson` spells as Python's `json.dumps`, `raise_exception` is an error.
///
/// One thing is different: `strftime_now` tells a fixed date (26 July 2024 unless
/// [`with_date`](Self::with_date) says otherwise), so that a prompt is the same tomorrow.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn new(source: &str) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", json::dumps);
        add_date(&mut environment, DEFAULT_DATE);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(failed)?;
        Ok(Self { environment, tokens: BTreeMap::new() })
    }

    /// Sets the tokens that the template refers to by name, such as `bos_token`.
    pub fn with_tokens(mut self, tokens: BTreeMap<String, String>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Sets the date that the template is told by `strftime_now`, at midnight.
    pub fn with_date(mut self, year: u16, month: u8, day: u8) -> Self {
        add_date(&mut self.environment, Date { year, month, day });
        self
    }

    /// The conversation as text, to be encoded by [`Codec::encode`](crate::Codec::encode). With
    /// `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// # Errors
    /// When the template fails or refuses the conversation; the message is the template's own.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let tokens = Value::from(Serde(&self.tokens));
        let messages = Value::from(Serde(messages));
        template.render(context! { messages, add_generation_prompt, ..tokens }).map_err(failed)
    }
}

fn add_date(environment: &mut Environment<'static>, date: Date) {
    environment.add_function("strftime_now", move |format: String| date.format(&format));
}

fn failed(error: Error) -> TextError {
    TextError::Template { name: NAME.into(), message: format!("{error}") }
}

/// transformers adds a block `generation` that marks the model's words and prints them as they are;
/// a block that is always taken prints the same.
fn without_generation_tags(source: &str) -> String {
    let mut replaced = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Behind the two characters that open it: in `{%}` nothing is closed.
        let Some(length) = rest[start + 2..].find("%}") else { break };
        let tag = &rest[start..start + 2 + length];
        replaced.push_str(&rest[..start]);
        let word = tag[2..].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        replaced.push_str(&match word {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[start + tag.len()..];
    }
    replaced.push_str(rest);
    replaced
}
