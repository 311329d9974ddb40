#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
for name in scores-2.5 scores-2.7; do
  evaluate "$OUT/$name" --model "$MODEL" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 4 || fail "$(last)"
done
evaluate "$OUT/plain.json" --model "$MODEL" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 4 || fail "$(last)"
ls "$OUT"
python3 - "$OUT" <<'P' && pass || fail 'one run overwrites what the other wrote'
import json
import pathlib
import sys
out = pathlib.Path(sys.argv[1])
for name in ("scores-2.5", "scores-2.7", "plain.json"):
    assert json.loads((out / name).read_text())["n"] == 1
for name in ("scores-2.5.predictions.jsonl", "scores-2.7.predictions.jsonl", "plain.predictions.jsonl"):
    assert json.loads((out / name).read_text())["id"] == "q1", name
P
