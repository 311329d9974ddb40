import sys

from make_inputs import added, chat_folder

chat_folder(f"{sys.argv[1]}/model", ["<s>"], {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|turn_end|>",
            "added_tokens_decoder": {"256": added("<s>"), "257": added("<|turn_end|>")}})
