//! What a `main` returns, so that a person reads the message and not its Debug form.

use std::error::Error;
use std::fmt;

/// Any error, shown by its message: for `fn main() -> Result<(), Failure>`.
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
        write!(formatter, "{}", self.0)
    }
}
