//! The border between texts and markup.

use crate::Legible;

/// The text made legible, with everything escaped that means something in HTML, inside quotes too.
pub(super) fn escape(text: &str) -> String {
    escape_piece(&mut Legible::default(), text)
}

/// The next piece of a text that is spread over several elements.
pub(super) fn escape_piece(legible: &mut Legible, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in legible.push(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
