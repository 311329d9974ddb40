#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
saved=$OUT/run/checkpoints/latest_checkpointed_iteration.txt
configure "$OUT/run.toml" 's,^steps = .*,steps = 3,'
"$BIN/train" --config "$OUT/run.toml" > "$OUT/log" 2>&1 & run=$!
for _ in $(seq 3000); do [ -s "$saved" ] && break; kill -0 $run 2>/dev/null || break; sleep 0.1; done
kill -INT $run 2>/dev/null
wait $run
[ -s "$saved" ] || fail "no checkpoint: $(last)"
bad=
for key in train.micro_batch_tokens=2048 train.gradient_checkpointing=true train.kv_cache_memory_bytes=200000000 train.rollout.concurrency=2 train.keep_checkpoints=3; do
  cp -r "$OUT/run" "$OUT/copy"
  sed "s,$OUT/run,$OUT/copy," "$OUT/run.toml" > "$OUT/copy.toml"
  if "$BIN/train" --config "$OUT/copy.toml" --resume --set "$key" > "$OUT/log" 2>&1; then
    echo "$key: goes on"
  else
    echo "$key: $(last)"
    bad="$bad $key"
  fi
  rm -rf "$OUT/copy"
done
"$BIN/train" --config "$OUT/run.toml" --resume --set train.learning_rate=1.0 > "$OUT/log" 2>&1 && fail 'another learning rate is taken'
cat "$OUT/log"
[ -z "$bad" ] && pass || fail "refused:$bad"
