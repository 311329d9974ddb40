#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
evaluate "$OUT/s.json" --model "$MODEL" --questions "$HERE/questions.jsonl" --strategy direct --max-new-tokens 4 || fail "$(last)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'the text is taken as one answer'
import json
import sys
answers = json.loads(open(sys.argv[1]).readline())["golden_answers"]
print(answers)
sys.exit(answers != ["politician", "political leader", "pol"])
P
