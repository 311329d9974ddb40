#!/usr/bin/env bash
# All that a GPU is measured by, within minutes and without a network: the device beside the CPU, its figures, its peers, the
# quickstart. Needs what was built before:
#
#     cargo bench --features cuda --bench gpu --no-run
#     cargo build --release -p zerosearch-examples --features cuda --example quickstart --example train
#     benches/gpu/run.sh OUT [MODEL…]              # 135m 0.5b 1.5b; BENCH, QUICKSTART and TRAIN name other executables, PEAK the card's TFLOP/s
#
# With SMOLLM2, the folder of SmolLM2-135M-Instruct, GRPO runs with it as well: `metrics.jsonl` in OUT/smollm2 has rewards, gaps and seconds by
# part, memory.csv the card's memory.
#
# Every step leaves a log and, where it has figures, a JSON file in OUT. A step that fails does not keep the others from running. All of
# them end within MINUTES, 8 by default.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:?usage: benches/gpu/run.sh OUT [MODEL…]}
shift
models=("$@")
[ "${#models[@]}" -gt 0 ] || models=(135m 0.5b 1.5b)
target=${CARGO_TARGET_DIR:-target}
newest() { find "$1" -maxdepth 1 -name "$2" -type f -executable -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -1 | cut -d' ' -f2-; }
bench=${BENCH:-$(newest "$target/release/deps" 'gpu-*')}
quickstart=${QUICKSTART:-$target/release/examples/quickstart}
train=${TRAIN:-$target/release/examples/train}
device=${DEVICE:-auto}
mkdir -p "$out"
failed=0
end=$((60 * ${MINUTES:-8}))

# step NAME SECONDS COMMAND…: runs the command for so long at most, its output in NAME.log.
step() {
    local name=$1 limit=$2 began=$SECONDS status=0
    shift 2
    [ "$limit" -lt $((end - SECONDS)) ] || limit=$((end - SECONDS))
    if [ "$limit" -le 0 ]; then
        printf '%-14s no time left\n' "$name" | tee -a "$out/steps.txt"
        failed=1
        return
    fi
    timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
    printf '%-14s %4d s  status %d\n' "$name" "$((SECONDS - began))" "$status" | tee -a "$out/steps.txt"
    [ "$status" -eq 0 ] || failed=1
}

: >"$out/steps.txt"
if command -v nvidia-smi >/dev/null; then
    nvidia-smi >"$out/nvidia-smi.txt"
    nvidia-smi --query-gpu=timestamp,memory.used --format=csv,noheader -lms 500 >"$out/memory.csv" &
    trap 'kill %1' EXIT
fi
parts() { step "$1" "$2" "$bench" --device "$device" --parts "$3" --out "$out/$1.json" "${@:4}"; }
peak=(${PEAK:+--peak-tflops "$PEAK"})
parts parity 60 parity
for model in "${models[@]}"; do
    parts "decode-$model" 90 ceilings,decode,rollouts,refit --models "$model"
    parts "training-$model" 60 training --models "$model" "${peak[@]}"
    parts "fast-training-$model" 60 training --models "$model" --fast "${peak[@]}"
done
if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    for model in "${models[@]}"; do
        step "peer-$model" 90 python3 benches/gpu/peer.py "$model"
        [ ! -e "$out/peer-$model.log" ] || tail -1 "$out/peer-$model.log" >"$out/peer-$model.json"
    done
fi
step quickstart 150 "$quickstart" --device "$device" --steps 3 --out "$out/quickstart"
if [ -n "${SMOLLM2:-}" ]; then
    step smollm2 150 "$train" --config benches/gpu/smollm2.toml --device "$device" --set model="$SMOLLM2" --set engine.model="$SMOLLM2" \
        --set out="$out/smollm2" --set train.steps="${STEPS:-20}"
fi
exit "$failed"
