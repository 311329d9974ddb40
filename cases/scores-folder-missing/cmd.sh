#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
evaluate "$OUT/results/today/scores.json" --model "$MODEL" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 4
status=$?
cat "$OUT/log"
[ $status = 0 ] && [ -s "$OUT/results/today/scores.json" ] && [ -s "$OUT/results/today/scores.predictions.jsonl" ] && pass
grep -q 'evaluate: 1/1' "$OUT/log" && fail 'every question is answered, then nothing is kept'
[ $status != 0 ] && pass 'refused before the work' || fail 'no scores'
