#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
configure "$OUT/run.toml"
cd "$OUT" || fail 'no scratch folder'
"$BIN/train" --config "$OUT/run.toml" --set out=2026-11-28 > "$OUT/log" 2>&1 || fail "$(last 3)"
[ -s 2026-11-28/metrics.jsonl ] && pass || fail 'the run is not in the folder that was named'
