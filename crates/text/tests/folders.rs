//! Promises about model folders: what is read, what is written, and what is refused with which words.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_text::{Codec, Message, PromptTemplate, SpecialTokens, TextError, train_bpe};

const CHAT: &str = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{{ eos_token }}{% endfor %}";

/// A folder with a tokenizer and the given further files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let special = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), pad: None };
    let folder = tempfile::tempdir().unwrap();
    train_bpe(std::iter::once("the sea".to_owned()), 280, &["<|im_end|>"], &special)
        .unwrap()
        .save(folder.path())
        .unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> Result<Codec, TextError> {
    Codec::read(folder.path())
}

fn refused(files: &[(&str, &str)]) -> String {
    load(&folder(files)).unwrap_err().to_string()
}

#[test]
fn a_saved_folder_is_what_was_loaded() {
    let files = [
        ("tokenizer_config.json", "{ \"eos_token\" :\"</s>\", \"chat_template\": null, \"unknown\": 1.0 }"),
        ("special_tokens_map.json", "{}"),
        ("generation_config.json", "{\"eos_token_id\": [1]}"),
        ("search_prompt.jinja", "Q: {{ question }}"),
        ("chat_template.jinja", CHAT),
        ("merges.txt", "#version: 0.2"),
    ];
    let (original, copy) = (folder(&files), tempfile::tempdir().unwrap());
    let target = copy.path().join("deep/er");
    load(&original).unwrap().save(&target).unwrap();
    for (name, text) in files {
        assert_eq!(fs::read_to_string(target.join(name)).unwrap(), text, "{name}");
    }
    let tokenizer = |folder: &Path| fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(tokenizer(original.path()) == tokenizer(&target));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    let marked = folder(&[
        ("tokenizer_config.json", "\u{feff}{\"eos_token\": \"</s>\"}"),
        ("generation_config.json", "\u{feff}{\"eos_token_id\": [7]}"),
        ("chat_template.jinja", &format!("\u{feff}{CHAT}")),
        ("search_prompt.jinja", "\u{feff}Q: {{ question }}"),
    ]);
    let tokenizer = marked.path().join("tokenizer.json");
    fs::write(&tokenizer, format!("\u{feff}{}", fs::read_to_string(&tokenizer).unwrap())).unwrap();
    let codec = load(&marked).unwrap();
    let messages = [Message::user("a")];
    assert_eq!(codec.chat_template().unwrap().render(&messages, true).unwrap(), "[user]a</s>");
    assert!(codec.eos_ids().contains(&7));
    // Nor of the copy, since others do not let it pass.
    let copy = tempfile::tempdir().unwrap();
    codec.save(copy.path()).unwrap();
    for entry in fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read(&path).unwrap().starts_with(b"\xef\xbb\xbf"), "{}", path.display());
    }
}

