import sys

from make_inputs import chat_folder

chat_folder(f"{sys.argv[1]}/model", ["<s>", "</s>"], {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False,
            "bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": False})
