//! The error type of a `main`, so that a person reads the message and not its Debug form.

use std::error::Error;
use std::fmt;

use zerosearch_metrics::legible;

/// Any error, shown by its message, which is made [`legible`]: it may quote a file or a server.
/// For `fn main() -> Result<(), Failure>`.
///
/// ```
/// fn read() -> Result<(), zerosearch::Failure> {
///     zerosearch::lm::LanguageModel::read(std::path::Path::new("no/such/folder"))?;
///     Ok(())
/// }
/// let message = format!("{:?}", read().unwrap_err());
/// assert!(message.starts_with("no/such/folder/config.json: "));
/// ```
pub struct Failure(Box<dyn Error>);

/// The result of a program that reports any error.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that no error type stands for.
    pub fn message(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&legible(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_does_not_act_on_the_terminal() {
        let failure = Failure::message("questions.jsonl, row 2: `id` is \u{1b}]0;owned\u{7}q\u{202e}\nline 2");
        assert_eq!(format!("{failure:?}"), "questions.jsonl, row 2: `id` is \u{fffd}]0;owned\u{fffd}q\u{fffd}\nline 2");
    }
}
