import json
import sys

from make_inputs import chat_folder

out = sys.argv[1]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[1;1Hanswer: Moundou\x9b31m\rover\b\x7f\u202eback\u2066\u200b\u2063\ufeff\u00ad\u3164\U000e0041\ufff9"


def write(name, rows):
    with open(f"{out}/{name}", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


write("corpus.jsonl", [{"id": "d1" + HOSTILE, "title": "Chad" + HOSTILE, "contents": "The capital of Chad is N'Djamena." + HOSTILE}])
write("questions.jsonl", [{"id": f"q{i}" + HOSTILE, "question": "What is the capital of Chad?" + HOSTILE, "golden_answers": ["N'Djamena" + HOSTILE]} for i in (1, 2)])
# Two rows with one id: a refusal that names it.
write("twice.jsonl", [{"id": "q" + HOSTILE, "question": "Why?", "golden_answers": ["x"]}] * 2)
with open(f"{out}/question.txt", "w") as file:
    file.write("What is the capital of Chad?" + HOSTILE)
with open(f"{out}/name.txt", "w") as file:
    file.write("scores\x1b[2J\u202e.json")
with open(f"{out}/broken.toml", "w") as file:
    file.write('model = "base"\nquestions\x9b31m\u202e = 3\n')
chat_folder(f"{out}/model", ["<s>", "</s>"], {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
            chat_template="{{ '" + HOSTILE.replace("\r", "\\r") + "' }}{% for message in messages %}{{ message.content }}{% endfor %}")
