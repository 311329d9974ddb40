import sys

from make_inputs import chat_folder

TEMPLATE = """{%- if tools is iterable and tools | length > 0 %}
    {{- "TOOLS: " + (tools | tojson) + "\\n" }}
{%- endif %}
{%- if documents is not none %}
    {{- "DOCUMENTS FOLLOW\\n" }}
{%- endif %}
{%- for message in messages %}
    {{- "[" + message.role + "] " + message.content + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "[assistant]" }}
{%- endif %}
"""
chat_folder(f"{sys.argv[1]}/model", ["<s>", "</s>"], {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
            chat_template=TEMPLATE)
