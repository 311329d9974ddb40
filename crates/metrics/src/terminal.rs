//! Standard output, for a person.

use std::fmt;
use std::io::{IsTerminal, Write};

use crate::{Author, Legible, legible};

/// Prints a line to stdout, made [`legible`](fn@crate::legible).
///
/// That it cannot be printed is no error: a reader that closed the pipe has seen enough, and must not end a run.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{}", legible(&line.to_string()));
}

/// An episode on stdout as it grows: made [`legible`](fn@crate::legible), and on a terminal coloured by who wrote it.
///
/// ```
/// use zerosearch_metrics::{Author, Transcript};
///
/// let mut transcript = Transcript::stdout();
/// transcript.write(Author::Policy, "<search>capital of Chad</search>");
/// transcript.write(Author::Observation, "Doc 1: N'Djamena\u{1b}[2J");
/// ```
#[derive(Clone, Debug)]
pub struct Transcript {
    legible: Legible,
    colours: bool,
}

impl Transcript {
    /// Begins with nothing.
    pub fn stdout() -> Self {
        Self { legible: Legible::default(), colours: std::io::stdout().is_terminal() }
    }

    /// Prints what `author` wrote next.
    pub fn write(&mut self, author: Author, text: &str) {
        let mut out = std::io::stdout().lock();
        // As in `say`.
        let _ = out.write_all(self.painted(author, text).as_bytes());
        let _ = out.flush();
    }

    fn painted(&mut self, author: Author, text: &str) -> String {
        let text = self.legible.push(text);
        let colour = match author {
            Author::Prompt => 90,
            Author::Policy => 32,
            Author::Observation => 36,
        };
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_escape_sequences_are_our_own() {
        let text = "Doc\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{1b}[0m";
        let shown = "Doc\u{fffd}]0;owned\u{fffd}\u{fffd}[2J\u{fffd}31m\u{fffd}[0m";
        let mut transcript = Transcript { legible: Legible::default(), colours: false };
        assert_eq!(transcript.painted(Author::Observation, text), shown);
        transcript.colours = true;
        assert_eq!(transcript.painted(Author::Observation, text), format!("\x1b[36m{shown}\x1b[0m"));
    }
}
