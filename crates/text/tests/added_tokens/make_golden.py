"""Makes golden.json: what transformers makes of tokens that stand in other files than tokenizer.json.

    python make_golden.py    # transformers 5.23, tokenizers 0.23
"""
import json
import pathlib
import tempfile

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

TEXTS = ["the sea<s> is </s>", "the <|turn_end|> sea<tool> <s>the", "  <role>  the<role>", "</s><|turn_end|>"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer():
    """Bytes, one merge, one word that looks like a special token, and two added tokens."""
    vocabulary = {token: id for id, token in enumerate([*ALPHABET, "th", "the", "<role>"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("th", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return made.to_str()


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


CASES = {
    "nothing": {"tokenizer_config.json": {"eos_token": "</s>"}},
    "decoder": {"tokenizer_config.json": {"eos_token": "<|turn_end|>", "added_tokens_decoder": {
        "259": token("<s>"), "260": token("</s>"), "261": token("<|turn_end|>"), "262": token("<tool>", special=False)}}},
    "decoder in another order": {"tokenizer_config.json": {"eos_token": token("<|turn_end|>", __type="AddedToken"), "added_tokens_decoder": {
        "262": token("<|turn_end|>"), "261": token("<tool>", lstrip=True, rstrip=True)}}},
    "flags of the decoder": {"tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {
        "259": token("<s>", lstrip=True, rstrip=True), "260": token("</s>", single_word=True)}}},
    "older file": {"tokenizer_config.json": {"eos_token": "<|turn_end|>"},
                   "added_tokens.json": {"<|turn_end|>": 261, "<tool>": 262, "</s>": 260}},
    "older file beside a decoder": {"tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {"260": token("</s>")}},
                                    "added_tokens.json": {"<tool>": 261}},
    "common word with a role": {"tokenizer_config.json": {"eos_token": "<role>"}},
    "common word in the map": {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": token("<role>", lstrip=True)}},
    "list of special tokens": {"tokenizer_config.json": {"eos_token": "</s>", "additional_special_tokens": ["<role>"]}},
    "extra special tokens": {"tokenizer_config.json": {"eos_token": "</s>", "extra_special_tokens": {"image_token": "<role>"}}},
    "role of its own name": {"tokenizer_config.json": {"eos_token": "</s>", "image_token": "<role>"}},
}


def expected(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            pathlib.Path(folder, name).write_text(content if isinstance(content, str) else json.dumps(content))
        loaded = AutoTokenizer.from_pretrained(folder)
        ids = [loaded(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
        return {"eos": loaded.eos_token_id, "ids": ids}


golden = {"tokenizer": tokenizer(), "texts": TEXTS, "cases": []}
for name, files in CASES.items():
    files["tokenizer_config.json"]["tokenizer_class"] = "PreTrainedTokenizerFast"
    golden["cases"].append({"name": name, "files": files, **expected({"tokenizer.json": golden["tokenizer"], **files})})
pathlib.Path(__file__).with_name("golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
for case in golden["cases"]:
    print(case["name"], case["eos"], case["ids"])
