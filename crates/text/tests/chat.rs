//! Promises about chat templates, on short templates in the manner of well-known models.

use std::collections::BTreeMap;

use zerosearch_text::{ChatTemplate, Message};

/// ChatML with a default system message, tools and the last-message test, as Qwen 2.5 has it.
const QWEN: &str = r#"
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

/// Header tokens, a date, slicing and Python's string methods, as Llama 3.2 has it.
const LLAMA: &str = r#"{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Everything on one line, as SmolLM 2 has it.
const SMOL: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Smol<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn render(source: &str, messages: &[Message], add_generation_prompt: bool) -> String {
    let tokens = BTreeMap::from([("bos_token".to_owned(), "<|begin|>".to_owned())]);
    ChatTemplate::new(source).unwrap().with_tokens(tokens).render(messages, add_generation_prompt).unwrap()
}

fn expression(source: &str) -> String {
    render(source, &[Message::user("grüß \"dich\" <b>\n")], false)
}

#[test]
fn qwen() {
    assert_eq!(
        render(QWEN, &[Message::user("Hi")], true),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(QWEN, &[Message::system("Be brief."), Message::user("Hi"), Message::assistant("Ho")], false),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    );
}

#[test]
fn llama() {
    let messages = [Message::system(" Be brief. "), Message::user(" Hi\n")];
    let expected = "<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>\
                    <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(render(LLAMA, &messages, true), expected);
    let dated = ChatTemplate::new(LLAMA).unwrap().with_date(2026, 1, 2).render(&messages, true).unwrap();
    assert!(dated.contains("Today Date: 02 Jan 2026\n"));
}

#[test]
fn smol() {
    assert_eq!(
        render(SMOL, &[Message::user("Hi")], true),
        "<|im_start|>system\nYou are Smol<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(SMOL, &[Message::system("S"), Message::user("Hi")], false),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
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
