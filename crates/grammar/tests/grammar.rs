//! Promises about tags: escaped documents have none, and actions are read as they were written.

use proptest::prelude::*;
use zerosearch_grammar::{Action, EpisodeFormat};

/// Whether a tag of the grammar stands at the beginning, in any case and with any blanks.
fn is_tag(text: &str) -> bool {
    let Some(end) = text.find('>') else { return false };
    let Some(inside) = text[..end].strip_prefix('<') else { return false };
    let name: String = inside.trim().trim_start_matches('/').trim().to_lowercase();
    ["think", "search", "answer", "information"].contains(&name.as_str())
}

fn has_tag(text: &str) -> bool {
    text.char_indices().any(|(start, _)| is_tag(&text[start..]))
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "<",
        ">",
        "/",
        " ",
        "\n",
        "\u{a0}",
        "think",
        "search",
        "Answer",
        "INFORMATION",
        "</",
        "<answer>",
        "</information>",
        "< / Search >",
        "&lt;",
        "&",
        "x",
        "é",
        "Kelvin \u{212a}",
    ]);
    prop_oneof![proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat()), any::<String>()]
}

fn word() -> impl Strategy<Value = String> {
    "[a-zé0-9<>/ ]{0,8}"
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn escaped_text_has_no_tags(text in hostile()) {
        let format = EpisodeFormat::default();
        let escaped = format.escape_tags(&text);
        prop_assert!(!has_tag(&escaped), "{escaped}");
        prop_assert_eq!(&format.escape_tags(&escaped), &escaped);
    }

    #[test]
    fn escaping_changes_brackets_only(text in hostile()) {
        let plain = |text: &str| text.replace("&lt;", "<").replace("&gt;", ">");
        prop_assert_eq!(plain(&EpisodeFormat::default().escape_tags(&text)), plain(&text));
    }

    #[test]
    fn a_block_is_the_only_block(documents in proptest::collection::vec(hostile(), 0..4)) {
        let documents: Vec<(&str, &str)> = documents.iter().map(|text| ("", text.as_str())).collect();
        let format = EpisodeFormat::default();
        let block = format.information(&format.documents(&documents));
        let inside = block.strip_prefix("\n\n<information>").and_then(|rest| rest.strip_suffix("</information>\n\n"));
        let inside = inside.expect("the block has its borders");
        prop_assert!(!has_tag(inside), "{inside}");
        prop_assert_eq!(inside.lines().count(), documents.len().max(1));
    }

    #[test]
    fn what_was_written_is_what_is_read(before in word(), query in "[a-zé][a-zé0-9 ]{0,12}", search in any::<bool>()) {
        let input = query.trim().to_owned();
        let (tag, action) = match search {
            true => ("search", Action::Call { tool: "search".into(), input }),
            false => ("answer", Action::Answer(input)),
        };
        let text = format!("{before}<{tag}> {query} </{tag}>");
        prop_assert_eq!(EpisodeFormat::default().parse_action(&text), action);
    }

    #[test]
    fn reading_never_fails(text in hostile()) {
        if let Action::Call { input, .. } = EpisodeFormat::default().parse_action(&text) {
            prop_assert!(!input.trim().is_empty() && text.contains(&input));
        }
    }
}

#[test]
fn the_correction_names_the_tags() {
    for format in [EpisodeFormat::default(), EpisodeFormat::zerosearch(), EpisodeFormat::search_r1()] {
        assert!(["<search>", "</search>", "<answer>", "</answer>"].iter().all(|tag| format.corrective.contains(tag)));
    }
}
