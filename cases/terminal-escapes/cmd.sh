#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need ask evaluate train inspect replay
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
question=$(cat "$OUT/question.txt") name=$(cat "$OUT/name.txt")
mkdir "$OUT/shown"
# show NAME PROGRAM ARGUMENT…: what it prints into a pipe. on_terminal: the same on a terminal.
show() { local file=$OUT/shown/$1; shift; "$@" > "$file" 2>&1 < /dev/null; }
on_terminal() { local file=$OUT/$1.terminal; shift; python3 "$HERE/on_terminal.py" "$file" "$@" > /dev/null < /dev/null; }

show ask "$BIN/ask" --model "$MODEL" --corpus "$OUT/corpus.jsonl" "$question"
on_terminal ask "$BIN/ask" --model "$MODEL" --corpus "$OUT/corpus.jsonl" "$question"
show template "$BIN/ask" --model "$OUT/model" --corpus "$OUT/corpus.jsonl" --max-turns 1 'Which?'
show evaluate "$BIN/evaluate" --model "$MODEL" --questions "$OUT/questions.jsonl" --corpus "$OUT/corpus.jsonl" --strategy rag --max-new-tokens 8 --out "$OUT/$name"
on_terminal evaluate "$BIN/evaluate" --model "$MODEL" --questions "$OUT/questions.jsonl" --corpus "$OUT/corpus.jsonl" --strategy rag --max-new-tokens 8 --out "$OUT/$name"
show twice "$BIN/evaluate" --model "$MODEL" --questions "$OUT/twice.jsonl" --strategy direct --out "$OUT/twice.json"
show missing "$BIN/evaluate" --model "$OUT/no-$name" --questions "$OUT/twice.jsonl" --strategy direct --out "$OUT/missing.json"
start_server escapes
show server "$BIN/evaluate" --model "$MODEL" --questions "$ROWS/chad.jsonl" --retriever "http://127.0.0.1:$PORT" --strategy rag --max-new-tokens 2 --out "$OUT/server.json"
show toml "$BIN/train" --config "$OUT/broken.toml"
configure "$OUT/run.toml" "s,$ROWS/two.jsonl,$OUT/questions.jsonl,; s,$ROWS/corpus.jsonl,$OUT/corpus.jsonl,"
show set "$BIN/train" --config "$OUT/run.toml" --set "train.$name=1"
show train "$BIN/train" --config "$OUT/run.toml" --set "out=$OUT/run-$name" || fail "$(cat "$OUT/shown/train")"
show inspect "$BIN/inspect" "$OUT/run-$name" --model "$MODEL"
on_terminal inspect "$BIN/inspect" "$OUT/run-$name" --model "$MODEL"
show replay "$BIN/replay" "$OUT/run-$name" --model "$MODEL"
show inspect-missing "$BIN/inspect" "$OUT/run-$name" --model "$MODEL" --rollout 99
cat "$OUT/shown/"*

# A text that was never shown would pass as legible.
grep -aq 'Moundou' "$OUT/shown/ask" || fail 'ask does not show the document'
grep -aq 'Moundou' "$OUT/shown/inspect" || fail 'inspect does not show the document'
grep -aq 'owned' "$OUT/shown/server" || fail "the server's words are not in the log"
grep -aq "$(printf '\033')" "$OUT/ask.terminal" || fail 'no colours on a terminal'
python3 "$HERE/legible.py" "$OUT/shown/"* || fail 'something raw reaches a pipe'
python3 "$HERE/legible.py" --terminal "$OUT/ask.terminal" "$OUT/inspect.terminal" || fail 'something raw reaches a terminal'
python3 "$HERE/legible.py" --bar "$OUT/evaluate.terminal" || fail 'something raw reaches a terminal beside a progress bar'
grep -aq 'owned' "$OUT/"*.predictions.jsonl || fail 'the predictions are gone'
python3 - "$OUT" <<'P' && pass || fail 'predictions are no longer what was read'
import glob
import json
import sys
rows = [json.loads(line) for path in glob.glob(f"{sys.argv[1]}/scores*.predictions.jsonl") for line in open(path)]
sys.exit(not rows or not all("\x1b]0;owned\x07" in row["question"] for row in rows))
P
