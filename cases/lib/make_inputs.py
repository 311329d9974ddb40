"""Tiny model folders, made with the standard library alone: config.json, model.safetensors, tokenizer.json."""
import json
import pathlib
import random

import tensors

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 32, 2, 4, 2, 64
# The bytes that byte-level BPE writes as themselves; the others become characters from U+0100 on.
PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ALPHABET = [chr(byte) for byte in PRINTED] + [chr(0x100 + i) for i in range(256 - len(PRINTED))]


def config(vocab=64, **keys):
    """A Llama of two layers. A key that is None is written as null; `rope_theta` is left to the caller."""
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=vocab, hidden_size=HIDDEN,
                intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                head_dim=HIDDEN // HEADS, max_position_embeddings=2048, rms_norm_eps=1e-5, hidden_act="silu",
                tie_word_embeddings=True, attention_bias=False, mlp_bias=False, torch_dtype="float32", eos_token_id=1) | keys


def weights(vocab=64, seed=7):
    draw = random.Random(seed)

    def normal(*shape):
        count = 1
        for size in shape:
            count *= size
        return list(shape), [draw.gauss(0.0, 0.3) for _ in range(count)]

    ones = ([HIDDEN], [1.0] * HIDDEN)
    kv = KV_HEADS * HIDDEN // HEADS
    made = {"model.embed_tokens.weight": normal(vocab, HIDDEN), "model.norm.weight": ones}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        made |= {at + "input_layernorm.weight": ones, at + "post_attention_layernorm.weight": ones,
                 at + "self_attn.q_proj.weight": normal(HIDDEN, HIDDEN), at + "self_attn.k_proj.weight": normal(kv, HIDDEN),
                 at + "self_attn.v_proj.weight": normal(kv, HIDDEN), at + "self_attn.o_proj.weight": normal(HIDDEN, HIDDEN),
                 at + "mlp.gate_proj.weight": normal(INNER, HIDDEN), at + "mlp.up_proj.weight": normal(INNER, HIDDEN),
                 at + "mlp.down_proj.weight": normal(HIDDEN, INNER)}
    return made


def folder(path, configuration, made):
    """A folder without a tokenizer."""
    path = pathlib.Path(path)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    tensors.write(path / "model.safetensors", made)
    return path


def added(content):
    """An added token as tokenizer_config.json writes it."""
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def tokenizer(special):
    """Byte-level BPE without a merge: the 256 bytes, and the special tokens from 256 on."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": 256 + i} | added(content) for i, content in enumerate(special)],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: i for i, token in enumerate(ALPHABET)}, "merges": []}}


def chat_folder(path, special, tokenizer_config, vocab=320, chat_template=None, **keys):
    """A folder with a tokenizer of bytes and these special tokens, the second of which ends a text."""
    path = folder(path, config(vocab, **({"rope_theta": 10000.0, "bos_token_id": 256, "eos_token_id": 257} | keys)), weights(vocab))
    (path / "tokenizer.json").write_text(json.dumps(tokenizer(special), ensure_ascii=False) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    if chat_template is not None:
        (path / "chat_template.jinja").write_text(chat_template)
    return path
