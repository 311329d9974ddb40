//! The prompt that a policy is given with a question.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use zerosearch_files::read_text;
use zerosearch_grammar::EpisodeFormat;

use crate::{ChatTemplate, Codec, Message, TextError};

const NAME: &str = "prompt";

/// Puts a question into words that a model was trained on.
#[derive(Clone, Debug)]
pub struct PromptTemplate {
    environment: Environment<'static>,
    /// The text becomes a user message.
    chat: Option<ChatTemplate>,
    /// Stands before the text.
    prefix: String,
}

impl PromptTemplate {
    /// A template in Jinja's language with the variable `question`. As everywhere in Jinja, one line break at its end is dropped.
    ///
    /// # Errors
    /// When it does not parse, or does not use `question`.
    pub fn new(source: &str) -> Result<Self, TextError> {
        let failed = |error: minijinja::Error| TextError::Template { name: NAME.into(), message: format!("{error}") };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned(NAME, source.to_owned()).map_err(failed)?;
        let uses_question =
            environment.get_template(NAME).map_err(failed)?.undeclared_variables(false).contains("question");
        if !uses_question {
            let message =
                "it does not use the variable `question`: write {{ question }} where the question belongs".into();
            return Err(TextError::Template { name: NAME.into(), message });
        }
        Ok(Self { environment, chat: None, prefix: String::new() })
    }

    /// Reads a template from a file.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`new`](Self::new).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let source = read_text(path)?;
        Self::new(&source).map_err(|error| match error {
            TextError::Template { message, .. } => TextError::Template { name: path.display().to_string(), message },
            other => other,
        })
    }

    /// The template that fits a model: `search_prompt.jinja` from its folder if there is one; else the
    /// [`prompt`](EpisodeFormat::prompt) of the default format, as a user message if the model has a chat template, and plain if
    /// not (after the beginning-of-text token, where the tokenizer puts one).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_model(codec: &Codec) -> Result<Self, TextError> {
        Self::for_model_or(codec, &EpisodeFormat::default().prompt)
    }

    /// As [`for_model`](Self::for_model), with another instruction in the place of the default format's: that of another
    /// format, or of a baseline that does not search.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_model_or(codec: &Codec, instruction: &str) -> Result<Self, TextError> {
        if let Some(source) = codec.search_prompt() {
            return Self::new(source);
        }
        Self::for_instruction(codec, instruction)
    }

    /// An instruction that is put to a model whatever prompt it brings: as a user message if the model has a chat template, and
    /// plain if not.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_instruction(codec: &Codec, instruction: &str) -> Result<Self, TextError> {
        let mut template = Self::new(instruction)?;
        template.chat = codec.chat_template().cloned();
        if template.chat.is_none() {
            template.prefix = codec.automatic_bos().unwrap_or_default();
        }
        Ok(template)
    }

    /// The prompt for a question, to be encoded by [`Codec::encode`].
    ///
    /// # Errors
    /// When the template fails: an unknown variable, or a chat template that refuses a user message.
    pub fn render(&self, question: &str) -> Result<String, TextError> {
        self.render_with(question, &[])
    }

    /// As [`render`](Self::render), for a template that has further variables, given by name and value.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_with(&self, question: &str, variables: &[(&str, &str)]) -> Result<String, TextError> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().chain([("question", question)]).collect();
        let text = self
            .environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from(Serde(&variables))))
            .map_err(|error| TextError::Template { name: NAME.into(), message: format!("{error}") })?;
        match &self.chat {
            Some(chat) => chat.render(&[Message::user(text)], true),
            None => Ok(format!("{}{text}", self.prefix)),
        }
    }
}
