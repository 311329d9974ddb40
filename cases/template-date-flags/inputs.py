import sys

from make_inputs import chat_folder

TEMPLATE = ("{{ 'Today is ' + strftime_now('%A, %-d %B %Y, %I:%M %p') + '.\\n' }}"
            "{% for message in messages %}{{ message.content }}{% endfor %}")
chat_folder(f"{sys.argv[1]}/model", ["<s>", "</s>"], {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
            chat_template=TEMPLATE)
