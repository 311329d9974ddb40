#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
start_server retry_after
evaluate "$OUT/s.json" --model "$MODEL" --questions "$ROWS/six.jsonl" --retriever "http://127.0.0.1:$PORT" --strategy rag --max-new-tokens 4 || fail "$(last)"
cat "$OUT/server.log" "$OUT/log"
failures=$(search_failures "$OUT/s.json")
[ "$failures" = 0 ] && pass || fail "$failures failed searches"
