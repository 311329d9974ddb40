#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
for kind in jsonl parquet; do
  evaluate "$OUT/$kind.json" --model "$MODEL" --questions "$HERE/questions.$kind" --strategy direct --max-new-tokens 4 || fail "$(last)"
  python3 - "$OUT/$kind.predictions.jsonl" <<'P' || fail "other answers from $kind"
import json
import sys
answers = [json.loads(line)["golden_answers"] for line in open(sys.argv[1])]
print(answers)
sys.exit(answers != [["1960"], ["2.5"]])
P
done
pass
