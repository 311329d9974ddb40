#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
configure "$OUT/run.toml"
( trap '' XFSZ; ulimit -f 24000; exec "$BIN/train" --config "$OUT/run.toml" ) > "$OUT/log" 2>&1
status=$?
left=$(du -sk "$OUT/run/checkpoints" 2>/dev/null | cut -f1)
echo "exit status $status, ${left:-0} kB left behind"
find "$OUT/run/checkpoints" -type f
cat "$OUT/log"
[ $status != 0 ] || fail 'no error: does the limit not bite?'
[ $status = 1 ] || fail "exit status $status"
grep -q 'safetensors' "$OUT/log" || fail 'the error does not name the file'
"$BIN/train" --config "$OUT/run.toml" > "$OUT/log" 2>&1 || fail "does not start again: $(last)"
[ "${left:-0}" -lt 1024 ] && pass || fail "$left kB of an unfinished checkpoint stay"
