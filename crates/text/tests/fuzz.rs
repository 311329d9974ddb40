//! Whatever comes in, nothing panics, and what is computed in pieces is what the whole would give.
//!
//! `PROPTEST_CASES=100000 cargo test -p zerosearch-text --test fuzz` looks for longer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use zerosearch_text::{ChatTemplate, Codec, Message, SpecialTokens, StopScanner, train_bpe};

static BPE: LazyLock<Codec> = LazyLock::new(|| {
    let texts = ["<search> Zürich </search> <answer> 東京 😀 </answer>", "the the then aaa aab aba </s> </search>"];
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    let texts = texts.into_iter().cycle().take(40).map(str::to_owned);
    train_bpe(texts, 330, &["<information>"], &special).unwrap()
});

/// Every byte is a token, so that tokens end within characters.
static BYTES: LazyLock<Codec> =
    LazyLock::new(|| train_bpe(std::iter::empty(), 256, &[], &SpecialTokens::default()).unwrap());

/// Strings that overlap themselves and each other, with characters of one to four bytes.
fn stop() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ab]{0,3}",
        2 => "[<>/s ]{1,3}",
        2 => "[ué東😀\u{fffd}]{1,2}",
        1 => proptest::sample::select(vec!["</search>", "</answer>", "<|end|>", "the"]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn tokens(codec: &'static Codec) -> impl Strategy<Value = Vec<u32>> {
    let text = prop_oneof![
        proptest::collection::vec(stop(), 0..8).prop_map(|pieces| pieces.concat()),
        "[ab</> s]{0,16}",
        any::<String>(),
    ];
    let piece = prop_oneof![
        4 => text.prop_map(|text| codec.encode_document(&text)),
        // Any ids in any order, unknown ones among them.
        1 => proptest::collection::vec(0..codec.vocab_size() as u32 + 3, 0..8),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// End of each stop string, by searching the whole text since the one before.
fn found_in_the_text(codec: &Codec, stops: &[&str], tokens: &[u32]) -> Vec<(usize, usize)> {
    let (mut found, mut begin) = (Vec::new(), 0);
    for end in 0..tokens.len() {
        let text = codec.decode(&tokens[begin..=end]);
        let ends = stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let ends = ends.filter_map(|(index, stop)| text.find(stop).map(|start| (start + stop.len(), index)));
        if let Some((_, index)) = ends.min() {
            found.push((end, index));
            begin = end + 1;
        }
    }
    found
}

fn assert_found(codec: &Codec, stops: &[String], tokens: &[u32]) -> Result<(), TestCaseError> {
    let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
    let mut scanner = StopScanner::new(codec, &stops);
    let scanned = tokens.iter().enumerate().filter_map(|(end, &token)| Some((end, scanner.push(token)?)));
    prop_assert_eq!(scanned.collect::<Vec<_>>(), found_in_the_text(codec, &stops, tokens));
    Ok(())
}

/// Templates that mostly parse, from what templates are made of.
fn template() -> impl Strategy<Value = String> {
    let value = proptest::sample::select(vec![
        "messages",
        "message",
        "message.content",
        "message['role']",
        "messages[0]",
        "messages[-1].content",
        "messages[1:]",
        "bos_token",
        "add_generation_prompt",
        "loop.first",
        "loop.index0",
        "missing",
        "none",
        "true",
        "0",
        "-1",
        "1.5",
        "'%'",
        "'é'",
        "[1, 'x']",
        "{'a': none}",
        "raise_exception('no')",
        "strftime_now('%d %Q')",
        "strftime_now('%d %b %Y')",
        "namespace(n=0)",
        "range(3)",
        "dict(a=1)",
    ]);
    let filter = proptest::sample::select(vec![
        "",
        "|trim",
        "|length",
        "|tojson",
        "|tojson(indent=2)",
        "|tojson(indent=-1)",
        "|first",
        "|last",
        "|join(',')",
        "|upper",
        "|int",
        "|list",
        "|default('d')",
        "|reject('equalto', 1)|list",
        "|items",
        ".strip()",
        ".split('a')",
        "[0]",
        "[-1]",
        "[1:2]",
        ".get('a')",
        ".startswith('a')",
        " + 'x'",
        " + 1",
        " * 3",
        " % 2",
        " is none",
        " is defined",
        " is mapping",
        " in messages",
        " == 'user'",
    ]);
    let expression = (value, filter).prop_map(|(value, filter)| format!("{value}{filter}"));
    let leaf = prop_oneof![
        4 => expression.clone().prop_map(|expression| format!("{{{{ {expression} }}}}")),
        1 => expression.prop_map(|expression| format!("{{%- set message = {expression} -%}}")),
        2 => proptest::sample::select(vec![
            "text\n", "  ", "é", "{%", "%}", "{%}", "{{", "}}", "{#", "#}", "{# c #}", "{%-", "-%}", "{% else %}", "{% break %}", "{% endfor %}",
            "{% generation %}", "{%- endgeneration -%}", "{% raw %}", "{% endraw %}", "{% set ns.n = 1 %}", "'", "\"", "\\",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let block = |body: BoxedStrategy<String>| {
        prop_oneof![
            body.clone().prop_map(|body| format!("{{% for message in messages %}}{body}{{%- endfor %}}")),
            body.clone().prop_map(|body| format!("{{% if message.role == 'user' %}}{body}{{% endif %}}")),
            body.clone().prop_map(|body| format!("{{%- generation -%}}{body}{{%- endgeneration -%}}")),
            body.clone()
                .prop_map(|body| format!("{{% macro m(message) %}}{body}{{% endmacro %}}{{{{ m(messages[0]) }}}}")),
            proptest::collection::vec(body, 0..4).prop_map(|bodies| bodies.concat()),
        ]
    };
    leaf.prop_recursive(4, 24, 4, move |body| block(body.boxed()))
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let role = prop_oneof![
        proptest::sample::select(vec!["user", "system", "assistant"]).prop_map(str::to_owned),
        any::<String>()
    ];
    let message = (role, any::<String>()).prop_map(|(role, content)| Message { role, content });
    proptest::collection::vec(message, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stops_are_found_where_the_text_has_them(
        stops in proptest::collection::vec(stop(), 0..4), bpe in tokens(&BPE), bytes in tokens(&BYTES)
    ) {
        assert_found(&BPE, &stops, &bpe)?;
        assert_found(&BYTES, &stops, &bytes)?;
    }

    #[test]
    fn any_template_renders_or_says_why_not(
        source in template(), messages in messages(), prompt: bool, bos in any::<String>()
    ) {
        let rendered = ChatTemplate::new(&source).and_then(|template| {
            template.with_tokens(BTreeMap::from([("bos_token".into(), bos)])).render(&messages, prompt)
        });
        if let Err(error) = rendered {
            prop_assert!(error.to_string().starts_with("template chat_template: "), "{}", error);
        }
    }
}

#[test]
fn a_tag_that_is_nothing_but_its_borders_is_an_error() {
    assert!(ChatTemplate::new("{%}").is_err());
    assert!(ChatTemplate::new("{%%}").is_err());
}
