#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
bad=
for codec in none snappy zstd gzip brotli lz4; do
  if evaluate "$OUT/$codec.json" --model "$MODEL" --questions "$HERE/$codec.parquet" --strategy direct --max-new-tokens 2; then
    echo "$codec: read"
  else
    echo "$codec: $(last)"
    bad="$bad $codec"
  fi
done
[ -z "$bad" ] && pass || fail "not read:$bad"
