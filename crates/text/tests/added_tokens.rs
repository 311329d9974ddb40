//! Tokens that stand in other files than `tokenizer.json`, against transformers; `added_tokens/make_golden.py` made the
//! values.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use zerosearch_text::{Codec, PromptTemplate, TextError};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/added_tokens/golden.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The golden tokenizer, with these files beside it.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), golden()["tokenizer"].as_str().unwrap()).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(files: &[(&str, &str)]) -> Result<Codec, TextError> {
    Codec::read(folder(files).path())
}

#[test]
fn tokens_of_every_file_are_what_transformers_makes_of_them() {
    let golden = golden();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for case in golden["cases"].as_array().unwrap() {
        let files: Vec<(&str, String)> =
            case["files"].as_object().unwrap().iter().map(|(name, json)| (name.as_str(), json.to_string())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let codec = load(&files).unwrap();
        let name = &case["name"];
        assert_eq!(codec.eos_ids()[..], [case["eos"].as_u64().unwrap() as u32], "{name}");
        for (text, expected) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(serde_json::to_value(codec.encode(text)).unwrap(), *expected, "{name}: {text:?}");
            assert!(!codec.encode_document(text).contains(&codec.eos_ids()[0]), "{name}: a document ends nothing");
        }
    }
}

#[test]
fn a_token_with_an_id_that_is_not_free_is_refused() {
    let token = |id: u32| format!(r#"{{"added_tokens_decoder": {{"{id}": {{"content": "<|turn_end|>"}}}}}}"#);
    for (files, expected) in [
        ([("tokenizer_config.json", token(270))], "gives \"<|turn_end|>\" the id 270, but the next free one"),
        ([("tokenizer_config.json", token(259))], "gives \"<|turn_end|>\" the id 259, but the next free one"),
        ([("added_tokens.json", r#"{"<tool>": 300}"#.into())], "gives \"<tool>\" the id 300, but the next free one"),
        ([("added_tokens.json", r#"{"<tool>": "x"}"#.into())], "\"<tool>\" has no id"),
        ([("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": "<tool>"}}"#.into())], "not an object of ids"),
        ([("tokenizer_config.json", r#"{"added_tokens_decoder": ["<tool>"]}"#.into())], "not an object of ids"),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let message = load(&files).unwrap_err().to_string();
        assert!(message.contains(files[0].0) && message.contains(expected), "{message}");
    }
}

#[test]
fn a_saved_folder_still_has_the_token_where_it_was() {
    let config = r#"{"eos_token": "<|turn_end|>", "added_tokens_decoder": {"261": {"content": "<|turn_end|>"}}}"#;
    let codec = load(&[("tokenizer_config.json", config)]).unwrap();
    let copy = tempfile::tempdir().unwrap();
    codec.save(copy.path()).unwrap();
    assert_eq!(fs::read_to_string(copy.path().join("tokenizer_config.json")).unwrap(), config);
    assert_eq!(Codec::read(copy.path()).unwrap().eos_ids(), [261]);
}

#[test]
fn the_configuration_asks_for_a_beginning_that_no_post_processor_writes() {
    for (keys, begins) in [
        (r#""bos_token": "<s>""#, false),
        (r#""bos_token": "<s>", "add_bos_token": false"#, false),
        (r#""bos_token": "<s>", "add_bos_token": true"#, true),
        // The end of a text is no part of a prompt that is to be continued.
        (r#""bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true"#, true),
        (r#""bos_token": null, "add_bos_token": true"#, false),
    ] {
        let codec = load(&[("tokenizer_config.json", &format!("{{{keys}}}"))]).unwrap();
        let prompt = PromptTemplate::for_model_or(&codec, "{{ question }}").unwrap().render("the sea").unwrap();
        assert_eq!(prompt, if begins { "<s>the sea" } else { "the sea" }, "{keys}");
        assert_eq!(codec.encode(&prompt).contains(&259), begins, "{keys}");
    }
}

#[test]
fn ids_of_ends_are_ids() {
    let eos = |text: &str| load(&[("generation_config.json", text)]).map(|codec| codec.eos_ids().to_vec());
    assert_eq!(eos(r#"{"eos_token_id": [260, 259]}"#).unwrap(), [260, 259]);
    assert_eq!(eos(r#"{"eos_token_id": -1}"#).unwrap(), [0u32; 0], "written for none");
    assert_eq!(eos(r#"{"eos_token_id": null}"#).unwrap(), [0u32; 0]);
    for wrong in [r#""</s>""#, "2.5", r#"[260, "</s>"]"#, "{}"] {
        let message = eos(&format!(r#"{{"eos_token_id": {wrong}}}"#)).unwrap_err().to_string();
        assert!(
            message.contains("generation_config.json: eos_token_id is") && message.contains("a list of ids"),
            "{message}"
        );
    }
}

#[test]
fn a_token_that_is_none_is_refused_by_its_key() {
    for (key, value) in [("eos_token", r#"["</s>", "<s>"]"#), ("eos_token", "260"), ("bos_token", "false")] {
        let message = load(&[("tokenizer_config.json", &format!("{{\"{key}\": {value}}}"))]).unwrap_err().to_string();
        assert!(
            message.contains(&format!("tokenizer_config.json: {key} is ")) && message.contains("text or null"),
            "{message}"
        );
    }
}

#[test]
fn a_common_word_that_fills_batches_stays_in_documents() {
    let codec = load(&[("tokenizer_config.json", r#"{"eos_token": "</s>", "pad_token": "the"}"#)]).unwrap();
    assert_eq!(codec.decode(&codec.encode_document("the sea")), "the sea");
    let codec = load(&[("tokenizer_config.json", r#"{"eos_token": "the", "pad_token": "the"}"#)]).unwrap();
    assert_eq!(codec.decode(&codec.encode_document("the sea")), " sea");
}

#[test]
fn files_may_be_as_python_and_editors_write_them() {
    let config = "\u{feff}{\"eos_token\": \"</s>\", \"model_max_length\": Infinity}";
    let tokenizer = format!("\u{feff}{}", golden()["tokenizer"].as_str().unwrap());
    let files = [
        ("tokenizer.json", tokenizer.as_str()),
        ("tokenizer_config.json", config),
        ("chat_template.jinja", "\u{feff}{{ eos_token }}"),
    ];
    let codec = load(&files).unwrap();
    assert!(codec.files().all(|(_, bytes)| !bytes.starts_with("\u{feff}".as_bytes())), "transformers refuses the mark");
    assert_eq!(codec.eos_ids(), [260]);
    assert_eq!(codec.chat_template().unwrap().render(&[], false).unwrap(), "</s>");
}

#[test]
fn added_tokens_beyond_the_embedding_are_no_tokens() {
    let config = r#"{"eos_token": "</s>", "added_tokens_decoder": {"261": {"content": "[PAD]"}}}"#;
    let written = [("tokenizer_config.json", config), ("chat_template.jinja", "[PAD]{{ messages[0].content }}")];
    let codec = load(&written[..1]).unwrap();
    assert_eq!((codec.vocab_size(), codec.encode("[PAD]").len()), (262, 1));
    assert_eq!(codec.for_rows(300).unwrap().vocab_size(), 262, "a padded embedding");

    let fitted = codec.for_rows(261).unwrap();
    assert_eq!((fitted.vocab_size(), fitted.token_id("[PAD]"), fitted.eos_ids()), (261, None, &[260][..]));
    let ids = fitted.encode("<s>[PAD]</s>");
    assert!(ids.len() > 3 && ids.iter().all(|id| *id < 261), "{ids:?}");
    assert_eq!((ids[0], *ids.last().unwrap(), fitted.decode(&ids)), (259, 260, "<s>[PAD]</s>".into()));

    let message = load(&written).unwrap().for_rows(261).unwrap_err().to_string();
    assert!(
        message.contains("template writes \"[PAD]\", whose id is 261") && message.contains("261 rows"),
        "{message}"
    );
    let message = codec.for_rows(200).unwrap_err().to_string();
    assert!(message.contains("has 259 tokens, the model's embedding only 200"), "{message}");
}
