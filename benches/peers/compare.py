#!/usr/bin/env python3
"""Our benches and their peers on the same weights, tokens and threads, one right after the other; prints a table of ratios.

    python3 -m venv venv && venv/bin/pip install torch transformers trl datasets
    crates/lm/tests/real/fetch.sh
    venv/bin/python benches/peers/compare.py generate --rounds 3
    venv/bin/python benches/peers/compare.py train_step --rounds 3
    venv/bin/python benches/peers/compare.py generate --rounds 3 --instructions avx2

`generate` is compared with Hugging Face transformers, `train_step` with TRL's GRPOTrainer and a plain PyTorch backward pass, all in
f32. A ratio above 1 says how many times as fast ours is; with several rounds the worst one is kept. `--instructions avx2` makes both
sides use no more than AVX2 on a processor that has AVX-512. Peers are no part of the tests.
"""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = ROOT / "target/models/smollm2-135m-instruct"
# Parts of a bench that run in processes of their own; a pair names the figure of peak memory and the peer's script that it is compared with.
PARTS = {
    "generate": {r"prefill \d+ x \d+$|batch \d+$|kept caches$": ("peak memory", ["transformers_generate.py"])},
    "train_step": {
        "forward and backward 4 x 256": (None, None),
        "step without KL": ("peak memory, a step", ["trl_step.py"]),
        "step checkpointed$": ("peak memory, gradient checkpointing in both", ["trl_step.py", "checkpointed"]),
        "step with LoRA": ("peak memory, LoRA against all weights", ["trl_step.py"]),
        "step checkpointed with LoRA": ("peak memory, checkpointing and LoRA", ["trl_step.py"]),
    },
}
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Environment variables that limit PyTorch and the libraries below it to an instruction set.
PEERS_LIMITED_TO = {
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor() or platform.machine()


def build(bench):
    """The bench's executable: run as it is, so that the compiler is not measured with it."""
    command = ["cargo", "bench", "--bench", bench, "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in output.stdout.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == bench)


def ours(executable, only):
    """Seconds of every bench by name, and the peak memory in MB of a process that runs those whose name matches `only`."""
    command = [executable, "--bench", "--quick", only]
    # As cargo sets it: where criterion leaves what it measures.
    environment = os.environ | {"RAYON_NUM_THREADS": "2", "CARGO_TARGET_DIR": str(TARGET)}
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, cwd=ROOT / "benches", env=environment, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0)
        lines = out.read().splitlines()
    if status != 0:
        sys.exit("\n".join([*lines, f"{executable} failed"]))
    for line in lines:
        if line.startswith(("timing_s", "instructions")):
            print(f"  {line}")
    found = {}
    for path in (TARGET / "criterion").rglob("new/benchmark.json"):
        name = json.loads(path.read_text())
        if name["group_id"].startswith("smollm2"):
            sample = json.loads((path.parent / "sample.json").read_text())
            # The best of a few, as the peers take it.
            found[name["function_id"]] = min(time / count for time, count in zip(sample["times"], sample["iters"])) / 1e9
    return found, usage.ru_maxrss / 1024


def theirs(limits, script, *flags):
    command = [sys.executable, HERE / script, MODEL, *flags]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | limits)
    return json.loads(output.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=["generate", "train_step"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--instructions", choices=sorted(PEERS_LIMITED_TO))
    arguments = parser.parse_args()
    if not MODEL.exists():
        sys.exit(f"{MODEL} is missing: run crates/lm/tests/real/fetch.sh first")
    executable = build(arguments.bench)
    limits = PEERS_LIMITED_TO.get(arguments.instructions, {})
    if arguments.instructions:
        os.environ["ZEROSEARCH_INSTRUCTIONS"] = arguments.instructions
    print(f"{processor()}, at most {arguments.instructions or 'what it has'}, 2 threads")
    worst = {}
    for number in range(1, arguments.rounds + 1):
        peaks, peers = {}, {}
        for only, (memory, script) in PARTS[arguments.bench].items():
            mine, peak = ours(executable, only)
            if memory:
                peaks[memory] = (peak, tuple(script))
        for _, script in peaks.values():
            peers[script] = peers.get(script) or theirs(limits, *script)
        print(f"round {number}, load {os.getloadavg()[0]:.1f}")
        print(f"  {'':48}{'ours':>12}{'peer':>12}{'ratio':>8}")
        for peer in peers.values():
            for name, seconds in peer["seconds"].items():
                ratio = seconds / mine[name]
                worst[name] = min(ratio, worst.get(name, ratio))
                tokens = peer["tokens"][name]
                print(f"  {name:48}{tokens / mine[name]:>8.1f} t/s{tokens / seconds:>8.1f} t/s{ratio:>8.2f}")
        for name, (peak, script) in peaks.items():
            ratio = peers[script]["peak_mb"] / peak
            worst[name] = min(ratio, worst.get(name, ratio))
            print(f"  {name:48}{peak:>9.0f} MB{peers[script]['peak_mb']:>9.0f} MB{ratio:>8.2f}", flush=True)
    print("worst ratios:", json.dumps({name: round(ratio, 2) for name, ratio in worst.items()}))


if __name__ == "__main__":
    main()
