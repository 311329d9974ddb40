#!/usr/bin/env python3
"""What `benches/train_step.rs` measures: a step of TRL's GRPOTrainer, and forward + backward of a cross entropy in PyTorch; 2 threads, f32."""
import json
import os
import resource
import sys
import tempfile
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

PROMPTS, SAMPLES, NEW, STEPS = 4, 4, 64, 4
CHECKPOINTED = "checkpointed" in sys.argv[2:]
torch.set_num_threads(2)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
topics = ["why the sky is blue", "what iron is used for", "how magnets work", "who lives in Uganda"]
data = Dataset.from_list([{"prompt": f"Tell me at length: {topic}"} for topic in topics] * STEPS)
times = []


def vowels(completions, **_):
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        times.append(time.perf_counter() - self.start)


x = torch.tensor([[(i * 31 + seed * 977 + 7) % model.config.vocab_size for i in range(256)] for seed in range(4)])
backward = []
for _ in range(3):
    start = time.perf_counter()
    model(x, labels=x).loss.backward()
    backward.append(time.perf_counter() - start)
    model.zero_grad()
with tempfile.TemporaryDirectory() as out:
    config = GRPOConfig(
        output_dir=out, per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES, max_completion_length=NEW,
        max_steps=STEPS, learning_rate=1e-6, beta=0.0, temperature=1.0, loss_type="grpo", save_strategy="no", report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=CHECKPOINTED, generation_kwargs={"min_new_tokens": NEW}, disable_tqdm=True,
    )
    GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=vowels, args=config, train_dataset=data, callbacks=[Clock()]).train()
step = "GRPO step checkpointed" if CHECKPOINTED else "GRPO step without KL"
seconds, tokens = {step: min(times[1:])}, {step: PROMPTS * SAMPLES * NEW}
if not CHECKPOINTED:
    seconds["forward and backward 4 x 256"], tokens["forward and backward 4 x 256"] = min(backward), 4 * 256
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mb": peak}))
