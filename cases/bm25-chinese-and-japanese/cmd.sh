#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
evaluate "$OUT/s.json" --model "$MODEL" --questions "$HERE/questions.jsonl" --corpus "$HERE/corpus.jsonl" --strategy rag --top-k 1 --max-new-tokens 4 || fail "$(last)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'no documents, or others'
import json
import sys
seen = [json.loads(line)["transcript"][1]["text"].strip() for line in open(sys.argv[1])]
print(ascii(seen))
sys.exit(not ("北京是" in seen[0] and "東京は" in seen[1]))
P
