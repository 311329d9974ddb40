#!/usr/bin/env python3
"""What `benches/gpu` measures, with PyTorch and transformers on the same shapes: `generate` in bf16, group rollouts that compute
every context again, and a training step under autocast. One JSON object on the last line.

    python benches/gpu/peer.py 135m 0.5b 1.5b
    python benches/gpu/peer.py --device cpu tiny              # shows that it works
"""
import argparse
import json
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

# vocabulary, hidden, layers, heads, key-value heads, feed-forward
SHAPES = {
    "tiny": (2048, 128, 2, 4, 2, 256),
    "135m": (49152, 576, 30, 9, 3, 1536),
    "0.5b": (151936, 896, 24, 14, 2, 4864),
    "1.5b": (151936, 1536, 28, 12, 2, 8960),
}
NEW, QUESTIONS, SAMPLES, TURNS, PROMPT, OBSERVATION = 32, 64, 5, 3, 64, 250
SEQUENCES, TOKENS, STEPS = 16, 512, 5


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device, run, times):
    """Seconds of the fastest of some runs, after one that is not measured."""
    run()
    found = []
    for _ in range(times):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found)


def model_of(name, device, dtype):
    vocabulary, hidden, layers, heads, kv_heads, feed_forward = SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=feed_forward, tie_word_embeddings=True, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None,
    )
    return LlamaForCausalLM(config).to(device=device, dtype=dtype)


def decoding(name, device, batches, context):
    model = model_of(name, device, torch.bfloat16).eval()
    vocabulary = model.config.vocab_size

    def ids(count, seed):
        return [(i * 31 + seed * 977 + 7) % vocabulary for i in range(count)]

    def generate(batch, new):
        x = torch.tensor(batch, device=device)
        sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)
        return model.generate(input_ids=x, attention_mask=torch.ones_like(x), max_new_tokens=new, min_new_tokens=new, **sampling)

    found = {}
    with torch.inference_mode():
        for batch in batches:
            prompts = [ids(context, seed) for seed in range(batch)]
            # The context and the first token are left out.
            whole, first = timed(device, lambda: generate(prompts, NEW + 1), 2), timed(device, lambda: generate(prompts, 1), 2)
            found[f"decode {name} batch {batch}"] = {"tokens_per_second": batch * NEW / (whole - first)}
        questions = 4 if name == "tiny" else QUESTIONS

        def rollouts():
            contexts = [ids(PROMPT, row // SAMPLES) for row in range(questions * SAMPLES)]
            for turn in range(TURNS):
                contexts = generate(contexts, NEW).tolist()
                contexts = [context + ids(OBSERVATION, row * 10 + turn) for row, context in enumerate(contexts)]

        seconds = timed(device, rollouts, 1)
        found[f"rollouts {name}"] = {"sampled_tokens_per_second": questions * SAMPLES * TURNS * NEW / seconds}
    return found


def training(name, device):
    model = model_of(name, device, torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    vocabulary = model.config.vocab_size
    rows = [[(row * 7919 + place * place * 31) % vocabulary for place in range(TOKENS)] for row in range(SEQUENCES)]
    x = torch.tensor(rows, device=device)
    labels = x.clone()
    labels[:, : TOKENS // 2] = -100
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step():
        with torch.autocast(device, torch.bfloat16):
            loss = model(input_ids=x, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(device, step, STEPS)
    parameters = sum(p.numel() for p in model.parameters())
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    tflops = 6 * parameters * SEQUENCES * TOKENS / seconds / 1e12
    return {f"training {name}": {"seconds": seconds, "tflops": tflops, "peak_gib": peak}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=SHAPES)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--context", type=int, default=512)
    arguments = parser.parse_args()
    found = {}
    for name in arguments.models:
        found |= decoding(name, arguments.device, arguments.batches, arguments.context)
        found |= training(name, arguments.device)
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
