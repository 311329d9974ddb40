#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
start_server surrogate
evaluate "$OUT/s.json" --model "$MODEL" --questions "$ROWS/six.jsonl" --retriever "http://127.0.0.1:$PORT" --strategy rag --max-new-tokens 4 || fail "$(last)"
cat "$OUT/server.log" "$OUT/log"
python3 - "$OUT" <<'P' && pass || fail 'one document costs searches'
import json
import sys
failures = json.load(open(f"{sys.argv[1]}/s.json"))["search_failures"]
shown = [json.loads(line)["transcript"][1]["text"] for line in open(f"{sys.argv[1]}/s.predictions.jsonl")]
print(failures, "failed searches;", sum("N'Djamena" in text for text in shown), "documents shown")
sys.exit(failures > 0 or not all("N'Djamena" in text for text in shown))
P
