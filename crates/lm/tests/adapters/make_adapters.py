"""Makes a tiny base and adapters for it, with the weights that PEFT makes of the two.

    python make_adapters.py    # peft 0.21, transformers 5.23, torch 2.15

Each folder holds what PEFT saved and `merged.safetensors`: the weights of those projections that differ from the base's.
"""
import copy
import json
import pathlib
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
REGEX = r"(?:.*?(?:vision|image).*)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|(?<!x)up_proj))"
# The adapter as it is made, and what its configuration then says.
CASES = {
    "plain": (dict(target_modules=["q_proj", "v_proj"]), {}),
    "rslora": (dict(target_modules=["v_proj", "down_proj"], use_rslora=True, lora_alpha=6), {}),
    "gaussian": (dict(target_modules=["o_proj"], init_lora_weights="gaussian"), {}),
    "orthogonal": (dict(target_modules=["gate_proj"], init_lora_weights="orthogonal"), {}),
    "regex": (dict(target_modules=REGEX), {}),
    "ends": (dict(target_modules=["self_attn.k_proj", "mlp.down_proj", "c_attn", "model.layers.0.self_attn.v_proj",
                                  "layers.1.self_attn.v_proj"]), {}),
    "all-but": (dict(target_modules="all-linear", exclude_modules=["k_proj", "mlp.up_proj"]),
                {"target_modules": "all-linear", "fan_in_fan_out": True}),
    "patterns-that-change-nothing": (dict(target_modules=["q_proj"], rank_pattern={"q_proj": 4}, alpha_pattern={".*q_proj": 8},
                                          layers_to_transform=[1, 0], layers_pattern="layers"), {}),
    "no-targets": (dict(target_modules=["q_proj", "v_proj"]), {"target_modules": None}),
}

torch.manual_seed(0)
shape = dict(vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=64, tie_word_embeddings=True)
base = LlamaForCausalLM(LlamaConfig(**shape))
shutil.rmtree(HERE / "base", ignore_errors=True)
base.save_pretrained(HERE / "base")
(HERE / "base" / "generation_config.json").unlink()
for name, (keys, said) in CASES.items():
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **keys}))
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter.data, std=0.2)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | said | {"base_model_name_or_path": "base"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    merged = PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload().state_dict()
    before = base.state_dict()
    changed = {key: value.contiguous() for key, value in merged.items() if "_proj" in key and not torch.equal(value, before[key])}
    save_file(changed, folder / "merged.safetensors")
    print(name, sorted({key.split(".")[-2] for key in changed}), len(changed))
