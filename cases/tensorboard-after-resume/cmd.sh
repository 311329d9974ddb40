#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
configure "$OUT/run.toml" 's,^steps = .*,steps = 4,; s,^checkpoint_every = .*,checkpoint_every = 2,'
"$BIN/train" --config "$OUT/run.toml" > "$OUT/log" 2>&1 & run=$!
for _ in $(seq 3000); do [ "$(cat "$OUT/run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && break; kill -0 $run 2>/dev/null || break; sleep 0.05; done
kill -KILL $run 2>/dev/null
wait $run 2>/dev/null
"$BIN/train" --config "$OUT/run.toml" --resume > "$OUT/log" 2>&1 || fail "$(last)"
head -n 1 "$OUT/log"
python3 "$HERE/events.py" "$OUT/run" && pass || fail 'other steps or values than in metrics.jsonl'
