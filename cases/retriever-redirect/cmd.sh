#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
start_server redirect
evaluate "$OUT/s.json" --model "$MODEL" --questions "$ROWS/chad.jsonl" --retriever "http://127.0.0.1:$PORT/retrieve/" --strategy rag --max-new-tokens 4 || fail "$(last)"
cat "$OUT/server.log"
failures=$(search_failures "$OUT/s.json")
grep -q ' /retrieve 1$' "$OUT/server.log" && [ "$failures" = 0 ] && pass || fail "$failures failed searches"
