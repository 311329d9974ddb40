//! Promises about chat templates: those of well-known models (`chat_templates/`, golden texts made by `make_golden.py`),
//! and what templates may use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use zerosearch_text::{ChatTemplate, Message};

fn render(source: &str, messages: &[Message], add_generation_prompt: bool) -> String {
    let tokens = BTreeMap::from([("bos_token".to_owned(), "<|begin|>".to_owned())]);
    ChatTemplate::new(source).unwrap().with_tokens(tokens).render(messages, add_generation_prompt).unwrap()
}

fn expression(source: &str) -> String {
    render(source, &[Message::user("grüß \"dich\" <b>\n")], false)
}

#[derive(Deserialize)]
struct Golden {
    date: (u16, u8, u8),
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    tokens: BTreeMap<String, String>,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: String,
}

#[test]
fn the_templates_of_well_known_models_render_as_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates");
    let Golden { date: (year, month, day), cases } = golden("golden.json");
    for case in cases {
        let source = fs::read_to_string(folder.join(format!("{}.jinja", case.template))).unwrap();
        let template = ChatTemplate::new(&source).unwrap().with_tokens(case.tokens).with_date(year, month, day);
        let text = template.render(&case.messages, case.add_generation_prompt).unwrap();
        assert_eq!(text, case.text, "{}: {:?}", case.template, case.messages);
    }
}

#[derive(Deserialize)]
struct Expressions {
    date: (u16, u8, u8),
    messages: Vec<Message>,
    tokens: BTreeMap<String, String>,
    expressions: Vec<(String, String)>,
}

fn golden<T: for<'a> Deserialize<'a>>(file: &str) -> T {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates");
    serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
}

#[test]
fn what_templates_are_made_of_means_what_it_means_in_transformers() {
    let Expressions { date: (year, month, day), messages, tokens, expressions } = golden("expressions.json");
    for (source, text) in expressions {
        let template = ChatTemplate::new(&source).map(|t| t.with_tokens(tokens.clone()).with_date(year, month, day));
        let rendered = template.and_then(|template| template.render(&messages, false));
        assert_eq!(rendered.map_err(|error| error.to_string()), Ok(text), "{source}");
    }
}

#[test]
fn dates_print_as_in_python() {
    #[derive(Deserialize)]
    struct Dates {
        format: String,
        dates: Vec<((u16, u8, u8), String)>,
    }
    let Dates { format, dates } = golden("dates.json");
    let template = ChatTemplate::new(&format!("{{{{ strftime_now({format:?}) }}}}")).unwrap();
    for ((year, month, day), text) in dates {
        let rendered = template.clone().with_date(year, month, day).render(&[], false).unwrap();
        assert_eq!(rendered, text, "{year}-{month}-{day}");
    }
}

#[test]
fn the_ends_of_a_templates_lines_may_be_those_of_windows() {
    let source = "a\r\n{% if true %}\r\n b\r\n{% endif %}\r\n{{ 'q\r\nr' }}\rz\r\n";
    assert_eq!(expression(source), "a\n b\nq\nr\nz");
}

#[test]
fn a_template_is_told_the_same_date_every_day() {
    assert_eq!(expression("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
}

#[test]
fn block_lines_leave_no_trace() {
    let source = "a\n    {% if true %}\nb\n    {% endif %}\nc\n";
    assert_eq!(expression(source), "a\nb\nc");
}

#[test]
fn json_is_spelled_as_in_python() {
    assert_eq!(expression("{{ messages[0] | tojson }}"), r#"{"role": "user", "content": "grüß \"dich\" <b>\n"}"#);
    assert_eq!(expression("{{ [1, 2.0, none, true, [], {}, 'x'] | tojson }}"), r#"[1, 2.0, null, true, [], {}, "x"]"#);
    assert_eq!(expression("{{ {'b': 1, 'a': [2]} | tojson(indent=2) }}"), "{\n  \"b\": 1,\n  \"a\": [\n    2\n  ]\n}");
    assert_eq!(expression("{{ 'ß' | tojson(ensure_ascii=False) }}"), "\"ß\"");
    let greedy = ChatTemplate::new("{{ messages | tojson(indent=9223372036854775807) }}").unwrap();
    let message = greedy.render(&[], false).unwrap_err().to_string();
    assert!(message.contains("indent=9223372036854775807") && message.contains("at most"), "{message}");
}

#[test]
fn python_works_as_in_python() {
    assert_eq!(expression("{{ '  x</think>y '.strip().split('</think>')[-1] }}"), "y");
    assert_eq!(
        expression("{{ messages[0].content.startswith('gr') }}{{ messages[0].get('tool') is none }}"),
        "TrueTrue"
    );
    assert_eq!(
        expression(
            "{% set ns = namespace(n=0) %}{% for x in [1, 2, 3] %}{% if x == 3 %}{% break %}{% endif %}{% set ns.n = x %}{% endfor %}{{ ns.n }}"
        ),
        "2"
    );
}

#[test]
fn generation_blocks_print_their_words() {
    let source = "{% for m in messages %}\n{%- generation -%}\n{{ m.role }}\n{%- endgeneration -%}\n!{% endfor %}{% generation %}{{ 'generation' }}{% endgeneration %}";
    assert_eq!(expression(source), "user!generation");
    let scoped = "{% generation %}{% set word = 'a' %}{{ word }}{% endgeneration %}{{ word is defined }}";
    assert_eq!(expression(scoped), "aFalse");
}

#[test]
fn a_refusal_is_an_error_with_the_templates_own_words() {
    let template = ChatTemplate::new(
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system message must come first') }}{% endif %}",
    )
    .unwrap();
    let message = template.render(&[Message::user("Hi")], true).unwrap_err().to_string();
    assert!(message.contains("a system message must come first"), "{message}");
    assert!(template.render(&[Message::system("S")], true).is_ok());
}
