//! Promises about tokens: nothing is lost, nothing is shown too early, no document forges a token.

use std::sync::LazyLock;

use proptest::prelude::*;
use tokenizers::Tokenizer;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_text::{Codec, IncrementalDecoder, SpecialTokens, StopScanner, encode_information, train_bpe};

const TEXTS: [&str; 6] = [
    "<think> Which city? </think> <search> the capital of Peru </search>",
    "<answer> Zürich </answer>. <answer> 東京 </answer>. The answer is here.</search></answer>",
    "Zürich Zürich 東京 東京 😀😀😀 naïve café café",
    "In 1989 the city had 12345 people; in 2024 it had 99999.",
    "the the the then there these </search>. </search>. ></ ></ ></",
    "<|end|>the end<|end|>",
];

fn train() -> Codec {
    let special =
        SpecialTokens { bos: Some("<|begin|>".into()), eos: Some("<|end|>".into()), pad: Some("<|end|>".into()) };
    train_bpe(
        TEXTS.iter().cycle().take(60).map(|text| text.to_string()),
        420,
        &["<information>", "</information>"],
        &special,
    )
    .unwrap()
}

static BPE: LazyLock<Codec> = LazyLock::new(train);

/// Nothing is merged: every byte is a token.
static BYTES: LazyLock<Codec> =
    LazyLock::new(|| train_bpe(std::iter::empty(), 256, &[], &SpecialTokens::default()).unwrap());

/// A tokenizer in the manner of Llama 2: blanks are `▁`, unknown characters are spelled in bytes.
static BYTE_FALLBACK: LazyLock<Codec> = LazyLock::new(|| {
    let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    names.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    names.extend(["▁", "a", "b", "é", "<", "/", "s", ">", "▁a", "▁b", "ab", "▁ab"].map(str::to_owned));
    let vocab: serde_json::Map<_, _> = names.into_iter().enumerate().map(|(id, name)| (name, id.into())).collect();
    let special = |id: u32, name: &str| serde_json::json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"], ["a", "b"], ["▁", "ab"]]},
    });
    codec(&json.to_string(), &SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), pad: None })
});

fn codec(json: &str, special: &SpecialTokens) -> Codec {
    Codec::new(&json.parse::<Tokenizer>().unwrap(), special).unwrap()
}

/// Text in which tags, digits, blanks and characters of one to four bytes meet.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(vec![
            "<search>", "</search>", "<answer>", "</answer>", "<information>", "</information>", "<|end|>", "<|begin|>", "</s>", "<",
            "</", ">", "search", "answer", " ", "  ", "\n", "é", "東", "😀", "\u{fffd}", "e\u{301}", "the", " the", "2024", "'s", "▁",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Any tokens at all, in an order that no encoder would produce.
fn tokens(codec: &Codec) -> impl Strategy<Value = Vec<u32>> + use<> {
    proptest::collection::vec(0..codec.vocab_size() as u32 + 2, 0..40)
}