#[test]
fn ends_of_text_are_gathered_from_every_file() {
    let folder = folder(&[
        ("tokenizer_config.json", r#"{"eos_token": {"content": "<|im_end|>", "special": true}, "bos_token": null}"#),
        ("generation_config.json", r#"{"eos_token_id": [7, 3], "bos_token_id": 1}"#),
        ("config.json", r#"{"eos_token_id": 3, "bos_token_id": 1}"#),
    ]);
    let codec = load(&folder).unwrap();
    assert_eq!(codec.eos_ids(), [codec.token_id("<|im_end|>").unwrap(), 7, 3]);
    assert_eq!(codec.bos_id(), None, "a configured tokenizer without such a token has none");

    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    let bare = load(&folder).unwrap();
    assert_eq!((bare.bos_id(), bare.eos_ids()), (Some(1), &[7, 3][..]));
}

#[test]
fn the_prompt_fits_the_model() {
    let render = |files: &[(&str, &str)]| {
        PromptTemplate::for_model(&load(&folder(files)).unwrap()).unwrap().render("why?").unwrap()
    };

    let plain = render(&[]);
    assert!(plain.starts_with("Answer the question") && plain.ends_with("Question: why?\n"), "{plain}");
    assert!(
        ["<think>", "<search>", "</search>", "<information>", "<answer> Beijing </answer>"]
            .iter()
            .all(|tag| plain.contains(tag))
    );

    assert_eq!(render(&[("chat_template.jinja", CHAT)]), format!("[user]{plain}</s>"));
    assert_eq!(
        render(&[("chat_template.jinja", CHAT), ("search_prompt.jinja", "Q: {{ question }}\nA:")]),
        "Q: why?\nA:"
    );
}

#[test]
fn the_prompt_of_released_checkpoints_ends_its_question_with_a_mark() {
    let codec = load(&folder(&[])).unwrap();
    let prompt = PromptTemplate::for_model_or(&codec, &EpisodeFormat::search_r1().prompt).unwrap();
    let text = prompt.render(" who is it ").unwrap();
    assert!(text.starts_with("Answer the given question. You must conduct reasoning inside <think>"), "{text}");
    assert!(text.ends_with("For example, <answer> Beijing </answer>. Question: who is it?\n"), "{text}");
    assert_eq!(prompt.render("who is it?").unwrap(), text);
}

#[test]
fn a_tokenizer_that_begins_its_texts_begins_the_plain_prompt_too() {
    let folder = folder(&[]);
    let path = folder.path().join("tokenizer.json");
    let id = load(&folder).unwrap().token_id("<s>").unwrap();
    let post = format!(
        r#""post_processor": {{"type": "TemplateProcessing", "single": [{{"SpecialToken": {{"id": "<s>", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}}],
            "pair": [{{"Sequence": {{"id": "A", "type_id": 0}}}}, {{"Sequence": {{"id": "B", "type_id": 1}}}}],
            "special_tokens": {{"<s>": {{"id": "<s>", "ids": [{id}], "tokens": ["<s>"]}}}}}}"#
    );
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replacen(r#""post_processor": null"#, &post, 1)).unwrap();
    let codec = load(&folder).unwrap();
    let prompt = PromptTemplate::for_model(&codec).unwrap().render("why?").unwrap();
    assert!(prompt.starts_with("<s>Answer"), "{prompt}");
    assert_eq!(codec.encode(&prompt).iter().filter(|&&token| token == id).count(), 1);
}

#[test]
fn chat_templates_are_found_wherever_they_are() {
    let message = [Message::user("hi")];
    let render = |files: &[(&str, &str)]| {
        load(&folder(files)).unwrap().chat_template().map(|chat| chat.render(&message, false).unwrap())
    };
    assert_eq!(render(&[]), None);
    let list =
        r#"{"chat_template": [{"name": "tool_use", "template": "tool"}, {"name": "default", "template": "plain"}]}"#;
    assert_eq!(render(&[("tokenizer_config.json", list)]).unwrap(), "plain");
    let text = r#"{"chat_template": "text{{ bos_token }}", "bos_token": "<s>"}"#;
    assert_eq!(render(&[("tokenizer_config.json", text)]).unwrap(), "text<s>");
    assert_eq!(render(&[("tokenizer_config.json", text), ("chat_template.jinja", "file")]).unwrap(), "file");
    let processor = ("chat_template.json", r#"{"chat_template": "processor"}"#);
    assert_eq!(render(&[processor]).unwrap(), "processor");
    assert_eq!(render(&[processor, ("tokenizer_config.json", text)]).unwrap(), "text<s>");
}

#[test]
fn a_folder_without_a_tokenizer_says_what_it_should_have() {
    let empty = tempfile::tempdir().unwrap();
    let error = load(&empty).unwrap_err();
    assert!(matches!(error, TextError::Missing { .. }));
    let (message, folder) = (error.to_string(), empty.path().display().to_string());
    assert!(message.contains(&folder) && message.contains("tokenizer.json"), "{message}");
}

#[test]
fn malformed_files_are_named() {
    let broken = |name: &str, text: &str, expected: &str| {
        let message = refused(&[(name, text)]);
        assert!(message.contains(name) && message.contains(expected), "{message}");
    };
    broken("tokenizer.json", "{\"version\": \"1.0\"", "EOF");
    broken("tokenizer.json", "{}", "not a tokenizer");
    broken("tokenizer_config.json", "[1]", "expected a map");
    broken("tokenizer_config.json", r#"{"eos_token": "<eos>"}"#, "\"<eos>\"");
    broken("tokenizer_config.json", r#"{"chat_template": 5}"#, "chat_template");
    broken("chat_template.json", r#"{"chat_template": [{"name": "default"}]}"#, "chat_template is a list");
    broken("generation_config.json", "{", "EOF");
    let message = refused(&[("chat_template.jinja", "{% for x in %}")]);
    assert!(message.contains("chat_template:1") && message.contains("unexpected end of block"), "{message}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let original = folder(&[]);
    let target = original.path().join("tokenizer.json").join("inside");
    let message = load(&original).unwrap().save(&target).unwrap_err().to_string();
    assert!(message.contains(&target.display().to_string()), "{message}");
}

#[test]
fn prompt_templates_that_cannot_ask_are_refused() {
    let refused = |source: &str| PromptTemplate::new(source).unwrap_err().to_string();
    assert!(refused("no variable").contains("{{ question }}"));
    assert!(refused("{{ question").contains("prompt"));
    let message = PromptTemplate::new("{{ question }} {{ qestion }}").unwrap().render("x").unwrap_err().to_string();
    assert!(message.contains("qestion"), "{message}");

    let folder = folder(&[("mine.jinja", "{{ query }}")]);
    let path = folder.path().join("mine.jinja");
    assert!(PromptTemplate::read(&path).unwrap_err().to_string().contains("mine.jinja"));
    let missing = PromptTemplate::read(folder.path().join("other.jinja")).unwrap_err();
    assert!(matches!(missing, TextError::Io { .. }));
}

#[test]
fn a_question_is_not_a_template() {
    let template = PromptTemplate::new("Q: {{ question }}").unwrap();
    assert_eq!(template.render("{{ 1 + 1 }} <b>").unwrap(), "Q: {{ 1 + 1 }} <b>");
}
