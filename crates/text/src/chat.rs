//! Chat templates as Hugging Face tokenizers carry them.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::date::Date;
use crate::source::for_minijinja;
use crate::{TextError, json, python};

const NAME: &str = "chat_template";

/// The date that templates are told: the one that Llama's template falls back to.
const DEFAULT_DATE: Date = Date { year: 2024, month: 7, day: 26 };

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Role of the speaker: `system`, `user`, `assistant`.
    pub role: String,
    /// The text of the message.
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
/// string methods work, `tojson` spells as Python's `json.dumps`, `raise_exception` is an error, and
/// `tools` and `documents` are there and none.
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
        python::install(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", json::dumps);
        add_date(&mut environment, DEFAULT_DATE);
        environment.add_template_owned(NAME, for_minijinja(source)).map_err(failed)?;
        Ok(Self { environment, tokens: BTreeMap::new() })
    }

    /// Sets the tokens that the template refers to by name, such as `bos_token`.
    pub fn with_tokens(mut self, tokens: BTreeMap<String, String>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Sets the date that the template is told by `strftime_now`, at midnight, in no time zone.
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
        // Two that transformers passes whether there are any or not: templates ask `tools is not none`.
        let (tools, documents) = ((), ());
        template.render(context! { messages, tools, documents, add_generation_prompt, ..tokens }).map_err(failed)
    }
}

fn add_date(environment: &mut Environment<'static>, date: Date) {
    environment.add_function("strftime_now", move |format: &str| date.format(format));
}

fn failed(error: Error) -> TextError {
    TextError::Template { name: NAME.into(), message: format!("{error}") }
}