/// Tokens of texts cut anywhere, so that a tag is spelled in many ways.
fn spelled() -> impl Strategy<Value = Vec<u32>> {
    let letters =
        |text: &str| -> Vec<u32> { text.chars().flat_map(|next| BPE.encode_document(&next.to_string())).collect() };
    let piece = (text(), any::<bool>())
        .prop_map(move |(text, whole)| if whole { BPE.encode_document(&text) } else { letters(&text) });
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn assert_incremental(codec: &Codec, tokens: &[u32]) -> Result<(), TestCaseError> {
    let mut decoder = IncrementalDecoder::new(codec);
    let mut shown = String::new();
    for (index, &token) in tokens.iter().enumerate() {
        shown.push_str(&decoder.push(token));
        prop_assert_eq!(format!("{shown}{}", decoder.pending()), codec.decode(&tokens[..=index]));
    }
    prop_assert!(codec.decode(tokens).starts_with(&shown));
    shown.push_str(&decoder.finish());
    prop_assert_eq!(shown, codec.decode(tokens));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_undoes_encoding(text in text()) {
        prop_assert_eq!(&BPE.decode(&BPE.encode(&text)), &text);
        prop_assert_eq!(&BPE.decode(&BPE.encode_document(&text)), &text);
    }

    #[test]
    fn documents_contain_no_added_token(text in text()) {
        let added: Vec<u32> = ["<|begin|>", "<|end|>", "<information>", "</information>"].iter().map(|name| BPE.token_id(name).unwrap()).collect();
        prop_assert!(BPE.encode_document(&text).iter().all(|token| !added.contains(token)));
        let sentence_piece = BYTE_FALLBACK.encode_document(&text);
        prop_assert!(!sentence_piece.contains(&1) && !sentence_piece.contains(&2));
    }

    #[test]
    fn a_block_opens_and_closes_once(documents in proptest::collection::vec(text(), 0..4)) {
        let format = EpisodeFormat::default();
        let documents: Vec<(&str, &str)> = documents.iter().map(|text| ("", text.as_str())).collect();
        let body = format.documents(&documents);
        let tokens = encode_information(&BPE, &format, &body);
        prop_assert_eq!(BPE.decode(&tokens), format.information(&body));
        for tag in ["<information>", "</information>"] {
            prop_assert_eq!(tokens.iter().filter(|&&token| Some(token) == BPE.token_id(tag)).count(), 1);
            prop_assert_eq!(format.information(&body).matches(tag).count(), 1);
        }
        prop_assert!(!tokens.contains(&BPE.eos_ids()[0]));
    }

    #[test]
    fn text_comes_in_whole_characters(tokens in prop_oneof![tokens(&BPE), spelled()]) {
        assert_incremental(&BPE, &tokens)?;
    }

    #[test]
    fn text_in_bytes_comes_in_whole_characters(
        tokens in proptest::collection::vec(prop_oneof![0u32..273, proptest::sample::select(vec![229u32, 233, 233, 172, 259, 267])], 0..30)
    ) {
        assert_incremental(&BYTE_FALLBACK, &tokens)?;
    }

    #[test]
    fn valid_text_never_shows_a_replacement_character(text in "[aé東😀 ]{0,12}") {
        let mut decoder = IncrementalDecoder::new(&BYTES);
        for token in BYTES.encode(&text) {
            prop_assert!(!decoder.push(token).contains(char::REPLACEMENT_CHARACTER));
        }
        prop_assert_eq!(decoder.pending(), "");
    }

    #[test]
    fn stops_are_found_where_the_text_has_them(tokens in spelled(), cut in 0usize..3) {
        let stops = [["</search>", "</answer>"], ["<", "</answer>"], ["é", "the"]][cut];
        // The text up to each token, searched from its beginning.
        let expected = (0..tokens.len()).find_map(|index| {
            let text = BPE.decode(&tokens[..=index]);
            let ends = stops.iter().enumerate().filter_map(|(stop, string)| text.find(string).map(|start| (start + string.len(), stop)));
            ends.min().map(|(_, stop)| (index, stop))
        });
        let mut scanner = StopScanner::new(&BPE, &stops);
        let found = tokens.iter().enumerate().find_map(|(index, &token)| scanner.push(token).map(|stop| (index, stop)));
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn an_unknown_id_does_not_end_a_run_of_bytes() {
    // A zero byte, an unknown id, and a byte that makes the run invalid.
    assert_incremental(&BYTE_FALLBACK, &[3, BYTE_FALLBACK.vocab_size() as u32, 131]).unwrap();
}

#[test]
fn training_repeats_itself() {
    let bytes = |codec: &Codec| {
        let folder = tempfile::tempdir().unwrap();
        codec.save(folder.path()).unwrap();
        std::fs::read(folder.path().join("tokenizer.json")).unwrap()
    };
    let first = bytes(&BPE);
    for _ in 0..8 {
        assert!(bytes(&train()) == first, "the same texts gave two tokenizers");
    }
}

#[test]
fn digits_stand_alone_and_blanks_belong_to_words() {
    let pieces = |text: &str| BPE.encode(text).iter().map(|&token| BPE.decode(&[token])).collect::<Vec<_>>();
    assert_eq!(pieces("the 2024"), ["the", " ", "2", "0", "2", "4"]);
    assert_eq!(pieces("the the"), ["the", " the"]);
    assert_eq!(pieces("<information>the"), ["<information>", "the"]);
    assert_eq!(pieces("the<|end|>"), ["the", "<|end|>"]);
}

#[test]
fn added_tokens_get_the_last_ids() {
    let size = BPE.vocab_size() as u32;
    let names = ["<information>", "</information>", "<|begin|>", "<|end|>"];
    assert_eq!(names.map(|name| BPE.token_id(name)), [size - 4, size - 3, size - 2, size - 1].map(Some));
    assert_eq!((BPE.bos_id(), BPE.eos_ids()), (Some(size - 2), &[size - 1][..]));
}

#[test]
fn a_special_token_that_the_model_itself_would_write_is_left_out_of_documents() {
    // A Unigram model looks its own vocabulary up, and that contains the special tokens.
    let json = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "added_tokens": [
            {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "decoder": {"type": "Fuse"},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["a", -1.0], ["b", -1.0]]}}"#;
    let codec = codec(json, &SpecialTokens { eos: Some("</s>".into()), ..SpecialTokens::default() });
    assert_eq!(codec.encode("a</s>b"), [2, 1, 3]);
    assert_eq!(codec.encode_document("a</s>b"), [2, 3]);
    assert_eq!(codec.encode_document("aüb"), [2, 0, 3], "an unknown character is still unknown");
}

#[test]
fn a_limit_in_the_file_cuts_no_text() {
    let folder = tempfile::tempdir().unwrap();
    BPE.save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let limit = r#""truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}"#;
    let json = std::fs::read_to_string(&path).unwrap();
    assert!(json.contains(r#""truncation": null"#));
    std::fs::write(&path, json.replacen(r#""truncation": null"#, limit, 1)).unwrap();
    let text = "the capital of the city";
    assert_eq!(Codec::read(folder.path()).unwrap().encode(text), BPE.encode(text));
}

#[test]
fn the_stop_of_a_turn_fires_with_the_completing_token() {
    let tokens = BPE.encode("the </search>. the");
    let end =
        tokens.iter().enumerate().position(|(index, _)| BPE.decode(&tokens[..=index]).contains("</search>")).unwrap();
    let mut stop = StopScanner::new(&BPE, &["</answer>", "</search>"]).into_stop();
    assert_eq!(
        tokens.iter().map(|&token| stop(token)).collect::<Vec<_>>(),
        (0..tokens.len()).map(|index| index == end).collect::<Vec<_>>()
    );
}

#[test]
fn a_codec_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    shared(&*BPE);
    let here = BPE.encode("the capital");
    let there = std::thread::spawn(|| BPE.clone().encode("the capital")).join().unwrap();
    assert_eq!(here, there);
}
