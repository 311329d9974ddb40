//! The thoughts of a model that reasons before it writes.

/// How models open and close a thought, in lower case.
const TAGS: [(&str, &str); 12] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    // Seed-OSS, Magistral, Kimi.
    ("<seed:think>", "</seed:think>"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    // Command A, OpenThinker.
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    // gpt-oss, Gemma 4: the reply has a channel of its own.
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("<|channel|>commentary", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
];

/// A model's words without its thoughts.
///
/// A thought begins where a line begins with an opening tag, and ends with the closing one; one that was cut off takes the rest of
/// the text. A closing tag alone ends a thought that the chat template opened: all that stands before it goes. Tags that a line
/// merely mentions, the opening one before the closing one, stay.
pub(crate) fn without_thoughts(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut kept = String::new();
    let (mut start, mut position) = (0, 0);
    while let Some(tag) = next_tag(&lower, position) {
        let begins_line = text[start..tag.start].rsplit('\n').next().is_some_and(|before| before.trim().is_empty());
        let find_close = |until: usize| lower[tag.end..until].find(tag.close).map(|at| tag.end + at + tag.close.len());
        if !tag.opens {
            kept.clear();
            (start, position) = (tag.end, tag.end);
        } else if begins_line {
            kept.push_str(&text[start..tag.start]);
            let Some(end) = find_close(lower.len()) else { return kept };
            (start, position) = (end, end);
        } else {
            let line_end = lower[tag.end..].find('\n').map_or(lower.len(), |length| tag.end + length);
            position = find_close(line_end).unwrap_or(tag.end);
        }
    }
    kept + &text[start..]
}

struct Tag {
    start: usize,
    end: usize,
    opens: bool,
    close: &'static str,
}

/// The first tag at or after a position.
fn next_tag(lower: &str, position: usize) -> Option<Tag> {
    let find = |(open, close): &(&'static str, &'static str)| {
        let at = |tag: &'static str, opens| {
            let start = position + lower[position..].find(tag)?;
            Some(Tag { start, end: start + tag.len(), opens, close })
        };
        [at(open, true), at(close, false)].into_iter().flatten().min_by_key(|tag| tag.start)
    };
    TAGS.iter().filter_map(find).min_by_key(|tag| tag.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_go_and_words_stay() {
        for (text, words) in [
            ("", ""),
            ("no thought\nat all", "no thought\nat all"),
            ("<think>\nhm\n</think>\n\nwords", "\n\nwords"),
            ("<think>\n\n</think>\n\nwords", "\n\nwords"),
            ("  <THINK>hm</Think>words", "  words"),
            ("hm\n</think>\nwords", "\nwords"),
            ("</think>words", "words"),
            ("<think>hm", ""),
            ("<think>", ""),
            ("<think>a</think><think>b</think>words", "words"),
            ("<think>a<think>b</think>c</think>words", "words"),
            ("<think>I close with </think> then.\nNow.</think>\nwords", "\nwords"),
            ("one\n<think>hm</think>\ntwo", "one\n\ntwo"),
            ("one\n<think>cut off", "one\n"),
            ("<thinking>a</thinking>words", "words"),
            ("<thought>a</thought><reasoning>b</reasoning>words", "words"),
            ("[THINK]hm[/THINK]words", "words"),
            ("◁think▷hm◁/think▷words", "words"),
            ("<seed:think>hm</seed:think>words", "words"),
            ("<|START_THINKING|>hm<|END_THINKING|>words", "words"),
            ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>words", "words"),
            ("analysis<|message|>hm\n<|channel|>final<|message|>words", "words"),
            ("<|channel>thought\nhm<channel|>words", "words"),
            // A document about such models.
            (
                "Doc 1: R1 reasons between <think> and </think> tags.",
                "Doc 1: R1 reasons between <think> and </think> tags.",
            ),
            ("Doc 1: It begins with <think>.\nDoc 2: more", "Doc 1: It begins with <think>.\nDoc 2: more"),
            // A thought that mentions the tag, in a template that opened it.
            ("I write after <think>.\nNow.\n</think>\nwords", "\nwords"),
            ("é◁think▷\nİ</THINK>words", "words"),
        ] {
            assert_eq!(without_thoughts(text), words, "{text:?}");
        }
    }
}
