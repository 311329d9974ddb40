#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need train
configure "$OUT/run.toml" 's,^steps = .*,steps = 1,'
"$BIN/train" --config "$OUT/run.toml" --set dry_run.memory_gib=0.02 > "$OUT/log" 2>&1 && fail 'runs in 0.02 GiB'
cat "$OUT/log"
for part in 'the run needs' '`dry_run.memory_gib` is 0.02' 'masters' 'train.lora'; do
  grep -qF "$part" "$OUT/log" || fail "refused without \"$part\": $(last)"
done
[ ! -e "$OUT/run" ] || fail 'a folder was made for a run that cannot be'
# A step of many rollouts, whose caches are the most of it.
many=(train.samples_per_question=100 train.micro_batch_tokens=512)
"$BIN/train" --config "$OUT/run.toml" --dry-run --json "$OUT/sizes.json" --set "${many[@]}" > "$OUT/log" 2>&1 || fail "no dry run: $(last)"
less=$(python3 - "$OUT/sizes.json" << 'PYTHON'
import json, sys

memory = json.load(open(sys.argv[1]))["memory"]
at = {time: sum(part[time] for part in memory["parts"]) for time in ("rollouts", "update", "step")}
cache = next(part["rollouts"] for part in memory["parts"] if part["name"].startswith("KV cache of the policy"))
assert memory["peak_during"] == "rollouts", at
print(max(at["update"], at["step"], at["rollouts"] - cache // 2) / 2**30)
PYTHON
) || fail 'the caches are not the most of it'
"$BIN/train" --config "$OUT/run.toml" --set "${many[@]}" "dry_run.memory_gib=$less" > "$OUT/log" 2>&1 || fail "does not run: $(last)"
cat "$OUT/log"
grep -q 'KV cache is bounded to' "$OUT/log" && pass || fail "nothing is said of the cache: $(head -n 1 "$OUT/log")"
