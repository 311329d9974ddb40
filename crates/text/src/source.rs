//! A chat template's source in the dialect of Jinja that minijinja reads.

/// Rewrites the parts of a template that Jinja2, as transformers sets it up, reads in another way:
///
/// - ends of lines are `\n`, whatever the file has;
/// - escapes in texts are Python's: `\/` keeps its backslash, one before the end of a line vanishes with it;
/// - transformers' block `generation`, which marks the model's words, prints them as they are.
pub(crate) fn for_minijinja(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        rewritten.push_str(before);
        rest = match tag.as_bytes().get(1) {
            Some(b'#') => copy(tag, tag[2..].find("#}").map_or(tag.len(), |length| length + 4), &mut rewritten),
            Some(b'{') => rewrite_code(tag, "}}", &mut rewritten),
            Some(b'%') => rewrite_block(tag, &mut rewritten),
            _ => copy(tag, 1, &mut rewritten),
        };
    }
    rewritten + rest
}

fn copy<'s>(text: &'s str, length: usize, to: &mut String) -> &'s str {
    let (copied, rest) = text.split_at(length);
    to.push_str(copied);
    rest
}

fn rewrite_block<'s>(tag: &'s str, to: &mut String) -> &'s str {
    let mut code = String::new();
    let rest = rewrite_code(tag, "%}", &mut code);
    match word(&code) {
        // A scope of its own, as the call of a macro that it is in transformers.
        "generation" => to.push_str(&code.replacen("generation", "with", 1)),
        "endgeneration" => to.push_str(&code.replacen("endgeneration", "endwith", 1)),
        "raw" => {
            to.push_str(&code);
            let is_end = |(start, _): &(usize, &str)| word(&rest[*start..]) == "endraw";
            return copy(rest, rest.match_indices("{%").find(is_end).map_or(rest.len(), |(start, _)| start), to);
        }
        _ => to.push_str(&code),
    }
    rest
}

/// The word that a block begins with: `for` of `{%- for … %}`.
fn word(block: &str) -> &str {
    let inside = block.trim_start_matches("{%").trim_start_matches(['-', '+']).trim_start();
    &inside[..inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len())]
}

/// Code up to its end that stands outside of texts and brackets.
fn rewrite_code<'s>(tag: &'s str, end: &str, to: &mut String) -> &'s str {
    let mut depth = 0usize;
    let mut rest = copy(tag, 2, to);
    while let Some(next) = rest.chars().next() {
        if depth == 0 && rest.starts_with(end) {
            return copy(rest, end.len(), to);
        }
        match next {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        rest = match next {
            '\'' | '"' => rewrite_text(rest, next, to),
            _ => copy(rest, next.len_utf8(), to),
        };
    }
    rest
}

fn rewrite_text<'s>(text: &'s str, quote: char, to: &mut String) -> &'s str {
    let mut rest = copy(text, 1, to);
    while let Some(next) = rest.chars().next() {
        if next == quote {
            return copy(rest, 1, to);
        }
        let escaped = if next == '\\' { rest[1..].chars().next() } else { None };
        rest = match escaped {
            None => copy(rest, next.len_utf8(), to),
            Some('\n') => &rest[2..],
            Some('/') => {
                to.push_str(r"\\/");
                &rest[2..]
            }
            Some('a') => {
                to.push('\u{7}');
                &rest[2..]
            }
            Some('v') => {
                to.push('\u{b}');
                &rest[2..]
            }
            Some('U') => {
                let code = rest.get(2..10).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                match code.and_then(char::from_u32) {
                    Some(c) => {
                        to.push(c);
                        &rest[10..]
                    }
                    None => copy(rest, 2, to),
                }
            }
            Some(other) => copy(rest, 1 + other.len_utf8(), to),
        };
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_rewritten() {
        for (source, expected) in [
            ("a\r\nb\rc", "a\nb\nc"),
            (r"{{ 'a\/b\n' }}\/", r"{{ 'a\\/b\n' }}\/"),
            ("{{ 'a\\\nb' }}\\\n", "{{ 'ab' }}\\\n"),
            (r#"{{ {'a': {'b': "}}\a"}} }}\a"#, "{{ {'a': {'b': \"}}\u{7}\"}} }}\\a"),
            (r"{{ '\U0001F600\U00' }}", r"{{ '😀\U00' }}"),
            ("{%- generation -%}x{%endgeneration%}", "{%- with -%}x{%endwith%}"),
            ("{# {% generation %} ' #}{{ '{% generation %}' }}", "{# {% generation %} ' #}{{ '{% generation %}' }}"),
            (
                r"{% raw %}{% generation %}'\/'{% endraw %}{% generation %}",
                r"{% raw %}{% generation %}'\/'{% endraw %}{% with %}",
            ),
            ("{% set generation = 1 %}{ {%", "{% set generation = 1 %}{ {%"),
            ("{# open", "{# open"),
            ("{{ 'open", "{{ 'open"),
        ] {
            assert_eq!(for_minijinja(source), expected, "{source:?}");
        }
    }
}
