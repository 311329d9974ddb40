#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
evaluate "$OUT/s.json" --model "$OUT/model" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 2 && pass || fail "$(last)"
