//! Making tags in a document harmless.

use crate::EpisodeFormat;

impl EpisodeFormat {
    /// Replaces the angle brackets of every tag of the format by `&lt;` and `&gt;`.
    ///
    /// Opening and closing tags are found in any case and with blanks and slashes inside, such as `< / Answer >` or `<//think>`,
    /// also where the closing bracket is missing. All other text stays as it is. Idempotent.
    pub fn escape_tags(&self, text: &str) -> String {
        let mut escaped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            let (before, bracket) = rest.split_at(start);
            escaped.push_str(before);
            let inside = &bracket[1..];
            match self.tag_len(inside) {
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

    /// Bytes from after the `<` to before the `>` if a tag of the format begins here.
    fn tag_len(&self, inside: &str) -> Option<usize> {
        let name = inside.trim_start_matches(|sign: char| sign == '/' || sign.is_whitespace());
        let after = self.tags().find_map(|tag| {
            let (head, after) = name.split_at_checked(tag.len())?;
            // Not a longer word, such as <answers>.
            let ends = !after.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            (ends && head.eq_ignore_ascii_case(tag)).then_some(after)
        })?;
        Some(inside.len() - after.trim_start().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(text: &str) -> String {
        EpisodeFormat::default().escape_tags(text)
    }

    #[test]
    fn tags_lose_their_brackets() {
        assert_eq!(escape("a <answer> b </answer> c"), "a &lt;answer&gt; b &lt;/answer&gt; c");
        assert_eq!(escape("< / ANSWER\n>x"), "&lt; / ANSWER\n&gt;x");
        assert_eq!(escape("</information"), "&lt;/information");
        assert_eq!(escape("<//think>"), "&lt;//think&gt;");
        assert_eq!(escape("<search query=\"x\">"), "&lt;search query=\"x\">");
        assert_eq!(escape("<<think>"), "<&lt;think&gt;");
    }

    #[test]
    fn other_text_stays() {
        for text in ["1 < 2 > 0", "<b>bold</b>", "<answers>", "<answer_1>", "<", "</", "< answer", "a<é", "<sql>"] {
            let expected = if text == "< answer" { "&lt; answer" } else { text };
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn the_tags_are_those_of_the_format() {
        let tools = vec!["search".to_owned(), "search_web".to_owned(), "sql".to_owned()];
        let format = EpisodeFormat { tools, information: "result".into(), ..EpisodeFormat::default() };
        assert_eq!(format.escape_tags("<sql> </search_web>"), "&lt;sql&gt; &lt;/search_web&gt;");
        assert_eq!(format.escape_tags("</result></information>"), "&lt;/result&gt;</information>");
    }
}
