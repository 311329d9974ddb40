#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
evaluate "$OUT/s.json" --model "$OUT/model" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 2 || fail "$(last 3)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'another prompt'
import json
import sys
prompt = json.loads(open(sys.argv[1]).readline())["transcript"][0]["text"]
print(repr(prompt))
sys.exit(not (prompt.startswith("[user] Answer") and prompt.endswith("</s>[assistant]")))
P
