import sys

from make_inputs import chat_folder

chat_folder(f"{sys.argv[1]}/model", ["<s>", "</s>", "[PAD]"], {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
            "pad_token": "[PAD]"}, vocab=258)
