#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
for temperature in 1.0 0.5; do
  configure "$OUT/$temperature.toml" "s,/run\",/run-$temperature\",; s,^questions_per_step = .*,questions_per_step = 2,"
  sed -i 's,^checkpoint_every.*,&\nold_logprobs = "recomputed"\nimportance_sampling = { mode = "token_truncate"\, cap = 2.0 },' "$OUT/$temperature.toml"
  printf '\n[train.rollout.sampling]\ntemperature = %s\n' "$temperature" >> "$OUT/$temperature.toml"
  if ! "$BIN/train" --config "$OUT/$temperature.toml" > "$OUT/log" 2>&1; then
    [ $temperature = 0.5 ] && grep -qi temperature "$OUT/log" && pass 'refused by name'
    fail "$(last 2)"
  fi
  [ $temperature = 0.5 ] && grep -qi temperature "$OUT/log" && pass 'warned of by name'
done
python3 - "$OUT" <<'P' && pass || fail 'the weights do not follow the temperature'
import json
import sys
def weights(temperature):
    row = json.loads(open(f"{sys.argv[1]}/run-{temperature}/metrics.jsonl").readlines()[-1])
    found = row["rollout/is_weight/min"], row["rollout/is_weight/max"]
    print("temperature", temperature, found)
    return found
at_one, at_half = weights("1.0"), weights("0.5")
sys.exit(max(abs(weight - 1.0) for weight in at_one) > 1e-3 or max(abs(weight - 1.0) for weight in at_half) < 1e-2)
P
