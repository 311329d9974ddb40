//! A server's words in our messages.

/// The first line or so of a server's words, for a message. Characters that move a cursor or hide are spelled out.
///
/// ```
/// assert_eq!(zerosearch_http::excerpt("{\n  \"error\": 1}"), r#"{ "error": 1}"#);
/// ```
pub fn excerpt(text: &str) -> String {
    const SHOWN: usize = 200;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown = String::new();
    for (count, letter) in words.chars().enumerate() {
        if count == SHOWN {
            shown.push('…');
            break;
        }
        match letter {
            '"' | '\'' | '\\' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_pages_and_control_sequences_are_not_shown() {
        let page = format!("<html>\n  {}", "x".repeat(5000));
        let shown = excerpt(&page);
        assert!(shown.starts_with("<html> x") && shown.chars().count() == 201, "{shown}");
        assert_eq!(excerpt("\u{1b}[2J \u{202e}\"é\\'"), "\\u{1b}[2J \\u{202e}\"é\\'");
    }
}
