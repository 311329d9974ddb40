#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need world train
cd "$HERE/../.." || fail 'no root'
recipes=examples/recipes
"$BIN/world" --out "$OUT/world" > "$OUT/log" 2>&1 || fail "world: $(last)"
held_out="validation={questions=\"$OUT/world/held_out.jsonl\",engine={kind=\"bm25\",corpus=\"$OUT/world/corpus.jsonl\"}}"
little=(train.steps=1 train.questions_per_step=2 train.samples_per_question=2 train.rollout.max_turns=2 "model=$MODEL" "questions=$OUT/world/train.jsonl" "$held_out")
for recipe in r1 search_r1 zerosearch_prompt rejection_sft; do
  case $recipe in
    search_r1) engine=("engine.corpus=$OUT/world/corpus.jsonl") ;;
    zerosearch_prompt | rejection_sft) engine=("engine.model=$MODEL" engine.simulation.max_new_tokens=40) ;;
    *) engine=() ;;
  esac
  "$BIN/train" --config "$recipes/$recipe.toml" --set "${little[@]}" "${engine[@]}" "out=$OUT/$recipe" > "$OUT/log" 2>&1 || fail "$recipe: $(last)"
  [ -s "$OUT/$recipe/policy/model.safetensors" ] || fail "$recipe: no policy"
  echo "$recipe: a step, $(last)"
done
dry() { "$BIN/train" --dry-run --config "$recipes/$1.toml" "${@:2}" > "$OUT/log" 2>&1; }
dry search_r1 --rates "$OUT/search_r1" --json "$OUT/dry.json" --set "${little[@]}" "engine.corpus=$OUT/world/corpus.jsonl" || fail "dry run: $(last)"
cat "$OUT/log"
python3 - "$OUT/dry.json" <<'P' || fail 'the dry run estimates nothing'
import json, sys
dry = json.load(open(sys.argv[1]))
assert dry["estimate"]["hours"] > 0 and dry["estimate"]["is_expected"] and dry["memory"]["peak_bytes"] > 1e7, dry
P
for recipe in qwen2.5-3b qwen2.5-7b llama-3.2-3b fleet; do
  dry "$recipe" || fail "$recipe: $(last)"
  grep -q 'no rates' "$OUT/log" || fail "$recipe: a time without rates"
done
dry qwen2.5-3b --set dry_run.memory_gib=24 && fail 'fits into 24 GiB'
grep -q 'dry_run.memory_gib. is 24' "$OUT/log" || fail "refused without figures: $(last)"
pass
