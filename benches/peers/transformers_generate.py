#!/usr/bin/env python3
"""What `benches/generate.rs` measures, with Hugging Face transformers: best of three, 2 threads, f32."""
import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM

NEW, QUESTIONS, SAMPLES, TURNS, OBSERVATION = 32, 4, 5, 3, 250
torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
seconds, tokens = {}, {}


def ids(count, seed):
    return [(i * 31 + seed * 977 + 7) % model.config.vocab_size for i in range(count)]


def generate(batch, new):
    x = torch.tensor(batch)
    sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)
    return model.generate(input_ids=x, attention_mask=torch.ones_like(x), max_new_tokens=new, min_new_tokens=new, **sampling)


def best(run, times=3):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def rollouts():
    contexts = [ids(64, row // SAMPLES) for row in range(QUESTIONS * SAMPLES)]
    for turn in range(TURNS):
        contexts = generate(contexts, NEW).tolist()
        contexts = [context + ids(OBSERVATION, row * 10 + turn) for row, context in enumerate(contexts)]


with torch.inference_mode():
    for batch, length in ((1, 512), (8, 256)):
        x = torch.tensor([ids(length, seed) for seed in range(batch)])
        name = f"prefill {batch} x {length}"
        tokens[name], seconds[name] = batch * length, best(lambda: model(x, logits_to_keep=1))
    for batch in (1, 8, 32):
        prompts = [ids(37, seed) for seed in range(batch)]
        name = f"decode batch {batch}"
        # The prompt and the first token are left out, as in ours.
        whole, first = best(lambda: generate(prompts, NEW + 1)), best(lambda: generate(prompts, 1))
        tokens[name], seconds[name] = batch * NEW, whole - first
    name = f"rollouts of {TURNS} turns, kept caches"
    tokens[name], seconds[name] = QUESTIONS * SAMPLES * TURNS * NEW, best(rollouts, 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mb": peak}))
