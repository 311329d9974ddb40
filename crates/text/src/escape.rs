//! Making tags in a document harmless.

/// The grammar's tags, by name.
const TAGS: [&str; 4] = ["think", "search", "answer", "information"];

/// Replaces the angle brackets of every tag of the grammar by `&lt;` and `&gt;`.
///
/// Opening and closing tags are found in any case and with blanks and slashes inside, such as `< / Answer >` or `<//think>`,
/// also where the closing bracket is missing. All other text stays as it is. Idempotent.
pub fn escape_tags(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, bracket) = rest.split_at(start);
        escaped.push_str(before);
        let inside = &bracket[1..];
        match tag_len(inside) {
            None => {
                escaped.push('<');
                rest = inside;
            }
            Some(length) => {
                let (tag, after) = inside.split_at(length);
                escaped.push_str("&lt;");
                escaped.push_str(tag);
                rest = after;
                if let Some(after) = after.strip_prefix('>') {
                    escaped.push_str("&gt;");
                    rest = after;
                }
            }
        }
    }
    escaped.push_str(rest);
    escaped
}

/// Bytes from after the `<` to before the `>` if a tag of the grammar begins here.
fn tag_len(inside: &str) -> Option<usize> {
    let name = inside.trim_start_matches(|sign: char| sign == '/' || sign.is_whitespace());
    let after = TAGS.iter().find_map(|tag| {
        let head = name.get(..tag.len())?;
        head.eq_ignore_ascii_case(tag).then(|| &name[tag.len()..])
    })?;
    if after.starts_with(|next: char| next.is_alphanumeric() || next == '_') {
        return None; // a longer word, such as <answers>
    }
    Some(inside.len() - after.trim_start().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_lose_their_brackets() {
        assert_eq!(escape_tags("a <answer> b </answer> c"), "a &lt;answer&gt; b &lt;/answer&gt; c");
        assert_eq!(escape_tags("< / ANSWER\n>x"), "&lt; / ANSWER\n&gt;x");
        assert_eq!(escape_tags("</information"), "&lt;/information");
        assert_eq!(escape_tags("<//think>"), "&lt;//think&gt;");
        assert_eq!(escape_tags("<search query=\"x\">"), "&lt;search query=\"x\">");
        assert_eq!(escape_tags("<<think>"), "<&lt;think&gt;");
    }

    #[test]
    fn other_text_stays() {
        for text in ["1 < 2 > 0", "<b>bold</b>", "<answers>", "<answer_1>", "<", "</", "< answer", "a<é"] {
            let expected = if text == "< answer" { "&lt; answer" } else { text };
            assert_eq!(escape_tags(text), expected);
        }
    }
}
