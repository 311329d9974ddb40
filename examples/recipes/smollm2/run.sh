#!/usr/bin/env bash
# Every stage of the recipe, from the root of the repository. A stage that is done is passed over; searching, training and
# evaluation go on where they were cut short, and supervised fine-tuning begins anew.
#
#     examples/recipes/smollm2/run.sh CORPUS QUESTIONS [key=value …]
#
# Keys are those of smollm2.toml; SEED names the draws of the training, and LIMIT the number of held-out questions.
set -euo pipefail
if [ "$#" -lt 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
corpus=$1 questions=$2
shift 2
base=target/models/smollm2-135m-instruct
out=runs/smollm2
bin=target/release/examples
real="engine={ kind = \"bm25\", corpus = \"$out/data/corpus.jsonl\" }"

# run PROGRAM ARGUMENTS…: with the recipe, the real engine where the first argument says so, and the caller's keys.
run() {
    local program=$1
    shift
    printf -- '\n-- %s %s\n' "$program" "$*"
    "$bin/$program" --config "$here/smollm2.toml" "$@"
}

data() {
    mkdir -p "$out/data"
    cp "$corpus" "$out/data/corpus.jsonl"
    "$bin/serve" --corpus "$corpus" --port 0 >"$out/data/serve.log" &
    local server=$! address=''
    trap 'kill $server' RETURN
    for _ in $(seq 300); do
        address=$(sed -n 's|^serving on \(http.*\)/retrieve$|\1|p' "$out/data/serve.log")
        [ -z "$address" ] || break
        sleep 0.1
    done
    if [ -z "$address" ]; then
        echo "serve did not start within 30 s; it wrote $out/data/serve.log" >&2
        return 1
    fi
    python3 "$here/prepare.py" "$corpus" "$questions" "$address" "$out/data"
}

# examine NAME MODEL STRATEGY: on held-out questions and the real engine.
examine() {
    [ -s "$out/$1.json" ] || run evaluate --resume --set model="$2" "${keys[@]}" --strategy "$3" --out "$out/$1.json" ${LIMIT:+--limit "$LIMIT"}
}

keys=("$@")
cargo build --release --examples
crates/lm/tests/real/fetch.sh
[ -s "$out/data/demonstrations.jsonl" ] || data
if [ ! -s "$out/cold_start/config.json" ]; then
    run cold_start --demonstrations "$out/data/demonstrations.jsonl" --out "$out/cold_start" \
        --set model="$base" "$real" "${keys[@]}"
fi
if [ ! -s "$out/simulator/report.json" ]; then
    run train_simulator --out "$out/simulator" --resume --set "$real" "${keys[@]}"
fi
if [ ! -s "$out/zerosearch/policy/config.json" ]; then
    # Its rollouts are cooler than the searches that the simulator learns from: a policy that is uncertain at every token seldom ends a chain.
    run train --resume --set train.rollout.sampling='{ temperature = 0.7 }' "${keys[@]}" train.seed="${SEED:-0}"
fi
examine cold_start "$out/cold_start" search
examine zerosearch "$out/zerosearch/policy" search
examine rag "$base" rag
examine ra_agent "$base" ra_agent
"$bin/evaluate" --compare "$out/cold_start.json" "$out/zerosearch.json"
"$bin/evaluate" --compare "$out/rag.json" "$out/zerosearch.json"
"$bin/evaluate" --compare "$out/ra_agent.json" "$out/zerosearch.json"
