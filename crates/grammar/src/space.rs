//! White space around queries and answers.

/// White space as Python's `str.split` and `str.strip` have it: Unicode's, and the four ASCII separators.
///
/// Scores of answers agree with those of the released programs, which are written in Python, to the last character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
