#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
evaluate "$OUT/s.json" --model "$OUT/model" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 2 || fail "$(last 3)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'another date'
import json
import re
import sys
prompt = json.loads(open(sys.argv[1]).readline())["transcript"][0]["text"]
print(repr(prompt))
sys.exit(not re.match(r"Today is [A-Z][a-z]+day, [1-9]\d? [A-Z][a-z]+ 20\d\d, [01]\d:[0-5]\d [AP]M\.\n", prompt))
P
