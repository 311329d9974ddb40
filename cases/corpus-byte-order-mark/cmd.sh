#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
[ "$(head -c 3 "$HERE/corpus.jsonl" | od -An -tx1 | tr -d ' ')" = efbbbf ] || fail 'the input has lost its mark'
evaluate "$OUT/s.json" --model "$MODEL" --questions "$ROWS/chad.jsonl" --corpus "$HERE/corpus.jsonl" --strategy rag --top-k 1 --max-new-tokens 2 || fail "$(last)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'the first document is not found'
import json
import sys
document = json.loads(open(sys.argv[1]).readline())["transcript"][1]["text"]
print(repr(document))
sys.exit("The capital of Chad" not in document or "\ufeff" in document)
P
