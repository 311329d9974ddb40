#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
evaluate "$OUT/s.json" --model "$OUT/model" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 2 || fail "$(last)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'the prompt does not begin with <s>'
import json
import sys
prompt = json.loads(open(sys.argv[1]).readline())["transcript"][0]["text"]
print(repr(prompt))
sys.exit(not (prompt.startswith("<s>") and prompt.count("<s>") == 1))
P
